"""A short play of all that the engine does with a model, whose logits must be those of the eager model.

Ragged prompts, prompts in pieces, decoding, sequences that are thrown out and come back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl.engine.execution.handler import StepHandler
from llmctl.engine.execution.step import GroupTables, Span, Step
from llmctl.engine.scheduling import policy

LENGTHS = (41, 23, 6, 30)
"""Of the sequences: windows and chunks of 8 and 16 are crossed, blocks of 4 are filled and left half full."""
BLOCK_SIZE = 4
NUM_BLOCKS = 48
"""Enough for all sequences, in every group."""
TOLERANCE = 1e-5
"""Of logits, which are about 1 in a twin; larger ones may differ by as much of their size."""
MAX_TOLERANCE = 5e-4
"""For classes that amplify rounding so much that their own cache differs from themselves."""
_RESTARTS = {1: 9, 3: 12}
"""Sequences that are thrown out while others run: in which turn."""
_WHOLE_PROMPTS = (17, 9, 5, 21)
_PIECES = ((7, 9, 1, 3), (5, 1, 4), (1, 4), (16, 3))


@dataclass(frozen=True, slots=True)
class Move:
    """What one sequence does in a step."""

    sequence: int
    count: int
    """New tokens."""
    restarts: bool = False
    """It was thrown out: all it had is gone."""


def script(*, in_pieces: bool) -> list[list[Move]]:
    """Steps for sequences of `LENGTHS`; `in_pieces` allows several tokens on top of earlier ones."""
    steps: list[list[Move]] = []
    left = {number: list(_PIECES[number]) if in_pieces else [] for number in range(len(LENGTHS))}
    done = dict.fromkeys(range(len(LENGTHS)), 0)
    for turn in range(sum(LENGTHS)):
        moves = []
        for number, length in enumerate(LENGTHS):
            # They come in one after another, and some rest for a step.
            if turn < number or (turn + number) % 5 == 4 or done[number] == length:
                continue
            restarts = turn == _RESTARTS.get(number)
            if restarts:
                resumed, done[number] = done[number], 0
                left[number] = [2, max(1, resumed - 2)] if in_pieces else []
            whole = resumed if restarts else _WHOLE_PROMPTS[number]
            first = left[number].pop(0) if left[number] else (whole if done[number] == 0 else 1)
            count = min(first, length - done[number])
            done[number] += count
            moves.append(Move(number, count, restarts))
        if moves:
            steps.append(moves)
    return steps


@dataclass(slots=True)
class _Played:
    """One sequence: its blocks by group, and how far it is."""

    tables: list[list[int]]
    start: int = 0


class Stage:
    """Plays moves on a handler, and keeps the books: blocks behind a window or chunk go to others at once."""

    def __init__(self, handler: StepHandler, groups: Sequence[policy.Group], ids: Sequence[Tensor]) -> None:
        """`ids` int64 [L] of each sequence."""
        self._handler, self._groups, self._ids = handler, groups, ids
        self._free = [list(range(NUM_BLOCKS)) for _ in groups]
        self._played = [_Played([[] for _ in groups]) for _ in ids]

    def step(self, moves: Sequence[Move]) -> Iterator[tuple[int, int, Tensor]]:
        """(sequence, position, logits [V]) of every new token."""
        spans = self._spans(moves)
        logits = self._handler.forward(self._made(moves, spans))
        for move, span in zip(moves, spans, strict=True):
            for offset in range(span.count):
                yield move.sequence, span.start + offset, logits[span.row + offset]
            self._played[move.sequence].start = span.length
            self._free_before(self._played[move.sequence], span.length)

    def _spans(self, moves: Sequence[Move]) -> list[Span]:
        spans, row = [], 0
        for move in moves:
            played = self._played[move.sequence]
            if move.restarts:
                self._free_before(played, None)
                played.tables, played.start = [[] for _ in self._groups], 0
            spans.append(Span(row=row, count=move.count, start=played.start))
            row += move.count
        return spans

    def _made(self, moves: Sequence[Move], spans: Sequence[Span]) -> Step:
        pairs = list(zip(moves, spans, strict=True))
        positions = [position for span in spans for position in range(span.start, span.length)]
        ids = torch.cat([self._ids[move.sequence][span.start : span.length] for move, span in pairs])
        return Step(
            ids=ids[None],
            positions=torch.tensor([positions]),
            spans=list(spans),
            meta=torch.tensor([[span.row, span.count, span.start] for span in spans]),
            groups=[self._tables(number, pairs) for number in range(len(self._groups))],
            block_size=BLOCK_SIZE,
            wanted=torch.arange(len(positions)),
            states=torch.tensor([move.sequence for move in moves]),
        )

    def _tables(self, group: int, pairs: Sequence[tuple[Move, Span]]) -> GroupTables:
        tables, slots = [], []
        for move, span in pairs:
            table = self._played[move.sequence].tables[group]
            while len(table) * BLOCK_SIZE < span.length:
                # The last that came back goes first: it still holds what another sequence wrote.
                table.append(self._free[group].pop())
            tables.append(table)
            for position in range(span.start, span.length):
                slots.append(table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE)
        width = max(map(len, tables))
        padded = [[*table, *[-1] * (width - len(table))] for table in tables]
        return GroupTables(tables=torch.tensor(padded, dtype=torch.int32), slots=torch.tensor(slots))

    def _free_before(self, played: _Played, num_tokens: int | None) -> None:
        """Give back what no later token needs; all when `num_tokens` is None."""
        for number, (group, table) in enumerate(zip(self._groups, played.tables, strict=True)):
            needed = len(table) * BLOCK_SIZE
            if num_tokens is not None:
                needed = policy.first_needed(group.policy, num_tokens)
            for column in range(min(needed // BLOCK_SIZE, len(table))):
                if table[column] >= 0:
                    self._free[number].append(table[column])
                    table[column] = -1


@dataclass(frozen=True, slots=True)
class Reference:
    """What the eager model says of some sequences, each alone and as a whole."""

    ids: Sequence[Tensor]
    """int64 [L] of each."""
    logits: Sequence[Tensor]
    """float32 [L, V] of each."""
    size: float
    """Of the largest logit, and 1 at least."""

    @classmethod
    def of(cls, model: Any, vocabulary_size: int) -> "Reference":
        """Run `model`, which is in float32 and attends eagerly, over random sequences of `LENGTHS`."""
        generator = torch.Generator().manual_seed(0)
        ids = [torch.randint(vocabulary_size, (length,), generator=generator) for length in LENGTHS]
        logits = [_logits(model, each) for each in ids]
        size = max(1.0, *(float(each.abs().max()) for each in logits))
        return cls(ids, logits, size)

    def difference(self, handler: StepHandler, groups: Sequence[policy.Group], *, in_pieces: bool) -> float:
        """The largest, over all positions of a play on `handler`, as a share of the size."""
        stage, largest = Stage(handler, groups, self.ids), 0.0
        for moves in script(in_pieces=in_pieces):
            for sequence, position, logits in stage.step(moves):
                difference = float((logits.float() - self.logits[sequence][position]).abs().max())
                # A number that is none compares as no larger.
                largest = max(largest, difference if difference == difference else torch.inf)
        return largest / self.size


def _logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids[None], return_dict=True).logits[0].float()
    return logits
