"""Packs weights as compressed-tensors stores them, bit by bit, from the description of its formats."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.quant.formats import packers_fp8, packers_mxfp4
from tests.quant.formats.checkpoints import is_conv1d, rewrite


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How to store a weight."""

    format: str = "pack-quantized"
    bits: int = 4
    strategy: str = "group"
    group_size: int = 16
    block: tuple[int, int] = (16, 16)
    is_symmetric: bool = True
    has_order: bool = False
    """Columns belong to groups in a shuffled order."""
    is_old: bool = False
    """Words hold 32 // bits numbers, none of which lies across two."""
    scale_dtype: torch.dtype = torch.float32

    @property
    def is_float(self) -> bool:
        """Whether the numbers are floats."""
        return "float" in self.format or "fp" in self.format

    def weights(self) -> dict[str, Any]:
        """The part of the config that describes the weights."""
        is_nv = self.format.startswith("nvfp4")
        said: dict[str, Any] = {
            "num_bits": self.bits,
            "type": "float" if self.is_float else "int",
            "symmetric": self.is_symmetric,
            "strategy": "tensor_group" if is_nv else self.strategy,
            "group_size": self.group_size if self.strategy == "group" else None,
            "block_structure": list(self.block) if self.strategy == "block" else None,
            "dynamic": False,
            "actorder": "group" if self.has_order else None,
            "observer": "minmax",
            "observer_kwargs": {},
        }
        return said


