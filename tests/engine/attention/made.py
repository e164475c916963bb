"""Random steps over blocks: sequences of any length, blocks in any order, freed where nobody looks."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llmctl.engine.attention.interface import Backend, KVLayer, Scoring, first_seen
from llmctl.engine.execution import storage
from llmctl.engine.execution.step import GroupTables, Span, Step


@dataclass(frozen=True)
class Policy:
    """What attention knows of a layer's policy."""

    window: int | None = None
    chunk: int | None = None


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of a layer."""

    num_heads: int = 4
    num_kv_heads: int = 2
    key_size: int = 32
    value_size: int = 32


@dataclass(frozen=True)
class Case:
    """A step and one layer's part in it."""

    q: Tensor
    k: Tensor
    v: Tensor
    layer: KVLayer
    step: Step

    def attend(self, backend: Backend, scoring: Scoring, *, has_new: bool = True) -> Tensor:
        """What `backend` makes of it, in storage of its own."""
        layer = self.copied()
        if not has_new:
            storage.write(layer, self.k, self.v, self.step.groups[0].slots)
        new = (self.k, self.v) if has_new else (None, None)
        return backend.attend(self.q, *new, layer, self.step, scoring)

    def copied(self) -> KVLayer:
        """The layer before the step, in storage of its own."""
        return replace(self.layer, keys=self.layer.keys.clone(), values=self.layer.values.clone())

    def stored(self, backend: Backend) -> KVLayer:
        """The layer after the step."""
        layer = self.copied()
        backend.attend(self.q, self.k, self.v, layer, self.step, Scoring(1.0))
        return layer


def step_of(spans: Sequence[tuple[int, int]], policy: Policy, block_size: int, seed: int = 0) -> Step:
    """A step of sequences (start, count); blocks that nobody sees are freed."""
    chance = random.Random(seed)
    columns = [-(-(start + count) // block_size) for start, count in spans]
    numbers = list(range(sum(columns) + 2))
    chance.shuffle(numbers)
    table = torch.full((len(spans), max(columns) + chance.randrange(2)), -1, dtype=torch.int32)
    made, slots, positions, row = [], [], [], 0
    for index, (start, count) in enumerate(spans):
        first = first_seen(policy, start) // block_size
        for column in range(first, columns[index]):
            table[index, column] = numbers.pop()
        made.append(Span(row=row, count=count, start=start))
        for position in range(start, start + count):
            block = int(table[index, position // block_size])
            slots.append(block * block_size + position % block_size)
            positions.append(position)
        row += count
    return Step(
        ids=torch.zeros(1, row, dtype=torch.int64),
        positions=torch.tensor([positions]),
        spans=made,
        meta=torch.tensor([(span.row, span.count, span.start) for span in made]),
        groups=[GroupTables(tables=table, slots=torch.tensor(slots))],
        block_size=block_size,
        wanted=torch.arange(row),
    )


def case_of(
    spans: Sequence[tuple[int, int]],
    policy: Policy = Policy(),
    *,
    sizes: Sizes = Sizes(),
    block_size: int = 16,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Case:
    """A step with random numbers everywhere; what no sequence holds is no number at all."""
    step = step_of(spans, policy, block_size, seed)
    torch.manual_seed(seed)
    num_rows = len(step.wanted)
    num_blocks = sum(-(-(start + count) // block_size) for start, count in spans) + 2
    head = (num_blocks, sizes.num_kv_heads, block_size)
    keys = torch.full((*head, sizes.key_size), torch.nan, dtype=dtype)
    values = torch.full((*head, sizes.value_size), torch.nan, dtype=dtype)
    for span, table in zip(step.spans, step.groups[0].tables.tolist(), strict=True):
        for position in range(first_seen(policy, span.start), span.start):
            block, offset = table[position // block_size], position % block_size
            keys[block, :, offset] = torch.randn(sizes.num_kv_heads, sizes.key_size).to(dtype)
            values[block, :, offset] = torch.randn(sizes.num_kv_heads, sizes.value_size).to(dtype)
    # As the projections of transformers' models come: rows first, heads turned forward.
    q, k, v = (
        torch.randn(num_rows, heads, size).to(dtype).transpose(0, 1)
        for heads, size in (
            (sizes.num_heads, sizes.key_size),
            (sizes.num_kv_heads, sizes.key_size),
            (sizes.num_kv_heads, sizes.value_size),
        )
    )
    return Case(q, k, v, KVLayer(keys, values, policy, 0), step)
