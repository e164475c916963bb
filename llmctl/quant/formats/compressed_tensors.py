"""Checkpoints of compressed-tensors (llm-compressor): packed and plain integers, 8-bit and 4-bit floats.

Integers and 4-bit floats get their canonical form, 8-bit floats become dense.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmctl.quant.formats.base import Part, bad, is_whole, need
from llmctl.quant.formats.compressed_schemes import TITLE, Scheme, Schemes, read_schemes
from llmctl.quant.formats.floats import FP8_TYPES, dequantize_fp8, lay_out, lay_out_blocks, scale_values
from llmctl.quant.formats.mxfp4 import mx_weight
from llmctl.quant.formats.overrides import check_overrides
from llmctl.quant.formats.packing import WORD_BITS, unpack_bits, unpack_fields
from llmctl.quant.formats.sidecars import owners
from llmctl.quant.weights import SYMMETRIC_ZERO, IntWeight, QuantWeight, pack4

log = logging.getLogger(__name__)

_ROLES = (
    "weight",
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "weight_global_scale",
)
# A module is quantised when one of them is there.
_SIGNS = ("weight_packed", "weight_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedTensorsReader:
    """Reads the weights that a group of the config means."""

    title: str
    gives_quantised: bool
    parts: Mapping[str, Part]
    schemes: Schemes
    told: list[str] = field(default_factory=list)
    """The first weight whose order the config denies: one line says it for all."""

    def part(self, tensor: str) -> Part | None:
        """The weight that this tensor belongs to; one without scales is dense."""
        return self.parts.get(tensor)

    def decode(self, weight: str, parts: Mapping[str, Tensor], dtype: torch.dtype) -> QuantWeight | Tensor:
        """The weight as its scheme says. Raises `BadFileError`, also where no group means it."""
        scheme = self.schemes.find(weight.removesuffix(".weight"))
        need(weight, parts, ("weight_scale",))
        stored = "weight_packed" if "weight_packed" in parts else "weight"
        if stored == "weight_packed" and "weight" in parts:
            raise bad(weight, "it is there twice, packed and dense")
        if scheme.is_float and "weight_g_idx" in parts:
            raise bad(weight, f"it has a weight_g_idx, which is not for {scheme}")
        if "weight_global_scale" in parts and not scheme.format.startswith("nvfp4"):
            raise bad(weight, f"it has a weight_global_scale, which is not for {scheme}")
        if stored != ("weight_packed" if "pack" in scheme.format else "weight") or stored not in parts:
            raise bad(weight, f"it is stored as {stored}, which is not {scheme.format}")
        if parts[stored].dim() != 2 or parts[stored].numel() == 0:
            raise bad(weight, f"its {stored} is {list(parts[stored].shape)}, not rows and columns")
        if scheme.is_float:
            return (_read_fp8 if scheme.bits == 8 else _read_fp4)(weight, parts, scheme, dtype)
        made = _read_ints(weight, parts, scheme)
        if made.permutation is not None and not scheme.has_order:
            self._tell_of_order(weight)
        return made

    def _tell_of_order(self, weight: str) -> None:
        if not self.told:
            log.warning("the config names no actorder, but %s has one: its weight_g_idx is followed", weight)
            self.told.append(weight)


def reader(
    config: Mapping[str, Any], tensors: Collection[str], overrides: Mapping[str, Any]
) -> CompressedTensorsReader:
    """The reader for such a checkpoint. Raises `BadFileError` for what it cannot honour, by name."""
    schemes = read_schemes(config)
    all_schemes = set(schemes.of_targets.values())
    if len(all_schemes) == 1:
        (scheme,) = all_schemes
        facts = {
            "bits": scheme.bits,
            "sym": scheme.is_symmetric,
            "group_size": scheme.block and scheme.block[1],
        }
        check_overrides(overrides, facts, TITLE)
    elif overrides:
        check_overrides(overrides, {}, TITLE)
    return CompressedTensorsReader(
        title=schemes.title(),
        gives_quantised=any(scheme.gives_quantised for scheme in all_schemes),
        parts=dict(_parts(frozenset(tensors))),
        schemes=schemes,
    )


def _parts(tensors: frozenset[str]) -> Iterator[tuple[str, Part]]:
    modules = {name.rpartition(".")[0] for name in tensors if name.rpartition(".")[2] in _SIGNS}
    for name in tensors:
        module, _, role = name.rpartition(".")
        if module in modules and role in _ROLES:
            yield name, Part(f"{module}.weight", role)
            continue
        for owner, beside in owners(name):
            if owner.removesuffix(".weight") in modules:
                yield name, Part(owner, beside)
                break


def _read_fp8(weight: str, parts: Mapping[str, Tensor], scheme: Scheme, dtype: torch.dtype) -> Tensor:
    codes, scale = parts["weight"], scale_values(weight, "weight_scale", parts["weight_scale"])
    if codes.dtype not in FP8_TYPES:
        raise bad(weight, f"it is of type {codes.dtype}, not of 8-bit floats")
    _refuse_zeros(weight, parts)
    shape = tuple(codes.shape)
    scales = lay_out(scale, shape) if scheme.block is None else lay_out_blocks(scale, shape, scheme.block)
    if scales is None or (scheme.strategy == "tensor" and scale.numel() > 1):
        raise bad(weight, f"scales of {list(scale.shape)} do not fit {list(shape)} in {scheme.strategy}s")
    return dequantize_fp8(weight, codes, scales, dtype)


def _read_fp4(weight: str, parts: Mapping[str, Tensor], scheme: Scheme, dtype: torch.dtype) -> IntWeight:
    packed, scale = parts["weight_packed"], scale_values(weight, "weight_scale", parts["weight_scale"])
    if packed.dtype != torch.uint8:
        raise bad(weight, f"it is of type {packed.dtype}, not bytes of two 4-bit floats")
    _refuse_zeros(weight, parts)
    if scheme.format.startswith("nvfp4"):
        need(weight, parts, ("weight_global_scale",))
        scale = scale / scale_values(weight, "weight_global_scale", parts["weight_global_scale"])
        scale = scale_values(weight, "weight_scale", scale)
    num_columns = packed.shape[1] * 2
    if scheme.strategy != "group" or scheme.block is None or num_columns != scale.shape[-1] * scheme.block[1]:
        raise bad(weight, f"scales of {list(scale.shape)} do not fit {num_columns} columns in {scheme}")
    return mx_weight(weight, packed, scale)


def _read_ints(weight: str, parts: Mapping[str, Tensor], scheme: Scheme) -> IntWeight:
    shape = _shape(weight, parts)
    scale = _spread(weight, scale_values(weight, "weight_scale", parts["weight_scale"]), scheme, shape)
    zero = _zero(weight, parts, scheme, shape, scale)
    if scheme.has_order:
        need(weight, parts, ("weight_g_idx",))
    groups = _groups(weight, parts, shape[1], scale.shape[1])
    if groups is None and scheme.bits == 4 and "weight_packed" in parts and shape[1] % 8 == 0:
        # Whole words of 4-bit numbers are the canonical form as they lie.
        values = parts["weight_packed"].contiguous().view(torch.uint8)
        if values.shape == (shape[0], shape[1] // 2):
            zero = None if zero is None else zero + SYMMETRIC_ZERO[4]
            return IntWeight(bits=4, values=values, scale=scale, zero=zero)
    numbers = _numbers(weight, parts, scheme, shape)
    if groups is None:
        return _int_weight(numbers, scale, zero, None, scheme.bits)
    permutation = groups.argsort(stable=True)
    return _int_weight(numbers[:, permutation], scale, zero, permutation, scheme.bits)


def _groups(weight: str, parts: Mapping[str, Tensor], num_columns: int, num_groups: int) -> Tensor | None:
    """int64 [K], the group of each column; None where they lie in order."""
    stored, group_size = parts.get("weight_g_idx"), num_columns // num_groups
    if stored is None:
        return None
    if not is_whole(stored) or stored.shape != (num_columns,):
        what = f"its weight_g_idx is {list(stored.shape)} of type {stored.dtype}"
        raise bad(weight, f"{what}, not a whole number for each of {num_columns} columns")
    groups = stored.long()
    # A file that was never calibrated has -1 for every column.
    if bool((groups == -1).all()):
        return None
    if int(groups.min()) < 0 or int(groups.max()) >= num_groups:
        raise bad(weight, f"its weight_g_idx does not put {num_columns} columns in {num_groups} groups")
    sizes = groups.bincount(minlength=num_groups)
    if bool((sizes != group_size).any()):
        group = int((sizes != group_size).nonzero()[0])
        what = f"its weight_g_idx puts {int(sizes[group])} columns into the group {group}"
        raise bad(weight, f"{what}, which has {group_size}")
    return None if torch.equal(groups, torch.arange(num_columns) // group_size) else groups


def _int_weight(
    numbers: Tensor, scale: Tensor, zero: Tensor | None, permutation: Tensor | None, bits: int
) -> IntWeight:
    """From numbers of 0 to 2 ** bits - 1; `zero` counts from their middle."""
    stored_bits = 4 if bits <= 4 and numbers.shape[1] % 2 == 0 else 8
    centre, new_centre = 1 << bits - 1, SYMMETRIC_ZERO[stored_bits]
    shifted = numbers + (new_centre - centre) if new_centre >= centre else numbers - (centre - new_centre)
    return IntWeight(
        bits=stored_bits,
        values=pack4(shifted) if stored_bits == 4 else shifted.view(torch.int8),
        scale=scale,
        zero=None if zero is None else zero + new_centre,
        permutation=permutation,
    )


def _shape(weight: str, parts: Mapping[str, Tensor]) -> tuple[int, int]:
    """[N, K] of the weight, which must agree with what is stored."""
    if "weight_packed" not in parts:
        num_rows, num_columns = parts["weight"].shape
        return num_rows, num_columns
    need(weight, parts, ("weight_shape",))
    packed, stored = parts["weight_packed"], parts["weight_shape"]
    if packed.dtype != torch.int32:
        raise bad(weight, f"it is of type {packed.dtype}, not words of int32")
    if not is_whole(stored):
        raise bad(weight, f"its weight_shape is of type {stored.dtype}, not of whole numbers")
    shape = [int(side) for side in stored.flatten()]
    if len(shape) != 2 or shape[0] != packed.shape[0] or shape[1] < 1:
        raise bad(weight, f"weight_shape says {shape}, but there are {packed.shape[0]} rows")
    return shape[0], shape[1]


def _numbers(weight: str, parts: Mapping[str, Tensor], scheme: Scheme, shape: tuple[int, int]) -> Tensor:
    """uint8 [N, K] of 0 to 2 ** bits - 1."""
    if "weight_packed" in parts:
        packed = parts["weight_packed"]
        is_old = _is_old(packed, scheme.bits, shape[1])
        return _unpack(weight, packed, scheme.bits, shape[1], is_old=is_old)
    stored = parts["weight"]
    if stored.dtype != torch.int8:
        raise bad(weight, f"it is of type {stored.dtype}, not int8")
    # Bytes wrap around, which is what is wanted.
    numbers = stored.view(torch.uint8) + (1 << scheme.bits - 1)
    if scheme.bits < 8 and int(numbers.max()) >> scheme.bits:
        raise bad(weight, f"it holds numbers of more than {scheme.bits} bits")
    return numbers


def _is_old(packed: Tensor, bits: int, num_columns: int) -> bool:
    """Whether words hold 32 // bits numbers each, as of old, instead of a dense stream."""
    return packed.shape[1] != -(-num_columns * bits // WORD_BITS)


def _unpack(weight: str, words: Tensor, bits: int, count: int, *, is_old: bool) -> Tensor:
    """uint8 [..., count] of int32 words [..., W]."""
    needed = -(-count // (WORD_BITS // bits)) if is_old else -(-count * bits // WORD_BITS)
    if words.shape[-1] != needed:
        raise bad(weight, f"{words.shape[-1]} words do not hold {count} numbers of {bits} bits")
    return unpack_fields(words, bits)[..., :count] if is_old else unpack_bits(words, bits, count)


def _zero(
    weight: str, parts: Mapping[str, Tensor], scheme: Scheme, shape: tuple[int, int], scale: Tensor
) -> Tensor | None:
    """Zero points int16 [N, G], counted from the middle of the range; None where that is the zero."""
    stored = parts.get("weight_zero_point")
    if scheme.is_symmetric:
        _refuse_zeros(weight, parts)
        return None
    if stored is None:
        raise bad(weight, "it has no weight_zero_point, and its scheme is not symmetric")
    packed = parts.get("weight_packed")
    if packed is not None and stored.dtype == torch.int32 and stored.dim() == 2:
        is_old = _is_old(packed, scheme.bits, shape[1])
        numbers = _unpack(weight, stored.t().contiguous(), scheme.bits, shape[0], is_old=is_old).t()
        stored = numbers.to(torch.int16) - (1 << scheme.bits - 1)
    elif stored.dtype != torch.int8:
        raise bad(weight, f"its weight_zero_point is of type {stored.dtype}")
    zero = _spread(weight, stored.to(torch.int16), scheme, shape)
    if zero.shape != scale.shape:
        raise bad(weight, f"zero points of {list(stored.shape)} do not go with scales of {list(scale.shape)}")
    return zero


def _spread(weight: str, scale: Tensor, scheme: Scheme, shape: tuple[int, int]) -> Tensor:
    """Scales or zero points as [N, G]."""
    num_rows, num_columns = shape
    if scheme.strategy == "tensor" and scale.numel() == 1:
        return scale.reshape(1, 1).expand(num_rows, 1).contiguous()
    if scheme.strategy == "channel" and scale.shape in ((num_rows,), (num_rows, 1)):
        return scale.reshape(num_rows, 1)
    if scheme.block is not None and num_columns % scheme.block[1] == 0:
        rows, columns = scheme.block
        if scale.shape == (-(-num_rows // rows), num_columns // columns):
            return scale.repeat_interleave(rows, 0)[:num_rows] if rows > 1 else scale
    raise bad(weight, f"scales or zero points of {list(scale.shape)} do not fit {list(shape)}: {scheme}")


def _refuse_zeros(weight: str, parts: Mapping[str, Tensor]) -> None:
    stored = parts.get("weight_zero_point")
    if stored is not None and bool((stored.float() != 0).any()):
        raise bad(weight, "it has zero points, but its scheme is symmetric")
