"""The functions of `rows8.c` on tensors of the CPU. Without a compiler there are none.

For numbers of bfloat16 and float32.
"""

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor

from llmctl.core import native

_SOURCE = Path(__file__).with_suffix(".c")
_DTYPES = (torch.bfloat16, torch.float32)
_CPU = torch.device("cpu")


def takes(rows: Tensor) -> bool:
    """Whether the functions are there, and know numbers like these."""
    return rows.device == _CPU and rows.dtype in _DTYPES and library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None without a compiler."""
    found = native.library(_SOURCE)
    if found is not None:
        pointers, sizes, ends = [ctypes.c_void_p] * 3, [ctypes.c_int64] * 3, [ctypes.c_int] * 2
        found.llmctl_quantise_rows.argtypes = [*pointers, *sizes, ctypes.c_float, *ends]
        found.llmctl_scale_rows.argtypes = [*pointers, *sizes[:2], *ends]
        found.llmctl_quantise_rows.restype = found.llmctl_scale_rows.restype = None
    return found


def quantise(rows: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Numbers uint8 and scales [M, 1] of rows [M, K] that it `takes`; see `activations.quantise`."""
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    numbers = torch.empty(rows.shape, dtype=torch.uint8)
    scales = rows.new_empty(len(rows), 1)
    _loaded().llmctl_quantise_rows(
        rows.data_ptr(),
        numbers.data_ptr(),
        scales.data_ptr(),
        *rows.shape,
        rows.stride(0),
        largest,
        rows.dtype == torch.float32,
        torch.get_num_threads(),
    )
    return numbers, scales


def scale(rows: Tensor, scales: Tensor, bias: Tensor | None) -> None:
    """Multiply contiguous rows [M, N] that it `takes` by scales [M, 1] and add a bias [N], in place.

    All of one type; the sum is rounded once.
    """
    bias = None if bias is None else bias.contiguous()
    _loaded().llmctl_scale_rows(
        rows.data_ptr(),
        scales.data_ptr(),
        None if bias is None else bias.data_ptr(),
        *rows.shape,
        rows.dtype == torch.float32,
        torch.get_num_threads(),
    )


def _loaded() -> ctypes.CDLL:
    found = library()
    assert found is not None
    return found
