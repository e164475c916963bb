"""The canonical forms of a quantised weight: every file is read into one, every kernel packs from one.

`IntWeight` is a number times a scale (int8, GPTQ, AWQ, compressed-tensors, MXFP4), `CodedWeight` an index
into a table of sixteen numbers times a scale (bitsandbytes' nf4 and fp4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

SYMMETRIC_ZERO = {4: 8, 8: 0}
"""The value that stands for 0 where a weight has no zero points of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntWeight:
    """A weight [..., N, K] of whole numbers in groups along K; leading dimensions are experts.

    W[..., n, permutation[k]] = (value[..., n, k] - zero[..., n, g]) * scale[..., n, g], g = k // group_size
    """

    bits: int
    """4 or 8, as `values` stores them; fewer bits of a file are widened."""
    values: Tensor
    """8 bits: int8 [..., N, K]. 4 bits: uint8 [..., N, K / 2] of numbers 0 to 15, the even k in the low half
    of a byte."""
    scale: Tensor
    """float32 [..., N, G]; one group is one scale for the whole row."""
    zero: Tensor | None = None
    """int16 [..., N, G]; None: `SYMMETRIC_ZERO`."""
    permutation: Tensor | None = None
    """int64 [..., K]: the input that column k belongs to (act-order); None: k itself."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., N, K] of the weight itself."""
        *leading, num_columns = self.values.shape
        return (*leading, num_columns * 8 // self.bits)

    @property
    def group_size(self) -> int:
        """Columns that share a scale."""
        return self.shape[-1] // self.scale.shape[-1]

    @property
    def num_bytes(self) -> int:
        """Memory of all parts."""
        parts = (self.values, self.scale, self.zero, self.permutation)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def __deepcopy__(self, copies: dict[int, Any]) -> "IntWeight":
        # Nobody writes into it, so that the copies of a model share it.
        return self

    def numbers(self) -> Tensor:
        """The values one by one: int8 [..., N, K], 0 to 15 for 4 bits."""
        return self.values if self.bits == 8 else unpack4(self.values)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [..., N, K] that this stands for, computed in float32 and then rounded to `dtype`."""
        *leading, num_rows, num_columns = self.shape
        grouped = (*leading, num_rows, self.scale.shape[-1], self.group_size)
        zero: Tensor | int = SYMMETRIC_ZERO[self.bits] if self.zero is None else self.zero[..., None]
        weight = (self.numbers().view(grouped).to(torch.int16) - zero).float().mul_(self.scale[..., None])
        weight = weight.view(*leading, num_rows, num_columns)
        if self.permutation is not None:
            place = self.permutation.unsqueeze(-2).expand(weight.shape)
            weight = torch.empty_like(weight).scatter_(-1, place, weight)
        return weight.to(dtype)

    def to(self, device: torch.device) -> "IntWeight":
        """The same on another device."""
        return replace(
            self,
            values=self.values.to(device),
            scale=self.scale.to(device),
            zero=None if self.zero is None else self.zero.to(device),
            permutation=None if self.permutation is None else self.permutation.to(device),
        )

    def expert(self, index: int) -> "IntWeight":
        """One of the weights of the first leading dimension."""
        return replace(
            self,
            values=self.values[index],
            scale=self.scale[index],
            zero=None if self.zero is None else self.zero[index],
            permutation=None if self.permutation is None else self.permutation[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedWeight:
    """A weight [..., N, K] of indices into a table, in blocks that run through all rows, as in bitsandbytes.

    W.flatten()[i] = table[code[i]] * absmax[i // block_size]
    """

    kind: str
    """"nf4" or "fp4"."""
    codes: Tensor
    """uint8 [... * N * K / 2], two codes a byte, the first in the high half."""
    absmax: Tensor
    """float32 [blocks], double quantisation already undone."""
    table: Tensor
    """float32 [16]."""
    block_size: int
    shape: tuple[int, ...]
    """[..., N, K]; each leading index, an expert, starts a new block."""

    @property
    def num_bytes(self) -> int:
        """Memory of codes and scales."""
        return self.codes.numel() + self.absmax.numel() * self.absmax.element_size()

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [N, K] that this stands for, computed in float32 and then rounded to `dtype`."""
        codes = torch.stack((self.codes >> 4, self.codes & 15), -1).flatten()[: math.prod(self.shape)]
        numbers = self.table[codes.long()]
        scale = self.absmax.repeat_interleave(self.block_size)[: numbers.numel()]
        return (numbers * scale).view(self.shape).to(dtype)

    def to(self, device: torch.device) -> "CodedWeight":
        """The same on another device."""
        return replace(
            self, codes=self.codes.to(device), absmax=self.absmax.to(device), table=self.table.to(device)
        )

    def expert(self, index: int) -> "CodedWeight":
        """One of the weights of the first leading dimension."""
        count = self.shape[0]
        return replace(
            self,
            codes=self.codes.view(count, -1)[index],
            absmax=self.absmax.view(count, -1)[index],
            shape=self.shape[1:],
        )


QuantWeight = IntWeight | CodedWeight


def pack4(numbers: Tensor) -> Tensor:
    """Numbers 0 to 15, [..., K] with an even K, two to a byte: uint8 [..., K / 2]."""
    numbers = numbers.to(torch.uint8)
    return numbers[..., ::2] | (numbers[..., 1::2] << 4)


def unpack4(packed: Tensor) -> Tensor:
    """The inverse of `pack4`: int8 [..., K]."""
    return torch.stack((packed & 15, packed >> 4), -1).flatten(-2).to(torch.int8)


def join(weights: Sequence[QuantWeight], dim: int, *, is_new: bool) -> QuantWeight | None:
    """Weights of one kind stacked along a new leading dimension, or side by side along an old, not the last.

    None where they do not fit together: other bits, groups or tables, zero points on one side only, blocks
    that end within a row, or other permutations where a permutation holds for all rows.
    """
    ints = [each for each in weights if isinstance(each, IntWeight)]
    coded = [each for each in weights if isinstance(each, CodedWeight)]
    if ints and coded:
        return None
    return _join_ints(ints, dim, is_new=is_new) if ints else _join_coded(coded, dim, is_new=is_new)


def _join_ints(weights: Sequence[IntWeight], dim: int, *, is_new: bool) -> IntWeight | None:
    first = weights[0]
    if (
        len({(each.bits, each.group_size, each.zero is None, each.permutation is None) for each in weights})
        > 1
    ):
        return None
    permutation = first.permutation
    if permutation is not None and not is_new and dim % len(first.shape) == len(first.shape) - 2:
        others = [each.permutation for each in weights[1:]]
        if any(other is None or not torch.equal(other, permutation) for other in others):
            return None
    else:
        permutation = _joined([each.permutation for each in weights], dim, is_new=is_new)
    return replace(
        first,
        values=_joined([each.values for each in weights], dim, is_new=is_new),
        scale=_joined([each.scale for each in weights], dim, is_new=is_new),
        zero=_joined([each.zero for each in weights], dim, is_new=is_new),
        permutation=permutation,
    )


def _join_coded(weights: Sequence[CodedWeight], dim: int, *, is_new: bool) -> CodedWeight | None:
    first = weights[0]
    num_dims = len(first.shape)
    dim = dim % (num_dims + is_new)
    if len({(each.kind, each.block_size) for each in weights}) > 1 or dim > num_dims - 2 + is_new:
        return None
    if any(math.prod(each.shape[dim:]) % each.block_size for each in weights):
        return None
    shape = list(first.shape)
    if is_new:
        shape.insert(dim, len(weights))
    else:
        shape[dim] = sum(each.shape[dim] for each in weights)
    outer = math.prod(shape[:dim])
    codes = torch.cat([each.codes.view(outer, -1) for each in weights], 1).flatten()
    absmax = torch.cat([each.absmax.view(outer, -1) for each in weights], 1).flatten()
    return replace(first, codes=codes, absmax=absmax, shape=tuple(shape))


def _joined(parts: Sequence[Tensor | None], dim: int, *, is_new: bool) -> Any:
    present = [part for part in parts if part is not None]
    if not present:
        return None
    return (torch.stack if is_new else torch.cat)(present, dim)
