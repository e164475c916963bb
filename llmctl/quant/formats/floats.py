"""Numbers of 8 and 4 bits with an exponent, exactly as float32 or whole numbers: e4m3, e5m2, e8m0, e2m1.

Weights of such numbers become dense here in blocks of rows: little is held beside the result.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llmctl.quant.formats.base import bad

FP8_TYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
_BLOCK_NUMBERS = 1 << 20
# Twice the sixteen values of e2m1, sign bit last, which makes whole numbers of them.
_E2M1_TWICE = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


@dataclass(frozen=True, slots=True)
class Scales:
    """Scales of a weight [..., N, K], leading dimensions flattened to E."""

    values: Tensor
    """float32 [E, A, B]."""
    block: tuple[int, int]
    """Rows and columns that share one."""

    def of_rows(self, index: int, rows: slice, num_columns: int) -> Tensor:
        """Factors of rows of one leading index: [rows, K], or [rows, 1] where columns do not differ."""
        scales = self.values[index, torch.arange(rows.start, rows.stop) // self.block[0]]
        if scales.shape[1] == 1:
            return scales
        return scales.repeat_interleave(self.block[1], 1)[:, :num_columns]


def scale_values(weight: str, role: str, scale: Tensor) -> Tensor:
    """Scales of any stored type as float32 of the same shape; uint8 and e8m0 are powers of two.

    Raises `BadFileError` over one that is NaN or infinite.
    """
    if scale.dtype in (torch.uint8, torch.float8_e8m0fnu):
        values = _powers_of_two(scale.view(torch.uint8))
    elif scale.is_floating_point():
        values = scale.float()
    else:
        raise bad(weight, f"its {role} is of type {_type(scale)}, not of floats")
    if not bool(values.isfinite().all()):
        raise bad(weight, f"its {role} holds numbers that are NaN or infinite")
    return values


def lay_out(scale: Tensor, shape: tuple[int, ...]) -> Scales | None:
    """Scales of a weight [..., N, K]: one for each leading index, or each row; of stacked experts, which some
    models have as [E, K, N], each column.

    None where the shapes do not fit together.
    """
    *leading, num_rows, num_columns = shape
    count = math.prod(leading)
    if scale.numel() in (1, count):
        return Scales(scale.reshape(-1, 1, 1).expand(count, 1, 1), (num_rows, num_columns))
    if scale.shape in ((*leading, num_rows, 1), (*leading, num_rows)):
        return Scales(scale.reshape(count, num_rows, 1), (1, num_columns))
    if leading and scale.shape == (*leading, 1, num_columns):
        return Scales(scale.reshape(count, 1, num_columns), (num_rows, 1))
    return None


def lay_out_blocks(scale: Tensor, shape: tuple[int, ...], block: tuple[int, int]) -> Scales | None:
    """Scales of a weight [..., N, K], one for each block of rows and columns; the last may be smaller.

    None where the shapes do not fit together.
    """
    *leading, num_rows, num_columns = shape
    grid = (math.ceil(num_rows / block[0]), math.ceil(num_columns / block[1]))
    is_one = scale.numel() == math.prod(grid) == math.prod(leading) == 1
    if not is_one and scale.shape != (*leading, *grid):
        return None
    return Scales(scale.reshape(math.prod(leading), *grid), block)


def dequantize_fp8(weight: str, codes: Tensor, scales: Scales, dtype: torch.dtype) -> Tensor:
    """float8 codes [..., N, K] times their scales, computed in float32, as `dtype`.

    Raises `BadFileError` over codes that stand for no number, and over scales that are not positive.
    """
    if not bool((scales.values > 0).all()):
        raise bad(weight, "its scale holds numbers that are zero or negative")
    *_, num_rows, num_columns = codes.shape
    # Torch's own conversion from float8 takes twice the time of looking each code up.
    table = torch.arange(256, dtype=torch.uint8).view(codes.dtype).float()
    flat = codes.contiguous().view(torch.uint8).view(-1, num_rows, num_columns)
    result = torch.empty(flat.shape, dtype=dtype)
    step = max(1, _BLOCK_NUMBERS // max(1, num_columns))
    for index in range(flat.shape[0]):
        for start in range(0, num_rows, step):
            rows = slice(start, min(start + step, num_rows))
            values = table.index_select(0, flat[index, rows].flatten().long()).view(-1, num_columns)
            if not bool(values.sum().isfinite()):
                raise bad(weight, "it holds numbers that are NaN or infinite")
            result[index, rows] = values.mul_(scales.of_rows(index, rows, num_columns))
    return result.view(codes.shape)


def unpack_e2m1(packed: Tensor) -> Tensor:
    """Twice the values of e2m1 codes, two to a byte, low half first: uint8 [..., B] to int8 [..., 2 * B]."""
    numbers = torch.tensor(_E2M1_TWICE, dtype=torch.int8)
    codes = torch.arange(256)
    pairs = torch.stack((numbers[codes & 15], numbers[codes >> 4]), -1).view(torch.int16).flatten()
    flat = packed.contiguous().view(-1)
    result = torch.empty(flat.shape, dtype=torch.int16)
    for start in range(0, flat.numel(), _BLOCK_NUMBERS):
        block = slice(start, start + _BLOCK_NUMBERS)
        torch.index_select(pairs, 0, flat[block].int(), out=result[block])
    return result.view(torch.int8).view(*packed.shape[:-1], packed.shape[-1] * 2)


def _powers_of_two(codes: Tensor) -> Tensor:
    """e8m0: 2 ** (code - 127), and NaN for 255."""
    values = torch.ldexp(torch.ones(codes.shape), codes.to(torch.int32) - 127)
    return values.masked_fill_(codes == 255, torch.nan)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
