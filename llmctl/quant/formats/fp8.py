"""Checkpoints of 8-bit floats with a scale a tensor, row or block: made dense on the way in."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError
from llmctl.quant.formats.base import Part, bad, need, refuse_unknown
from llmctl.quant.formats.floats import (
    FP8_TYPES,
    Scales,
    dequantize_fp8,
    lay_out,
    lay_out_blocks,
    scale_values,
)
from llmctl.quant.formats.overrides import check_overrides
from llmctl.quant.formats.sidecars import owners

_KNOWN = (
    "quant_method",
    "activation_scheme",
    "activation_scale_ub",
    "ignored_layers",
    "modules_to_not_convert",
    "modules_to_convert",
    "weight_block_size",
    "weight_per_tensor",
    "act_per_tensor",
    "fmt",
    "scale_fmt",
    "expert_dtype",
    "dequantize",
)
_FORMATS = {
    "e4m3": torch.float8_e4m3fn,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
    "float8_e5m2": torch.float8_e5m2,
}
# Both are multiplied by; the second is the inverse of what the weight was multiplied by.
_SCALES = ("_scale_inv", "_scale")
# What the format's inventors use, and transformers where a config is silent.
_DEFAULT_BLOCK = (128, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp8Reader:
    """Reads "fp8" and "fbgemm_fp8": float8 [..., N, K] in the orientation of the file, and its scale."""

    title: str
    gives_quantised = False
    parts: Mapping[str, Part]
    block: tuple[int, int] | None
    """Rows and columns that share a scale, None for tensors and rows, or where the config is silent."""
    is_block_said: bool
    """Whether the config says what `block` is."""
    kind: torch.dtype | None
    """The float8 that the config names."""

    def part(self, tensor: str) -> Part | None:
        """The weight that this tensor or scale belongs to; a tensor without a scale is dense."""
        return self.parts.get(tensor)

    def decode(self, weight: str, parts: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Codes times scale in float32, rounded to `dtype` once. Raises `BadFileError`."""
        need(weight, parts, ("weight", "scale"))
        codes, scale = parts["weight"], scale_values(weight, "scale", parts["scale"])
        if codes.dtype not in FP8_TYPES or (self.kind is not None and codes.dtype != self.kind):
            raise bad(weight, f"it is of type {codes.dtype}, not {self.kind or 'one of 8-bit floats'}")
        if codes.dim() < 2 or codes.numel() == 0:
            raise bad(weight, f"it is {_shape(codes)}, not rows and columns")
        scales = self._scales(scale, tuple(codes.shape))
        if scales is None:
            raise bad(weight, f"scales of {_shape(scale)} do not fit {_shape(codes)}, {self._expected()}")
        return dequantize_fp8(weight, codes, scales, dtype)

    def _scales(self, scale: Tensor, shape: tuple[int, ...]) -> Scales | None:
        plain = None if self.block is not None and self.is_block_said else lay_out(scale, shape)
        if plain is not None or self.block is None:
            return plain
        return lay_out_blocks(scale, shape, self.block)

    def _expected(self) -> str:
        return f"one for each {_blocks(self.block)}" if self.is_block_said else "in any way"


def reader(config: Mapping[str, Any], tensors: Collection[str], overrides: Mapping[str, Any]) -> Fp8Reader:
    """The reader for such a checkpoint.

    Raises `BadFileError` for keys and values that it cannot honour, and for a weight with two scales.
    """
    refuse_unknown(config, _KNOWN, "FP8")
    check_overrides(overrides, {"bits": 8}, "FP8")
    for key, allowed in (
        ("activation_scheme", ("static", "dynamic")),
        ("expert_dtype", ("fp8",)),
        ("scale_fmt", ("float", "ue8m0")),
        ("fmt", tuple(_FORMATS)),
    ):
        if config.get(key) is not None and config[key] not in allowed:
            raise BadFileError(
                f"the quantization_config (FP8) has {key} {config[key]!r}; llmctl reads {', '.join(allowed)}",
                hint="take another quantisation of this model, or its 16-bit checkpoint",
            )
    names = frozenset(tensors)
    is_block_said = "weight_block_size" in config or config["quant_method"] == "fbgemm_fp8"
    block = _block(config.get("weight_block_size")) if is_block_said else _DEFAULT_BLOCK
    scope = f", a scale for each {_blocks(block)}" if is_block_said and block else ""
    return Fp8Reader(
        title=f"FP8{scope}; activations are not quantised here",
        parts=dict(_parts(names)),
        block=block,
        is_block_said=is_block_said,
        kind=_FORMATS.get(str(config.get("fmt"))),
    )


def _parts(tensors: frozenset[str]) -> Iterator[tuple[str, Part]]:
    weights = set()
    for name in tensors:
        base = next((name.removesuffix(end) for end in _SCALES if name.endswith(end)), "")
        # A scale that stands alone is told as such, instead of as a tensor that the model lacks.
        if base in tensors or base.endswith(".weight"):
            if base in weights:
                raise bad(base, f"it has two scales, {' and '.join(base + end for end in _SCALES)}")
            weights.add(base)
            yield name, Part(base, "scale")
    yield from ((weight, Part(weight, "weight")) for weight in weights & tensors)
    for name in tensors:
        for owner, role in owners(name):
            if owner in weights:
                yield name, Part(owner, role)
                break


def _block(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = tuple(value) if isinstance(value, list | tuple) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise BadFileError(
            f"the quantization_config (FP8) has weight_block_size {value!r}; it must be two positive numbers"
        )
    return sides[0], sides[1]


def _blocks(block: tuple[int, int] | None) -> str:
    return "tensor or row" if block is None else f"block of {block[0]} x {block[1]}"


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"
