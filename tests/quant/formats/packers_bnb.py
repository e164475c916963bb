"""Packs weights as bitsandbytes stores them, from the layout of its files; the package itself is not used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.quant.formats.checkpoints import is_conv1d, rewrite

# As published with QLoRA (nf4) and in the files of the format (fp4).
_FP4_HALF = [0.0, 0.005208333, 2 / 3, 1.0, 1 / 3, 0.5, 1 / 6, 0.25]
_NF4_BELOW = [-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004]
_NF4_ABOVE = [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
TABLES = {"nf4": [*_NF4_BELOW, 0.0, *_NF4_ABOVE], "fp4": [*_FP4_HALF, *(-value for value in _FP4_HALF)]}
_NESTED_BLOCK = 256


def pack4(
    weight: torch.Tensor, *, kind: str = "nf4", block_size: int = 64, is_double: bool = False
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Parts by their endings ("" for the weight itself) and the dense weight in float32."""
    numbers, table = weight.float().numpy().flatten(), np.array(TABLES[kind], dtype=np.float32)
    num_blocks = -(-numbers.size // block_size)
    absmax = np.array(
        [np.abs(numbers[i * block_size : (i + 1) * block_size]).max() for i in range(num_blocks)], np.float32
    )
    state: dict[str, Any] = {
        "quant_type": kind,
        "blocksize": block_size,
        "dtype": "bfloat16",
        "shape": list(weight.shape),
    }
    parts = {".quant_map": torch.from_numpy(table), ".absmax": torch.from_numpy(absmax)}
    if is_double:
        nested, absmax = _pack_absmax(absmax, state)
        parts |= nested
    codes = np.zeros((numbers.size + 1) // 2, dtype=np.uint8)
    dense = np.zeros(numbers.size, dtype=np.float32)
    for place, number in enumerate(numbers):
        largest = absmax[place // block_size]
        code = int(np.abs(number / largest - table).argmin()) if largest else 7
        codes[place // 2] |= code << (0 if place % 2 else 4)
        dense[place] = table[code] * largest
    raw = json.dumps(state).encode()
    parts[f".quant_state.bitsandbytes__{kind}"] = torch.tensor(list(raw), dtype=torch.uint8)
    parts[""] = torch.from_numpy(codes).view(-1, 1)
    return parts, torch.from_numpy(dense).view(weight.shape)


def _pack_absmax(absmax: np.ndarray, state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """The scales quantised once more, and what they stand for then."""
    offset = np.float32(absmax.mean())
    # The file carries its table, so any will do; this one is no table of the package.
    table = (np.sign(np.linspace(-1, 1, 256)) * np.linspace(-1, 1, 256) ** 2).astype(np.float32)
    num_blocks = -(-absmax.size // _NESTED_BLOCK)
    largest, codes = np.zeros(num_blocks, np.float32), np.zeros(absmax.size, np.uint8)
    result = np.zeros(absmax.size, np.float32)
    for block in range(num_blocks):
        largest[block] = max(
            np.abs(absmax[block * _NESTED_BLOCK : (block + 1) * _NESTED_BLOCK] - offset).max(), 1e-6
        )
    for place, number in enumerate(absmax):
        scale = largest[place // _NESTED_BLOCK]
        codes[place] = np.abs((number - offset) / scale - table).argmin()
        result[place] = table[codes[place]] * scale + offset
    state |= {"nested_blocksize": _NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": float(offset)}
    parts = {
        ".absmax": torch.from_numpy(codes),
        ".nested_absmax": torch.from_numpy(largest),
        ".nested_quant_map": torch.from_numpy(table),
    }
    return parts, result


def pack8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """int8 [N, K], SCB float32 [N] (the largest number of each row), and the dense weight in float32."""
    rows = weight.float().numpy()
    largest = np.array([max(np.abs(row).max(), 1e-6) for row in rows], dtype=np.float32)
    codes = np.zeros(rows.shape, dtype=np.int8)
    for row in range(rows.shape[0]):
        codes[row] = np.rint(rows[row] / largest[row] * 127)
    dense = codes.astype(np.float32) * (largest / np.float32(127))[:, None]
    return torch.from_numpy(codes), torch.from_numpy(largest), torch.from_numpy(dense)


def pack_folder(
    source: Path, target: Path, *, kind: str = "nf4", is_double: bool = False, storage: str = "uint8"
) -> dict[str, torch.Tensor]:
    """Quantise a model folder: `kind` is "nf4", "fp4" or "int8"; the dense weights by name.

    Conv1D's weights are stored as [N, K], as transformers does it; the dense ones are as in the model.
    """

    def pack_one(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        logical = weight.T.contiguous() if is_conv1d(name) else weight
        if kind == "int8":
            codes, largest, dense = pack8(logical)
            module = name.removesuffix(".weight")
            format_0 = torch.tensor(0, dtype=torch.uint8)
            parts = {name: codes, f"{module}.SCB": largest, f"{module}.weight_format": format_0}
        else:
            by_ending, dense = pack4(logical, kind=kind, is_double=is_double)
            by_ending[""] = by_ending[""].flatten().view(getattr(torch, storage)).view(-1, 1)
            parts = {f"{name}{ending}": part for ending, part in by_ending.items()}
        return parts, dense.T.contiguous() if is_conv1d(name) else dense

    config: dict[str, Any] = {
        "quant_method": "bitsandbytes",
        "_load_in_4bit": kind != "int8",
        "_load_in_8bit": kind == "int8",
        "load_in_4bit": kind != "int8",
        "load_in_8bit": kind == "int8",
        "llm_int8_threshold": 6.0,
        "llm_int8_skip_modules": None,
        "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False,
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_type": "fp4" if kind == "fp4" else "nf4",
        "bnb_4bit_quant_storage": storage,
        "bnb_4bit_use_double_quant": is_double,
    }
    return rewrite(source, target, pack_one, config)
