"""Checkpoints of gpt-oss: experts of 4-bit floats (e2m1) in groups of 32 that share a power of two."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl.quant.formats.base import Part, bad, need, refuse_unknown
from llmctl.quant.formats.floats import scale_values, unpack_e2m1
from llmctl.quant.formats.overrides import check_overrides
from llmctl.quant.weights import IntWeight

_KNOWN = ("quant_method", "modules_to_not_convert", "dequantize")
_TITLE = "MXFP4"
_GROUP_SIZE, _GROUP_BYTES = 32, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Mxfp4Reader:
    """Reads NAME_blocks uint8 [..., N, K / 32, 16] and NAME_scales uint8 [..., N, K / 32].

    The dense NAME of transformers is [..., K, N]; the canonical form is [..., N, K] as everywhere.
    """

    title = f"{_TITLE}, 4-bit floats in groups of {_GROUP_SIZE}"
    gives_quantised = True
    tensors: frozenset[str]

    def part(self, tensor: str) -> Part | None:
        """Blocks and scales belong to the name that they share; everything else is dense."""
        for role, other in (("blocks", "scales"), ("scales", "blocks")):
            weight = tensor.removesuffix(f"_{role}")
            if weight != tensor and f"{weight}_{other}" in self.tensors:
                return Part(weight, role)
        return None

    def decode(self, weight: str, parts: Mapping[str, Tensor], dtype: torch.dtype) -> IntWeight:
        """Exact: every value of e2m1 is half a whole number. Raises `BadFileError`."""
        need(weight, parts, ("blocks", "scales"))
        blocks, scales = parts["blocks"], parts["scales"]
        if blocks.dtype != torch.uint8 or blocks.dim() < 3 or blocks.shape[-1] != _GROUP_BYTES:
            raise bad(
                weight, f"its blocks are {blocks.dtype} {list(blocks.shape)}, not bytes in groups of 16"
            )
        if scales.dtype != torch.uint8 or scales.shape != blocks.shape[:-1]:
            raise bad(
                weight, f"its scales are {scales.dtype} {list(scales.shape)}, one byte a group expected"
            )
        return mx_weight(weight, blocks.flatten(-2), scale_values(weight, "scales", scales))


def mx_weight(weight: str, packed: Tensor, scale: Tensor) -> IntWeight:
    """Codes of e2m1, two to a byte [..., N, K / 2], times float32 scales [..., N, G].

    Raises `BadFileError` unless the groups are of one size.
    """
    values = unpack_e2m1(packed)
    if scale.shape[:-1] != values.shape[:-1] or values.shape[-1] % max(1, scale.shape[-1]):
        raise bad(weight, f"scales of {list(scale.shape)} do not fit a weight of {list(values.shape)}")
    return IntWeight(bits=8, values=values, scale=scale / 2)


def reader(config: Mapping[str, Any], tensors: Collection[str], overrides: Mapping[str, Any]) -> Mxfp4Reader:
    """The reader for such a checkpoint. Raises `BadFileError` for keys that it does not know."""
    refuse_unknown(config, _KNOWN, _TITLE)
    check_overrides(overrides, {"bits": 4, "group_size": _GROUP_SIZE}, _TITLE)
    return Mxfp4Reader(tensors=frozenset(tensors))
