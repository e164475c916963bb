"""What an adapter makes of a parameter of its base, the whole of it or the part that one file holds.

Computed in float32, whatever the files hold, and rounded once at the end by whoever asked.

  W [..., N, K] as the base stores it   left [..., N, r]   right [..., r, K]   r: rank
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError
from llmctl.lora.checkpoint import AdapterTensor, LowRank

_BLOCK = 1 << 23
"""Numbers that are float32 at a time."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a parameter: of one expert, of some rows; without both the whole."""

    expert: int | None = None
    """Index into the first of three dimensions."""
    rows: tuple[int, int] | None = None
    """First and behind the last, of dimension -2 of a matrix, of the only one of a vector."""

    def of(self, whole: Tensor) -> Tensor:
        """That part of the parameter."""
        part = whole if self.expert is None else whole[self.expert]
        if self.rows is None:
            return part
        return part.narrow(max(part.dim() - 2, 0), self.rows[0], self.rows[1] - self.rows[0])


WHOLE = Part()


class Update(Protocol):
    """One change of a parameter."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole parameter behind it."""
        ...

    @property
    def works_on_parts(self) -> bool:
        """Whether rows of it can be changed without seeing the others."""
        ...

    def apply(self, weight: Tensor, part: Part) -> Tensor:
        """The changed part from `weight`, the same part before: float32, which may be written into.

        Raises `BadFileError` for an adapter's tensor that does not load.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankUpdate:
    """W + factor * left right; with magnitudes m (DoRA) every row or column is then m long."""

    shape: tuple[int, ...]
    factors: Callable[[], tuple[Tensor, Tensor]]
    """Reads left and right."""
    factor: float
    magnitude: AdapterTensor | None = None
    is_by_column: bool = False
    """Whether magnitudes are of columns: where the base stores [inputs, outputs]."""

    @property
    def works_on_parts(self) -> bool:
        """Rows have lengths of their own, columns go through all rows."""
        return self.magnitude is None or not self.is_by_column

    def apply(self, weight: Tensor, part: Part) -> Tensor:
        """See `Update`."""
        left, right = self.factors()
        if part.expert is not None:
            left, right = left[part.expert], right[part.expert]
        if part.rows is not None:
            left = left[..., part.rows[0] : part.rows[1], :]
        changed = _add_product(weight, left.float(), right.float(), self.factor)
        if self.magnitude is None:
            return changed
        magnitude = self.magnitude.read().float().flatten()
        if not self.is_by_column and part.rows is not None:
            magnitude = magnitude[part.rows[0] : part.rows[1]]
        dim = 0 if self.is_by_column else 1
        return changed.mul_((magnitude / torch.linalg.vector_norm(changed, dim=dim)).unsqueeze(dim))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A parameter that was trained and saved whole."""

    tensor: AdapterTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Update`."""
        return self.tensor.shape

    @property
    def works_on_parts(self) -> bool:
        """See `Update`."""
        return True

    def apply(self, weight: Tensor, part: Part) -> Tensor:
        """See `Update`."""
        return part.of(self.tensor.read()).float()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRows:
    """Rows of a table of tokens that were trained one by one."""

    shape: tuple[int, ...]
    tokens: tuple[int, ...]
    rows: AdapterTensor
    """[tokens, H]."""

    @property
    def works_on_parts(self) -> bool:
        """See `Update`."""
        return True

    def apply(self, weight: Tensor, part: Part) -> Tensor:
        """See `Update`."""
        rows, start = self.rows.read().float(), part.rows[0] if part.rows is not None else 0
        for index, token in enumerate(self.tokens):
            if 0 <= token - start < weight.shape[0]:
                weight[token - start] = rows[index]
        return weight


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasUpdate:
    """A vector that is added."""

    shape: tuple[int, ...]
    vector: AdapterTensor
    factor: float

    @property
    def works_on_parts(self) -> bool:
        """See `Update`."""
        return True

    def apply(self, weight: Tensor, part: Part) -> Tensor:
        """See `Update`."""
        return weight.add_(part.of(self.vector.read()).float(), alpha=self.factor)


def layer_factors(files: LowRank, *, is_transposed: bool) -> Callable[[], tuple[Tensor, Tensor]]:
    """left and right of a layer that stores [N, K], or [K, N] where it is transposed; tables store [V, H]."""

    def read() -> tuple[Tensor, Tensor]:
        a, b = files.a.read(), files.b.read()
        return (a.T, b.T) if is_transposed else (b, a)

    return read


def expert_factors(
    files: LowRank, num_experts: int, *, is_transposed: bool
) -> Callable[[], tuple[Tensor, Tensor]]:
    """left and right of experts that are stored as [E, N, K], or [E, K, N] where they are transposed."""

    def read() -> tuple[Tensor, Tensor]:
        a, b = files.a.read(), files.b.read()
        # PEFT keeps the experts of A one behind the other, those of B in turn.
        a = a.reshape(num_experts, -1, a.shape[1])
        b = b.reshape(b.shape[0], -1, num_experts).permute(2, 0, 1)
        return (a.mT, b.mT) if is_transposed else (b, a)

    return read


def apply_all(
    weight: Tensor, updates: Sequence[Update], part: Part, dtype: torch.dtype, *, name: str
) -> Tensor:
    """`weight`, the part of a parameter, changed by all of `updates` in turn, in `dtype`; it is left alone.

    Large ones are changed some rows at a time. Raises `BadFileError` for numbers that are none or too large
    for `dtype`; `name` is for messages.
    """
    weight, updates = _from_last_replacement(weight, updates, part)
    changed = torch.empty(weight.shape, dtype=dtype)
    for block, own in _blocks(weight, part, can_cut=all(update.works_on_parts for update in updates)):
        numbers = block.of(weight).to(torch.float32, copy=True)
        for update in updates:
            numbers = update.apply(numbers, own)
        rounded = block.of(changed)
        rounded.copy_(numbers)
        if not bool(rounded.isfinite().all()):
            raise BadFileError(
                f"{name} with its adapter holds numbers that are NaN, infinite or too large for "
                f"{str(dtype).removeprefix('torch.')}",
                hint="the adapter belongs to another base, or its training went wrong",
            )
    return changed


def _from_last_replacement(
    weight: Tensor, updates: Sequence[Update], part: Part
) -> tuple[Tensor, Sequence[Update]]:
    """What stood before a parameter was replaced does not matter."""
    for index in reversed(range(len(updates))):
        update = updates[index]
        if isinstance(update, Replacement):
            return part.of(update.tensor.read()), updates[index + 1 :]
    return weight, updates


def _blocks(weight: Tensor, part: Part, *, can_cut: bool) -> Iterator[tuple[Part, Part]]:
    """Parts of `weight`, itself a part of a parameter, and which parts of the parameter they are."""
    if not can_cut or weight.dim() < 2 or weight.numel() <= _BLOCK:
        yield WHOLE, part
        return
    experts = range(weight.shape[0]) if weight.dim() == 3 else (None,)
    num_rows, first = weight.shape[-2], part.rows[0] if part.rows is not None else 0
    count = max(1, _BLOCK // max(weight.shape[-1], 1))
    for expert in experts:
        for start in range(0, num_rows, count):
            end = min(start + count, num_rows)
            whose = part.expert if expert is None else expert
            yield Part(expert, (start, end)), Part(whose, (first + start, first + end))


def _add_product(weight: Tensor, left: Tensor, right: Tensor, factor: float) -> Tensor:
    """weight + factor * left right, in the memory of `weight`."""
    if weight.dim() == 3:
        return weight.baddbmm_(left, right, alpha=factor)
    return weight.addmm_(left, right, alpha=factor)
