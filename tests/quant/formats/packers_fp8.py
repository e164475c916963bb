"""Packs weights into 8-bit floats from the formats' definition, number by number."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.quant.formats.checkpoints import rewrite

FLOAT8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def value_of(code: int, kind: str) -> float:
    """What an 8-bit code stands for."""
    exponent_bits, mantissa_bits, bias = (4, 3, 7) if kind == "e4m3" else (5, 2, 15)
    sign = -1.0 if code & 0x80 else 1.0
    exponent = code >> mantissa_bits & (1 << exponent_bits) - 1
    mantissa = code & (1 << mantissa_bits) - 1
    if kind == "e4m3" and code & 0x7F == 0x7F:
        return math.nan
    if kind == "e5m2" and exponent == 31:
        return math.nan if mantissa else sign * math.inf
    if exponent == 0:
        return sign * mantissa / (1 << mantissa_bits) * 2.0 ** (1 - bias)
    return sign * (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)


def encode(values: np.ndarray, kind: str) -> np.ndarray:
    """The code nearest to each value."""
    finite = [code for code in range(256) if math.isfinite(value_of(code, kind))]
    table = np.array([value_of(code, kind) for code in finite])
    nearest = np.abs(values.reshape(-1, 1) - table).argmin(1)
    return np.array(finite, dtype=np.uint8)[nearest].reshape(values.shape)


def spread(scale: np.ndarray, shape: tuple[int, int], block: tuple[int, int]) -> np.ndarray:
    """A scale for each number, from one for each block."""
    result = np.empty(shape, dtype=np.float32)
    for row in range(shape[0]):
        for column in range(shape[1]):
            result[row, column] = scale[row // block[0], column // block[1]]
    return result


def pack(
    weight: torch.Tensor, *, block: tuple[int, int] | None = None, kind: str = "e4m3", powers: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes float8 [N, K], scales float32 [blocks down, blocks across], and the dense weight in float32.

    `block` is what shares a scale, None: the whole; `powers`: scales are powers of two, uint8 e8m0.
    """
    values = weight.double().numpy()
    rows, columns = block or values.shape
    scale = np.empty((-(-values.shape[0] // rows), -(-values.shape[1] // columns)), dtype=np.float32)
    largest = 448.0 if kind == "e4m3" else 57344.0
    for down in range(scale.shape[0]):
        for across in range(scale.shape[1]):
            part = values[down * rows : (down + 1) * rows, across * columns : (across + 1) * columns]
            scale[down, across] = max(np.abs(part).max() / largest, 1e-6)
    if powers:
        scale = np.exp2(np.ceil(np.log2(scale))).astype(np.float32)
    each = spread(scale, values.shape, (rows, columns))
    codes = encode(values / each, kind)
    numbers = np.array([value_of(code, kind) for code in range(256)], dtype=np.float32)
    stored = torch.from_numpy(scale)
    if powers:
        stored = torch.from_numpy((np.log2(scale) + 127).astype(np.uint8))
    return torch.from_numpy(codes).view(FLOAT8[kind]), stored, torch.from_numpy(numbers[codes] * each)


def pack_folder(
    source: Path, target: Path, *, layout: str = "tensor", method: str = "fp8", scheme: str = "dynamic"
) -> dict[str, torch.Tensor]:
    """Quantise a model folder: `layout` is "tensor", "row" or "block" (16 x 16); the dense weights by name.

    Weights keep the orientation that the folder has them in, Conv1D's too.
    """

    def pack_one(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        block = {"tensor": None, "row": (1, weight.shape[1]), "block": (16, 16)}[layout]
        codes, scale, dense = pack(weight, block=block)
        ending = "_scale_inv" if layout == "block" else "_scale"
        parts = {name: codes, f"{name}{ending}": scale.squeeze() if layout == "tensor" else scale}
        if scheme == "static":
            parts[name.replace(".weight", ".input_scale")] = torch.tensor(0.5)
        return parts, dense

    config: dict[str, Any] = {"quant_method": method}
    if method == "fp8":
        config |= {"activation_scheme": scheme, "weight_block_size": [16, 16] if layout == "block" else None}
    return rewrite(source, target, pack_one, config | {"modules_to_not_convert": ["lm_head"]})
