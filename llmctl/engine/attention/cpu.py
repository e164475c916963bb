"""Attention on the CPU by C of our own: one function for sequences that write one token, one for the others.

Without a compiler, and in float16, all goes through torch. The C code reads blocks where they lie.
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
from llmctl.engine.attention.dense import Call, DenseBackend
from llmctl.engine.attention.interface import KVLayer, Scoring
from llmctl.engine.execution.step import Step

_DECODE, _PREFILL = (Path(__file__).with_name(name) for name in ("decode.c", "prefill.c"))
_COMPILED_DTYPES = (torch.float32, torch.bfloat16)


class CpuBackend:
    """See `Backend`."""

    name = "CPU, in C of llmctl's own"

    def __init__(self, functions: "Functions") -> None:
        """`functions` is what `compiled` gives."""
        self._functions = functions
        self._dense = DenseBackend()

    def attend(
        self, q: Tensor, k: Tensor | None, v: Tensor | None, layer: KVLayer, step: Step, scoring: Scoring
    ) -> Tensor:
        """See `Backend.attend`."""
        if q.dtype not in _COMPILED_DTYPES or q.dtype != layer.keys.dtype:
            return self._dense.attend(q, k, v, layer, step, scoring)
        call = Call(q, k, v, layer, step, scoring)
        out = call.empty()
        self._compute(out, call)
        return out

    def _compute(self, out: Tensor, call: Call) -> None:
        """Store all new keys and values, and fill `out` [T, Hq, Dv]."""
        keys, values, policy = call.layer.keys, call.layer.values, call.layer.policy
        tables = call.step.groups[call.layer.group]
        q, k, v = (_with_close_elements(each) for each in (call.q, call.k, call.v))
        sinks = call.scoring.sinks
        # Named, for ctypes keeps nothing alive.
        held = (None if sinks is None else sinks.float().contiguous(), call.step.meta.contiguous())
        arguments = _Arguments(
            *map(_address, (keys, values, out, q, k, v, held[1], tables.slots, tables.tables, held[0])),
            *(_strides(q) + _strides(k) + _strides(v)),
            *tables.tables.shape,
            len(out),
            len(call.q),
            *keys.shape[1::2],
            values.shape[3],
            keys.shape[2].bit_length() - 1,
            policy.window or 0,
            policy.chunk or 0,
            int(keys.dtype == torch.float32),
            torch.get_num_threads(),
            call.scoring.scale,
            call.scoring.softcap or 0.0,
        )
        failed = self._functions.decode(ctypes.byref(arguments))
        if not failed and len(call.step.ids[0]) > len(call.step.spans):
            failed = self._functions.prefill(ctypes.byref(arguments))
        if failed:
            raise DoesNotFitError("memory ran out in attention", hint="shorten the prompt or free memory")


def choose(device: torch.device, dtype: torch.dtype) -> CpuBackend | DenseBackend:
    """The C code where there is a compiler and it knows `dtype`."""
    del device
    functions = compiled() if dtype in _COMPILED_DTYPES else None
    return DenseBackend() if functions is None else CpuBackend(functions)


@dataclass(frozen=True, slots=True)
class Functions:
    """What was compiled; each takes `_Arguments` and returns whether memory ran out."""

    decode: Callable[..., int]
    """Stores what is new, and attends for sequences that write one token."""
    prefill: Callable[..., int]
    """Attends for the others, after that."""


@functools.cache
def compiled() -> Functions | None:
    """The functions of `decode.c` and `prefill.c`; None without a compiler."""
    decode, prefill = native.library(_DECODE), native.library(_PREFILL)
    if decode is None or prefill is None:
        return None
    functions = Functions(decode.llmctl_attend, prefill.llmctl_prefill)
    for function in (decode.llmctl_attend, prefill.llmctl_prefill):
        function.argtypes, function.restype = [ctypes.POINTER(_Arguments)], ctypes.c_int
    return functions


class _Arguments(ctypes.Structure):
    """`Call` of decode.c and prefill.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values", "out", "query", "new_keys", "new_values")),
        *((name, ctypes.c_void_p) for name in ("meta", "slots", "tables", "sinks")),
        *(
            (f"{name}_{axis}", ctypes.c_int64)
            for name in ("query", "key", "value")
            for axis in ("head", "row")
        ),
        *((name, ctypes.c_int64) for name in ("num_spans", "num_columns", "num_rows", "num_heads")),
        *((name, ctypes.c_int64) for name in ("num_kv_heads", "key_size", "value_size", "block_shift")),
        *((name, ctypes.c_int64) for name in ("window", "chunk", "is_wide", "num_threads")),
        *((name, ctypes.c_float) for name in ("scale", "softcap")),
    )


def _with_close_elements(tensor: Tensor | None) -> Tensor | None:
    return tensor if tensor is None or tensor.stride(2) == 1 else tensor.contiguous()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _strides(tensor: Tensor | None) -> tuple[int, ...]:
    return (0, 0) if tensor is None else tensor.stride()[:2]
