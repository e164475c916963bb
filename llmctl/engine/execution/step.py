"""One step of the engine as tensors: which tokens of which sequences, and where their keys and values lie.

Everything that differs from sequence to sequence sits in tensors, so that a compiled model needs no new graph
when lengths change. Built by `runner`, read by `attention`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """New tokens of one sequence in a step."""

    row: int
    """Of the first in the packed row of the step."""
    count: int
    """At least 1."""
    start: int
    """Position of the first in its sequence: so many tokens have keys and values already."""

    @property
    def length(self) -> int:
        """Tokens of the sequence when the step is done."""
        return self.start + self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTables:
    """Where the layers of one policy group (`policy.groups`) find their blocks."""

    tables: Tensor
    """int32 [n, columns]: column b says which block holds tokens b * block_size and on of a sequence, and
    anything where no layer of the group reads or writes them any more."""
    slots: Tensor
    """int64 [T]: block * block_size + offset, where the keys and values of each new token go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Tensors of one step, T tokens of n sequences packed in one row; all on the model's device."""

    ids: Tensor
    """int64 [1, T]."""
    positions: Tensor
    """int64 [1, T]."""
    spans: Sequence[Span]
    """n of them, in the order of the rows, without gaps."""
    meta: Tensor
    """int64 [n, 3]: row, count, start of each span: `spans` for kernels."""
    groups: Sequence[GroupTables]
    """By number of the policy group."""
    block_size: int
    """Tokens in a block."""
    wanted: Tensor
    """int64 [m]: rows whose logits somebody asks for."""
    states: Tensor | None = None
    """int64 [n]: state slot of each sequence, for models with recurrent layers."""
