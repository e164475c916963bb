"""The functions of `elementwise.c` on tensors of the CPU. Without a compiler there are none.

For numbers of bfloat16 and float32, where nobody asks for gradients.
"""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from llmctl.core import native

Form = Literal["after", "before", "one more"]
"""When a norm's weight is multiplied: after rounding, before, or one more than it is, before."""
FORMS: Sequence[Form] = ("after", "before", "one more")
Activation = Literal["silu", "gelu tanh"]
ACTIVATIONS: Sequence[Activation] = ("silu", "gelu tanh")
_SOURCE = Path(__file__).with_suffix(".c")
_DTYPES = (torch.bfloat16, torch.float32)
_CPU = torch.device("cpu")


def takes_type(x: Tensor) -> bool:
    """Whether numbers like these are known to the functions."""
    return x.device == _CPU and x.dtype in _DTYPES


def takes(x: Tensor) -> bool:
    """Whether the functions can be called on `x` here and now."""
    return (
        takes_type(x)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and library() is not None
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None without a compiler."""
    found = native.library(_SOURCE)
    if found is not None:
        pointers, sizes, ends = [ctypes.c_void_p] * 3, [ctypes.c_int64], [ctypes.c_int] * 3
        found.llmctl_rms_norm.argtypes = [*pointers, *sizes * 3, ctypes.c_float, *ends]
        found.llmctl_gated.argtypes = [*pointers, *sizes * 4, *ends]
        found.llmctl_rms_norm.restype = found.llmctl_gated.restype = None
    return found


def rms_norm(x: Tensor, weight: Tensor, eps: float, form: Form) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, times a weight [N] of its type; it `takes` x."""
    x, weight = _in_rows(x), weight.contiguous()
    size = x.shape[-1]
    out = torch.empty(x.shape, dtype=x.dtype)
    _loaded().llmctl_rms_norm(
        x.data_ptr(),
        weight.data_ptr(),
        out.data_ptr(),
        x.numel() // max(1, size),
        size,
        _stride(x),
        eps,
        FORMS.index(form),
        x.dtype == torch.float32,
        torch.get_num_threads(),
    )
    return out


def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """activation(gate) * up, of one shape and type that `takes`, each rounded as tensors would be."""
    gate, up = _in_rows(gate), _in_rows(up)
    size = gate.shape[-1]
    out = torch.empty(gate.shape, dtype=gate.dtype)
    _loaded().llmctl_gated(
        gate.data_ptr(),
        up.data_ptr(),
        out.data_ptr(),
        gate.numel() // max(1, size),
        size,
        _stride(gate),
        _stride(up),
        ACTIVATIONS.index(activation),
        gate.dtype == torch.float32,
        torch.get_num_threads(),
    )
    return out


def _loaded() -> ctypes.CDLL:
    found = library()
    assert found is not None
    return found


def _in_rows(x: Tensor) -> Tensor:
    """The same numbers in rows of one distance, each with its elements side by side."""
    if x.is_contiguous():
        return x
    strides, shape = x.stride(), x.shape
    # A part of a joined result: rows one after another, but for what belongs to others between them.
    is_even = strides[-1] == 1 and all(
        shape[i] == 1 or strides[i] == strides[i + 1] * shape[i + 1] for i in range(x.dim() - 2)
    )
    return x if is_even else x.contiguous()


def _stride(x: Tensor) -> int:
    # Of a dimension of one, as heads of a single token have, torch says anything.
    return x.shape[-1] if x.is_contiguous() else x.stride(-2)
