"""Rows of bfloat16 times a 4-bit weight by `int4_rows.c`.

There is none of it without a compiler, and on CPUs that do not multiply bfloat16.
"""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llmctl.core import native
from llmctl.core.errors import DoesNotFitError

_SOURCE = Path(__file__).with_suffix(".c")
WIDTH = 64
"""The packed weight has rows up to a multiple of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A weight [N, K] in the order of torch's int4 kernel, N up to a multiple of `WIDTH` in each tensor."""

    numbers: Tensor
    scales: Tensor
    """bfloat16 [K / group, N, 2], of which the first counts."""
    zeros: Tensor | None
    """int8 [K / group, N]; None: 8 everywhere."""
    num_outputs: int
    num_inputs: int
    group_size: int
    """One of 32, 64, 128, 256."""
    block: int
    """Rows that lie side by side: 32 or 64."""


@dataclass(frozen=True, slots=True)
class Product:
    """What was compiled."""

    function: Callable[..., int]
    has_matrices: bool
    """Whether oneDNN is faster with many rows, on units of the CPU that the function does not use."""

    def multiply(self, rows: Tensor, weight: Packed, bias: Tensor | None) -> Tensor:
        """Rows [M, K] of bfloat16 to [M, N], with the bias [N] added before the result is rounded.

        Raises `DoesNotFitError`.
        """
        if rows.stride(1) != 1:
            rows = rows.contiguous()
        bias = None if bias is None else bias.contiguous()
        out = rows.new_empty(len(rows), weight.num_outputs)
        arguments = _Arguments(
            *map(_address, (weight.numbers, weight.scales, weight.zeros, rows, bias, out)),
            len(rows),
            rows.stride(0),
            weight.num_outputs,
            -(-weight.num_outputs // WIDTH) * WIDTH,
            weight.num_inputs,
            weight.group_size,
            weight.block,
            torch.get_num_threads(),
        )
        if self.function(ctypes.byref(arguments)):
            raise DoesNotFitError("memory ran out in a layer", hint="shorten the prompt or free memory")
        return out


@functools.cache
def compiled() -> Product | None:
    """None where there is none."""
    library = native.library(_SOURCE)
    if library is None or not ctypes.c_int.in_dll(library, "llmctl_int4_is_fast").value:
        return None
    function = library.llmctl_int4_multiply
    function.argtypes, function.restype = [ctypes.POINTER(_Arguments)], ctypes.c_int
    has_matrices = ctypes.c_int.in_dll(library, "llmctl_int4_has_matrices").value
    return Product(function, bool(has_matrices))


class _Arguments(ctypes.Structure):
    """`Call` of int4_rows.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("packed", "scales", "zeros", "rows", "bias", "out")),
        *((name, ctypes.c_int64) for name in ("num_rows", "row_step", "num_outputs", "num_padded")),
        *((name, ctypes.c_int64) for name in ("num_columns", "group", "block", "num_threads")),
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
