"""Reads the header of a safetensors file: names, types and places of its tensors, without torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadFileError

_PREFIX_BYTES = 8
# The format's own limit.
_MAX_HEADER_BYTES = 100_000_000
_LFS_POINTER = b"version "
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    "F4": 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor of a file."""

    dtype: str
    """As safetensors writes it: BF16, F32, I32, ..."""
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the start of the file."""
    end: int
    """Byte after the last."""

    @property
    def num_bytes(self) -> int:
        """Size of the data."""
        return self.end - self.start

    @property
    def num_elements(self) -> int:
        """Numbers as they are stored; packed 4-bit weights count by container."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file by name.

    Raises `BadFileError` when the header is damaged, or the file is shorter or longer than it says.
    """
    num_file_bytes = path.stat().st_size
    text, data_start = _header_text(path, num_file_bytes)
    try:
        raw = json.loads(text)
        raw.pop("__metadata__", None)
        entries = {name: _entry(value, data_start) for name, value in raw.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, "its header is not safetensors JSON") from error
    _check_extent(path, entries, data_start, num_file_bytes)
    return entries


def _header_text(path: Path, num_file_bytes: int) -> tuple[bytes, int]:
    """The header's JSON and the byte at which the data starts."""
    try:
        with path.open("rb") as file:
            prefix = file.read(_PREFIX_BYTES)
            num_header_bytes = int.from_bytes(prefix, "little")
            if prefix == _LFS_POINTER:
                raise BadFileError(
                    f"{path} is a Git LFS pointer, not the weights", hint="run `git lfs pull` in its folder"
                )
            data_start = _PREFIX_BYTES + num_header_bytes
            if len(prefix) < _PREFIX_BYTES or num_header_bytes > _MAX_HEADER_BYTES:
                raise _damaged(path, f"it has {num_file_bytes} bytes and no safetensors header")
            if data_start > num_file_bytes:
                raise _wrong_size(path, data_start, num_file_bytes)
            return file.read(num_header_bytes), data_start
    except OSError as error:
        raise BadFileError(f"cannot read {path}: {error.strerror}") from error


def _entry(value: Mapping[str, Any], data_start: int) -> TensorEntry:
    start, end = value["data_offsets"]
    if not all(isinstance(number, int) and number >= 0 for number in (start, end, *value["shape"])):
        raise ValueError(f"{value} holds what is no size")
    entry = TensorEntry(
        dtype=str(value["dtype"]),
        shape=tuple(int(size) for size in value["shape"]),
        start=data_start + start,
        end=data_start + end,
    )
    bits = _BITS.get(entry.dtype)
    if entry.num_bytes < 0 or (bits is not None and entry.num_elements * bits != entry.num_bytes * 8):
        raise ValueError(f"{entry.shape} of {entry.dtype} in {entry.num_bytes} bytes")
    return entry


def _check_extent(
    path: Path, entries: Mapping[str, TensorEntry], data_start: int, num_file_bytes: int
) -> None:
    """The format allows neither holes nor overlap nor a tail, so the tensors fill the file exactly."""
    end = max((entry.end for entry in entries.values()), default=data_start)
    if end != num_file_bytes:
        raise _wrong_size(path, end, num_file_bytes)
    if sum(entry.num_bytes for entry in entries.values()) != end - data_start:
        raise _damaged(path, "its tensors overlap or leave holes")


def _wrong_size(path: Path, expected: int, actual: int) -> BadFileError:
    kind = "cut short" if actual < expected else "longer than its header says"
    return _damaged(path, f"{kind}: {expected} bytes expected, {actual} found")


def _damaged(path: Path, what: str) -> BadFileError:
    return BadFileError(f"{path} is damaged: {what}", hint="download or copy the file again")