def pack_words(numbers: list[int], bits: int, *, is_old: bool = False) -> list[int]:
    """Unsigned numbers in int32 words, the lowest bits first."""
    words: list[int] = []
    if is_old:
        each = 32 // bits
        for start in range(0, len(numbers), each):
            words.append(sum(n << bits * place for place, n in enumerate(numbers[start : start + each])))
    else:
        stream = sum(number << bits * place for place, number in enumerate(numbers))
        words = [stream >> 32 * word & 0xFFFFFFFF for word in range(-(-len(numbers) * bits // 32))]
    return [word - (1 << 32) if word >= 1 << 31 else word for word in words]


def pack(
    weight: torch.Tensor, variant: Variant, *, seed: int = 0
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Parts by their names in the module, and the dense weight in float32."""
    if not variant.is_float:
        return _pack_ints(weight, variant, seed)
    if variant.bits == 4:
        return _pack_fp4(weight, variant)
    block = {
        "tensor": None,
        "channel": (1, weight.shape[1]),
        "group": (1, variant.group_size),
        "block": variant.block,
    }[variant.strategy]
    codes, scale, dense = packers_fp8.pack(weight, block=block, powers=variant.format.startswith("mx"))
    return {"weight": codes, "weight_scale": scale.flatten() if block is None else scale}, dense


def _pack_fp4(weight: torch.Tensor, variant: Variant) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes, powers, dense = packers_mxfp4.pack(weight, variant.group_size)
    if variant.format.startswith("mxfp4"):
        return {"weight_packed": codes, "weight_scale": powers}, dense
    # e4m3 holds small powers of two exactly, and so the weight stays what it is.
    scale = torch.tensor(2.0) ** (powers.float() - 127) * 64
    parts = {
        "weight_packed": codes,
        "weight_scale": scale.to(torch.float8_e4m3fn),
        "weight_global_scale": torch.tensor([64.0]),
    }
    return parts, dense


def _groups(shape: tuple[int, int], variant: Variant, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For each row and for each column, which scale is theirs."""
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    if variant.strategy == "tensor":
        return rows * 0, columns * 0
    if variant.strategy == "channel":
        return rows, columns * 0
    if variant.strategy == "block":
        return rows // variant.block[0], columns // variant.block[1]
    columns = columns // variant.group_size
    return rows, np.random.default_rng(seed).permutation(columns) if variant.has_order else columns


def _pack_ints(
    weight: torch.Tensor, variant: Variant, seed: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    values, centre = weight.double().numpy(), 1 << variant.bits - 1
    of_rows, of_columns = _groups(values.shape, variant, seed)
    counts = (int(of_rows.max()) + 1, int(of_columns.max()) + 1)
    scale, zero = np.zeros(counts, np.float32), np.zeros(counts, np.int8)
    for down in range(counts[0]):
        for across in range(counts[1]):
            part = values[np.ix_(of_rows == down, of_columns == across)]
            low, high = part.min(), part.max()
            if variant.is_symmetric:
                scale[down, across] = max(abs(low), abs(high), 1e-6) / max(centre - 0.5, 1)
            else:
                scale[down, across] = max(high - low, 1e-6) / (2 * centre - 1)
                zero[down, across] = np.clip(round(-centre - low / scale[down, across]), -centre, centre - 1)
    scale = torch.from_numpy(scale).to(variant.scale_dtype).float().numpy()
    codes, dense = np.zeros(values.shape, np.int8), np.zeros(values.shape, np.float32)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            place = (of_rows[row], of_columns[column])
            code = np.clip(round(values[row, column] / scale[place]) + int(zero[place]), -centre, centre - 1)
            codes[row, column] = code
            dense[row, column] = np.float32(int(code) - int(zero[place])) * scale[place]
    parts = {"weight_scale": torch.from_numpy(scale).to(variant.scale_dtype)}
    if variant.strategy == "tensor":
        parts["weight_scale"] = parts["weight_scale"].flatten()
    if variant.has_order:
        parts["weight_g_idx"] = torch.from_numpy(of_columns.astype(np.int32))
    return parts | _stored_codes(codes, zero, variant), torch.from_numpy(dense)


def _stored_codes(codes: np.ndarray, zero: np.ndarray, variant: Variant) -> dict[str, torch.Tensor]:
    centre = 1 << variant.bits - 1

    def words(rows: np.ndarray) -> torch.Tensor:
        packed = [
            pack_words([int(n) + centre for n in row], variant.bits, is_old=variant.is_old) for row in rows
        ]
        return torch.tensor(packed, dtype=torch.int32)

    if variant.format != "pack-quantized":
        asymmetric = {} if variant.is_symmetric else {"weight_zero_point": torch.from_numpy(zero)}
        return {"weight": torch.from_numpy(codes)} | asymmetric
    parts = {"weight_packed": words(codes), "weight_shape": torch.tensor(codes.shape)}
    if not variant.is_symmetric:
        parts["weight_zero_point"] = words(zero.T).T.contiguous()
    return parts


def config_of(*groups: tuple[list[str], Variant], ignore: tuple[str, ...] = ("lm_head",)) -> dict[str, Any]:
    """The quantization_config of groups of targets."""
    formats = {variant.format for _, variant in groups}
    inputs = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": list(ignore),
        "config_groups": {
            f"group_{index}": {
                "targets": targets,
                "weights": variant.weights(),
                "input_activations": inputs if variant.format == "int-quantized" else None,
                "output_activations": None,
                "format": variant.format,
            }
            for index, (targets, variant) in enumerate(groups)
        },
    }


def pack_folder(
    source: Path, target: Path, variant: Variant | None = None, **changes: Any
) -> dict[str, torch.Tensor]:
    """Quantise a model folder; the dense weights by name, in the model's orientation.

    Integers and 4-bit floats of Conv1D are stored as [N, K], 8-bit floats as they are in the folder.
    """
    variant = variant or Variant(**changes)

    def pack_one(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        is_turned = is_conv1d(name) and not (variant.is_float and variant.bits == 8)
        parts, dense = pack(weight.T.contiguous() if is_turned else weight, variant)
        module = name.removesuffix(".weight")
        named = {f"{module}.{role}": part for role, part in parts.items()}
        return named, dense.T.contiguous() if is_turned else dense

    return rewrite(source, target, pack_one, config_of((["Linear"], variant)))
