"""What is stored in the place of one dense weight, and what the config says of it, format by format.

The readers of `quant.formats` give back exactly the numbers that are written here.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl.artifacts.compress.compensate import round_compensated
from llmctl.artifacts.compress.rounding import round_fp8, round_int4, round_int8
from llmctl.quant.coded import TABLES
from llmctl.quant.rounding import round_to
from llmctl.quant.weights import CodedWeight, pack4, unpack4

BNB_BLOCK = 64
_BNB_STATE = "quant_state.bitsandbytes__nf4"
Parts = dict[str, Tensor]
"""By the names that the file gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What holds for all weights of one checkpoint."""

    method: str
    """A key of `methods.METHODS` that llmctl makes itself."""
    group_size: int | None
    """Of int4."""
    dtype: torch.dtype
    """The numbers of the dense weights that stay, which is what the model computes in."""

    @property
    def scale_dtype(self) -> torch.dtype:
        """Loaders make scales of the model's own type; a wider one would be rounded behind our back."""
        return self.dtype if self.dtype in (torch.float16, torch.bfloat16, torch.float32) else torch.float32


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor to come."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


def parts_of(name: str, weight: Tensor, layout: Layout, products: Tensor | None = None) -> Parts:
    """The tensors that stand for the weight [N, K] called `name`, as `planned` foretells them.

    `products` are those of the layer's inputs, for int4 (`compensate`). Raises `ValueError` over NaN and Inf.
    """
    return _MAKERS[layout.method](name, weight, layout, products)


def planned(name: str, shape: tuple[int, int], layout: Layout) -> list[Stored]:
    """The tensors that `parts_of` will make of a weight of that shape [N, K]."""
    num_rows, num_columns = shape
    module, scale = name.removesuffix(".weight"), layout.scale_dtype
    if layout.method == "int4":
        assert layout.group_size is not None
        return [
            Stored(f"{module}.weight_packed", torch.int32, (num_rows, num_columns // 8)),
            Stored(f"{module}.weight_scale", scale, (num_rows, num_columns // layout.group_size)),
            Stored(f"{module}.weight_shape", torch.int64, (2,)),
        ]
    if layout.method == "nf4":
        count, state = num_rows * num_columns, _bnb_state(shape, layout)
        return [
            Stored(name, torch.uint8, (count // 2, 1)),
            Stored(f"{name}.absmax", torch.float32, (count // BNB_BLOCK,)),
            Stored(f"{name}.quant_map", torch.float32, (16,)),
            Stored(f"{name}.{_BNB_STATE}", torch.uint8, (len(state),)),
        ]
    number = torch.int8 if layout.method == "int8" else torch.float8_e4m3fn
    return [Stored(name, number, shape), Stored(f"{module}.weight_scale", scale, (num_rows, 1))]


def pack_int4(name: str, numbers: Tensor, scale: Tensor) -> Parts:
    """pack-quantized: numbers int8 [N, K] of -8 to 7, eight to a word, and their scales [N, K / size]."""
    module = name.removesuffix(".weight")
    words = pack4(numbers + 8).contiguous().view(torch.int32)
    return {
        f"{module}.weight_packed": words,
        f"{module}.weight_scale": scale,
        f"{module}.weight_shape": torch.tensor(numbers.shape, dtype=torch.int64),
    }


def dense(parts: Parts, name: str, layout: Layout) -> Tensor:
    """What the parts of an int4 weight stand for, float32 [N, K]."""
    module = name.removesuffix(".weight")
    numbers = unpack4(parts[f"{module}.weight_packed"].view(torch.uint8)) - 8
    groups = numbers.view(len(numbers), -1, layout.group_size or 1).float()
    return (groups * parts[f"{module}.weight_scale"].float()[..., None]).view(numbers.shape)


def _int4(name: str, weight: Tensor, layout: Layout, products: Tensor | None) -> Parts:
    assert layout.group_size is not None
    if products is None:
        numbers, scale = round_int4(weight, layout.group_size, layout.scale_dtype)
    else:
        numbers, scale = round_compensated(weight, products, layout.group_size, layout.scale_dtype)
    return pack_int4(name, numbers, scale)


def _int8(name: str, weight: Tensor, layout: Layout, products: Tensor | None) -> Parts:
    numbers, scale = round_int8(weight, layout.scale_dtype)
    return {name: numbers, f"{name}_scale": scale}


def _fp8(name: str, weight: Tensor, layout: Layout, products: Tensor | None) -> Parts:
    numbers, scale = round_fp8(weight, layout.scale_dtype)
    return {name: numbers, f"{name}_scale": scale}


def _nf4(name: str, weight: Tensor, layout: Layout, products: Tensor | None) -> Parts:
    made = round_to(weight, "nf4")
    assert isinstance(made, CodedWeight)
    num_rows, num_columns = weight.shape
    return {
        name: made.codes.view(-1, 1),
        f"{name}.absmax": made.absmax,
        f"{name}.quant_map": torch.tensor(TABLES["nf4"]),
        f"{name}.{_BNB_STATE}": torch.tensor(
            list(_bnb_state((num_rows, num_columns), layout)), dtype=torch.uint8
        ),
    }


_MAKERS: Mapping[str, Callable[[str, Tensor, Layout, Tensor | None], Parts]] = {
    "int8": _int8,
    "int4": _int4,
    "fp8": _fp8,
    "nf4": _nf4,
}


def _bnb_state(shape: tuple[int, int], layout: Layout) -> bytes:
    state = {
        "quant_type": "nf4",
        "blocksize": BNB_BLOCK,
        "dtype": str(layout.dtype).removeprefix("torch."),
        "shape": list(shape),
    }
    return json.dumps(state).encode()


def config_of(layout: Layout, dense: Collection[str]) -> dict[str, Any]:
    """The `quantization_config`; `dense` are the linear layers that stay, by all names that they go by."""
    return (_bnb_config if layout.method == "nf4" else _compressed_config)(layout, sorted(dense))


def _compressed_config(layout: Layout, ignore: list[str]) -> dict[str, Any]:
    kind, stored = {
        "int8": ("int", "int-quantized"),
        "int4": ("int", "pack-quantized"),
        "fp8": ("float", "float-quantized"),
    }[layout.method]
    bits = 4 if layout.method == "int4" else 8
    weights = _arguments(bits, kind, "group" if bits == 4 else "channel", group_size=layout.group_size)
    # Numbers of 8 bits are multiplied as such, which takes inputs of the same kind.
    inputs = None if bits == 4 else _arguments(8, kind, "token", is_dynamic=True)
    return {
        "quant_method": "compressed-tensors",
        "format": stored,
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": ignore,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": inputs,
                "output_activations": None,
                "format": stored,
            }
        },
    }


def _arguments(
    bits: int, kind: str, strategy: str, *, group_size: int | None = None, is_dynamic: bool = False
) -> dict[str, Any]:
    return {
        "num_bits": bits,
        "type": kind,
        "symmetric": True,
        "strategy": strategy,
        "group_size": group_size,
        "block_structure": None,
        "dynamic": is_dynamic,
        "actorder": None,
        "observer": None if is_dynamic else "minmax",
        "observer_kwargs": {},
    }


def _bnb_config(layout: Layout, skipped: list[str]) -> dict[str, Any]:
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "_load_in_4bit": True,
        "_load_in_8bit": False,
        "llm_int8_threshold": 6.0,
        "llm_int8_skip_modules": skipped,
        "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False,
        "bnb_4bit_compute_dtype": str(layout.dtype).removeprefix("torch."),
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_use_double_quant": False,
    }
