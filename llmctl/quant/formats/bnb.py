"""Checkpoints of bitsandbytes: nf4 and fp4 with single or double quantisation, and the 8 bits of LLM.int8.

Weights are [N, K] as nn.Linear has it, Conv1D's too: transformers transposes them before they are quantised.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError
from llmctl.quant.coded import TABLES
from llmctl.quant.formats.base import Part, bad, need, refuse_unknown
from llmctl.quant.formats.overrides import check_overrides
from llmctl.quant.weights import CodedWeight, IntWeight

_KNOWN = (
    "quant_method",
    "load_in_4bit",
    "load_in_8bit",
    "_load_in_4bit",
    "_load_in_8bit",
    "llm_int8_threshold",
    "llm_int8_skip_modules",
    "llm_int8_enable_fp32_cpu_offload",
    "llm_int8_has_fp16_weight",
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_type",
    "bnb_4bit_quant_storage",
    "bnb_4bit_use_double_quant",
)
_TITLE = "bitsandbytes"
_STATE = "quant_state.bitsandbytes__"
_ROLES_4BIT = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", f"{_STATE}nf4", f"{_STATE}fp4")
_ROLES_8BIT = ("SCB", "weight_format")
# The numbers of weight_format: rows as they are, and three orders of GPU kernels that are no more.
_WEIGHT_FORMATS = ("row", "col32", "col_turing", "col_ampere")


@dataclass(frozen=True, slots=True, kw_only=True)
class BnbReader:
    """Reads weights that bitsandbytes quantised to 4 or to 8 bits."""

    title: str
    gives_quantised = True
    parts: Mapping[str, Part]
    kind: str | None
    """What the config says all weights are: "nf4", "fp4" or "int8"; None where it does not."""

    def part(self, tensor: str) -> Part | None:
        """The weight that this tensor belongs to; one that nothing is stored beside is dense."""
        return self.parts.get(tensor)

    def decode(self, weight: str, parts: Mapping[str, Tensor], dtype: torch.dtype) -> CodedWeight | IntWeight:
        """4 bits: the codes as they are, with float32 scales. 8 bits: whole numbers, a scale a row.

        Raises `BadFileError`.
        """
        found = _kind(parts)
        if self.kind is not None and found != self.kind:
            raise bad(weight, f"it is stored as {found or 'no known kind'}, but the config says {self.kind}")
        return _read_int8(weight, parts) if found == "int8" else _read_coded(weight, found, parts)


def reader(config: Mapping[str, Any], tensors: Collection[str], overrides: Mapping[str, Any]) -> BnbReader:
    """The reader for such a checkpoint. Raises `BadFileError` for keys and values that it cannot honour."""
    refuse_unknown(config, _KNOWN, _TITLE)
    kind = _said_kind(config)
    check_overrides(overrides, {"bits": 8 if kind == "int8" else 4}, _TITLE)
    return BnbReader(title=_title(config, kind), parts=dict(_parts(frozenset(tensors))), kind=kind)


def _said_kind(config: Mapping[str, Any]) -> str | None:
    is_4bit = bool(config.get("load_in_4bit") or config.get("_load_in_4bit"))
    is_8bit = bool(config.get("load_in_8bit") or config.get("_load_in_8bit"))
    if is_4bit and is_8bit:
        raise BadFileError(f"the quantization_config ({_TITLE}) says load_in_4bit and load_in_8bit at once")
    if not is_4bit:
        return "int8" if is_8bit else None
    kind = str(config.get("bnb_4bit_quant_type") or "fp4")
    if kind not in TABLES:
        raise BadFileError(
            f"the quantization_config ({_TITLE}) has bnb_4bit_quant_type {kind!r}; llmctl reads nf4 and fp4",
            hint="take another quantisation of this model, or its 16-bit checkpoint",
        )
    return kind


def _title(config: Mapping[str, Any], kind: str | None) -> str:
    if kind == "int8":
        return f"{_TITLE}, 8 bits (all inputs alike, outliers too)"
    double = ", double quantisation" if config.get("bnb_4bit_use_double_quant") else ""
    return f"{_TITLE}, {kind}{double}" if kind else _TITLE


def _parts(tensors: frozenset[str]) -> Iterator[tuple[str, Part]]:
    weights = set()
    for name in tensors:
        for endings, weight_ending in ((_ROLES_4BIT, ""), (_ROLES_8BIT, ".weight")):
            role = next((role for role in endings if name.endswith(f".{role}")), None)
            if role is not None:
                weight = name.removesuffix(f".{role}") + weight_ending
                weights.add(weight)
                yield name, Part(weight, role)
    yield from ((weight, Part(weight, "weight")) for weight in weights & tensors)


def _kind(parts: Mapping[str, Tensor]) -> str | None:
    if any(role in parts for role in _ROLES_8BIT):
        return "int8"
    return next((kind for kind in TABLES if f"{_STATE}{kind}" in parts), None)


def _read_int8(weight: str, parts: Mapping[str, Tensor]) -> IntWeight:
    need(weight, parts, ("weight", "SCB"))
    values, row_max = parts["weight"], parts["SCB"]
    order = int(parts["weight_format"]) if "weight_format" in parts else 0
    if order:
        name = _WEIGHT_FORMATS[order] if order < len(_WEIGHT_FORMATS) else str(order)
        raise bad(
            weight, f"it is in the order {name!r} of a GPU, and only {_WEIGHT_FORMATS[0]!r} can be read"
        )
    if values.dtype != torch.int8 or values.dim() != 2:
        raise bad(weight, f"it is {values.dtype} {list(values.shape)}, not int8 in rows and columns")
    if row_max.numel() != values.shape[0]:
        raise bad(weight, f"it has {row_max.numel()} scales for {values.shape[0]} rows")
    return IntWeight(bits=8, values=values, scale=row_max.float().view(-1, 1) / 127)


def _read_coded(weight: str, kind: str | None, parts: Mapping[str, Tensor]) -> CodedWeight:
    need(weight, parts, ("weight", "absmax", "quant_map"))
    if kind is None:
        raise bad(weight, f"it has no {_STATE}nf4 or {_STATE}fp4")
    state = _state(weight, kind, parts[f"{_STATE}{kind}"])
    shape, block_size = tuple(state["shape"]), state["blocksize"]
    count = math.prod(shape)
    # Other storage types are the same bytes, looked at in another way.
    codes, absmax = parts["weight"].contiguous().view(torch.uint8).flatten(), parts["absmax"].flatten()
    if codes.numel() < (count + 1) // 2 or absmax.numel() != math.ceil(count / block_size):
        raise bad(weight, f"{codes.numel()} bytes and {absmax.numel()} scales do not make {list(shape)}")
    table = parts["quant_map"].float().flatten()
    if table.numel() != 16 or not torch.allclose(table, torch.tensor(TABLES[kind]), rtol=0, atol=1e-6):
        raise bad(weight, f"its quant_map is not that of {kind}")
    return CodedWeight(
        kind=kind,
        codes=codes[: (count + 1) // 2],
        absmax=_absmax(weight, absmax, state, parts),
        table=table,
        block_size=block_size,
        shape=shape,
    )


def _state(weight: str, kind: str, raw: Tensor) -> dict[str, Any]:
    """The facts that are no tensors, checked as far as they are used."""
    try:
        state = json.loads(bytes(raw.tolist()))
    except (ValueError, TypeError) as error:
        raise bad(weight, "its quant_state is no JSON") from error
    shape, block_size = (state.get("shape"), state.get("blocksize")) if isinstance(state, dict) else (0, 0)
    if not isinstance(shape, list) or len(shape) < 2 or not all(_is_count(side) for side in shape):
        raise bad(weight, f"its quant_state has the shape {shape}")
    if not _is_count(block_size):
        raise bad(weight, f"its quant_state has blocks of {block_size}")
    if state.get("quant_type") != kind:
        raise bad(weight, f"its quant_state says {state.get('quant_type')!r}, its name {kind!r}")
    return dict(state)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _absmax(weight: str, absmax: Tensor, state: Mapping[str, Any], parts: Mapping[str, Tensor]) -> Tensor:
    """float32 scales, the second quantisation undone where there is one."""
    if "nested_absmax" not in parts:
        if not absmax.is_floating_point():
            raise bad(weight, "it has no nested_absmax")
        return absmax.float()
    need(weight, parts, ("nested_quant_map",))
    nested, table = parts["nested_absmax"].float().flatten(), parts["nested_quant_map"].float().flatten()
    block_size, offset = state.get("nested_blocksize"), state.get("nested_offset")
    if not isinstance(block_size, int) or block_size <= 0 or not isinstance(offset, int | float):
        raise bad(weight, f"its quant_state has nested_blocksize {block_size}, nested_offset {offset}")
    if table.numel() != 256 or nested.numel() != math.ceil(absmax.numel() / block_size):
        raise bad(weight, f"{nested.numel()} nested scales do not fit {absmax.numel()} scales")
    scales = nested.repeat_interleave(block_size)[: absmax.numel()]
    return table[absmax.long()] * scales + torch.tensor(float(offset), dtype=torch.float32)
