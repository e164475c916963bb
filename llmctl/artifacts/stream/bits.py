"""Tensors as plain bytes, and the names that safetensors has for their types."""

import ctypes
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError

TORCH_TYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
BYTE = torch.uint8
NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in TORCH_TYPES.items()}


def torch_type(name: str, *, of: str) -> torch.dtype:
    """The type that safetensors calls `name`. Raises `BadFileError`, naming the tensor `of`, for others."""
    found = TORCH_TYPES.get(name)
    if found is None:
        raise BadFileError(f"{of} is of the type {name}, which torch lacks")
    return found


def num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of a type that `TORCH_TYPES` has, or of F4."""
    count = math.prod(shape)
    return count // 2 if dtype == "F4" else TORCH_TYPES[dtype].itemsize * count


def as_bytes(tensor: Tensor) -> Tensor:
    """The tensor's bits in order, uint8 [bytes]; a view where it is contiguous."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def as_tensor(raw: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """A view of uint8 [bytes] as what they stand for."""
    return raw.view(dtype).view(shape)


def buffer_of(raw: Tensor) -> memoryview:
    """The memory of a contiguous uint8 [bytes], which the caller keeps alive as long as the view."""
    # Not by numpy: memory that it has seen cannot be freed before its tensor.
    if raw.numel() == 0:
        return memoryview(b"")
    return memoryview((ctypes.c_char * raw.numel()).from_address(raw.data_ptr())).cast("B")
