"""Chunked local attention by kernels that know nothing of it: spans cut at chunk boundaries.

A piece is a sequence of its own to a causal kernel: it begins at the first position of a chunk. What depends
on the step alone is made once for all layers, and nothing is made that grows with the context: a sequence
that writes one token is one piece, whose beginning follows from its position.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmctl.engine.attention.interface import Reach, first_seen
from llmctl.engine.execution.step import Span, Step


@dataclass(frozen=True, slots=True)
class Piece:
    """New tokens of one sequence that see no key before `origin`."""

    sequence: int
    """Number of the span that it was cut from."""
    row: int
    """Of the first token in the packed row of the step."""
    count: int
    """Of tokens, at least 1."""
    origin: int
    """Position of the first key that any of them sees."""
    start: int
    """Position of the first token."""

    @property
    def length(self) -> int:
        """Position behind the last token, which is the last that sees anything."""
        return self.start + self.count


def cut(span: Span, sequence: int, policy: Reach) -> Iterator[Piece]:
    """The pieces of `span`, in order; one of the whole span where the policy has no chunks."""
    start = span.start
    while start < span.length:
        origin = first_seen(policy, start)
        stop = span.length if policy.chunk is None else min(span.length, origin + policy.chunk)
        yield Piece(sequence, span.row + start - span.start, stop - start, origin, start)
        start = stop


class Cuts:
    """The pieces of the step that is being worked on, kept for its other layers."""

    def __init__(self) -> None:
        self._step: Step | None = None
        self._pieces: dict[tuple[int | None, int | None, int], list[Piece]] = {}
        self._tables: dict[tuple[int, int | None], LocalTables] = {}

    def pieces(self, step: Step, policy: Reach, min_count: int = 1) -> Sequence[Piece]:
        """Pieces of all spans of at least `min_count` tokens, in the order of the rows."""
        self._turn_to(step)
        key = (policy.window, policy.chunk, min_count)
        if (found := self._pieces.get(key)) is None:
            spans = ((number, span) for number, span in enumerate(step.spans) if span.count >= min_count)
            found = [piece for number, span in spans for piece in cut(span, number, policy)]
            self._pieces[key] = found
        return found

    def local_tables(self, step: Step, group: int, chunk: int | None) -> "LocalTables":
        """The pieces as `local_tables` makes them."""
        self._turn_to(step)
        if (found := self._tables.get((group, chunk))) is None:
            found = self._tables[group, chunk] = local_tables(step, group, chunk)
        return found

    def _turn_to(self, step: Step) -> None:
        if self._step is not step:
            self._step = step
            self._pieces.clear()
            self._tables.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTables:
    """Sequences, or pieces of them, as a causal kernel with block tables takes them; p of them."""

    rows: Tensor
    """int32 [p + 1]: first row of each, and the end of the last."""
    lengths: Tensor
    """int32 [p]: keys of each, from the beginning of its chunk to its last token."""
    tables: Tensor
    """int32 [p, columns]: blocks of each; where there are none any block."""
    max_count: int
    """At least the tokens of each."""


def local_tables(step: Step, group: int, chunk: int | None) -> LocalTables:
    """All spans of `step`, cut at chunks if there are any, by a fixed number of operations on its device.

    `chunk` is a multiple of the block size: a kernel's tables cannot begin inside a block.
    """
    row, count, start = step.meta.unbind(1)
    tables = step.groups[group].tables
    max_count = max(span.count for span in step.spans)
    if chunk is None:
        return _packed(row + count, start + count, tables, max_count)
    if chunk % step.block_size:
        raise ValueError(f"blocks of {step.block_size} tokens do not fit chunks of {chunk}")
    first_chunk = start // chunk
    num_pieces = (start + count - 1) // chunk - first_chunk + 1
    total = sum((span.length - 1) // chunk - span.start // chunk + 1 for span in step.spans)
    sequence = torch.arange(len(row), device=row.device).repeat_interleave(num_pieces, output_size=total)
    number = torch.arange(total, device=row.device) - (num_pieces.cumsum(0) - num_pieces)[sequence]
    origin = (first_chunk[sequence] + number) * chunk
    end = torch.minimum((start + count)[sequence], origin + chunk)
    columns = origin[:, None] // step.block_size + torch.arange(chunk // step.block_size, device=row.device)
    blocks = tables[sequence[:, None], columns.clamp(max=tables.shape[1] - 1)]
    return _packed((row - start)[sequence] + end, end - origin, blocks, min(chunk, max_count))


def _packed(ends: Tensor, lengths: Tensor, tables: Tensor, max_count: int) -> LocalTables:
    rows = torch.cat((ends.new_zeros(1), ends)).int()
    return LocalTables(rows=rows, lengths=lengths.int(), tables=tables.clamp(min=0), max_count=max_count)
