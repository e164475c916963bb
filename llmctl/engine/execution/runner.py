"""Runs what the scheduler decided: makes a step's tensors and gives them to the model's handler.

Block tables stay in arrays from step to step, and only what a step changed is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmctl.engine.attention.interface import KVLayer
from llmctl.engine.execution import storage
from llmctl.engine.execution.handler import StepHandler
from llmctl.engine.execution.step import GroupTables, Span, Step
from llmctl.engine.scheduling.sequence import Sequence as Running
from llmctl.engine.scheduling.sequence import State
from llmctl.engine.scheduling.work import Share, Work

_Ints = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Memory:
    """The blocks of a model on its device."""

    layers: dict[int, KVLayer]
    """What `storage.allocate` made, by number of the layer."""
    num_groups: int
    block_size: int
    device: torch.device


class Runner:
    """One model over the blocks of one pool. One thread at a time."""

    def __init__(self, handler: StepHandler, memory: Memory, max_running: int) -> None:
        self._handler, self._memory = handler, memory
        self._rows = _Rows(memory.num_groups, max_running)

    def run(self, work: Work) -> Tensor:
        """Logits [m, V] of the rows that are wanted (`Share.wanted_rows`), in the order of the spans."""
        for source, target in work.state_copies:
            self._handler.copy_state(source, target)
        storage.copy(self._memory.layers.values(), work.copies)
        storage.discard(self._memory.layers.values(), work.discarded)
        return self._handler.forward(self._step(work.spans))

    def release(self) -> None:
        """Leave the model as it was, and give the blocks back."""
        self._handler.release()
        self._memory.layers.clear()

    def _step(self, shares: Sequence[Share]) -> Step:
        starts = np.array([share.start for share in shares])
        counts = np.array([share.count for share in shares])
        firsts = np.cumsum(counts) - counts
        which = np.repeat(np.arange(len(shares)), counts)
        positions = np.arange(len(which)) + (starts - firsts)[which]
        ids = [token for share in shares for token in share.ids]
        placed = list(zip(firsts.tolist(), shares, strict=True))
        wanted = [row for first, share in placed for row in share.wanted_rows(first)]
        states = [share.sequence.state_slot for share in shares]
        return Step(
            ids=self._tensor(np.array(ids))[None],
            positions=self._tensor(positions)[None],
            spans=[Span(row=first, count=share.count, start=share.start) for first, share in placed],
            meta=self._tensor(np.stack((firsts, counts, starts), 1)),
            groups=self._groups(shares, which, positions),
            block_size=self._memory.block_size,
            wanted=torch.tensor(wanted, dtype=torch.long, device=self._memory.device),
            states=None if None in states else self._tensor(np.array(states)),
        )

    def _groups(self, shares: Sequence[Share], which: _Ints, positions: _Ints) -> list[GroupTables]:
        block_size = self._memory.block_size
        if not self._memory.num_groups:
            return []
        rows = self._rows.of(shares, block_size)
        columns, offsets = np.divmod(positions, block_size)
        width = int(columns.max()) + 1
        found = []
        for table in self._rows.tables:
            tables = table[rows, :width]
            slots = tables[which, columns].astype(np.int64) * block_size + offsets
            found.append(GroupTables(tables=self._tensor(tables), slots=self._tensor(slots)))
        return found

    def _tensor(self, array: _Ints) -> Tensor:
        return torch.from_numpy(array).to(self._memory.device)


class _Rows:
    """The block tables of those who run, a row each, of every group."""

    def __init__(self, num_groups: int, max_running: int) -> None:
        self.tables: list[_Ints] = [np.full((max_running, 16), -1, np.int32) for _ in range(num_groups)]
        """By group: [max_running, columns]; a column that was freed may still name its old block."""
        self._row_of: dict[tuple[Running, int], int] = {}
        """By sequence and how often it was thrown out: it comes back with other blocks."""
        self._free = list(range(max_running))[::-1]

    def of(self, shares: Sequence[Share], block_size: int) -> list[int]:
        """Rows of the sequences, up to date for their new tokens."""
        for key in [key for key in self._row_of if not _is_running(*key)]:
            self._free.append(self._row_of.pop(key))
        self._widen(max(len(share.sequence.tables[0]) for share in shares))
        return [self._row(share, block_size) for share in shares]

    def _row(self, share: Share, block_size: int) -> int:
        sequence = share.sequence
        first = share.start // block_size
        key = sequence, sequence.num_preemptions
        if (row := self._row_of.get(key)) is None:
            row = self._row_of[key] = self._free.pop()
            first = 0
        # A decoding sequence has a new block, or a copy of its last one, only where it begins to write.
        for table, blocks in zip(self.tables, sequence.tables, strict=True):
            table[row, first : len(blocks)] = blocks[first:]
        return row

    def _widen(self, num_columns: int) -> None:
        while num_columns > self.tables[0].shape[1]:
            self.tables = [np.concatenate((table, np.full_like(table, -1)), 1) for table in self.tables]


def _is_running(sequence: Running, num_preemptions: int) -> bool:
    return sequence.state is State.RUNNING and sequence.num_preemptions == num_preemptions
