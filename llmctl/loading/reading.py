"""Tensors of a checkpoint, each read when it is asked for: plain reads, so that memory is what is held.

`transformers` takes them in the place of its own lazy slices (`from_pretrained(None, state_dict=...)`).
"""

import ctypes
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError
from llmctl.loading.checkpoint import Checkpoint
from llmctl.loading.header import TensorEntry, read_header

log = logging.getLogger(__name__)

_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.uint8,
    "F4": torch.uint8,
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
_MAX_READ_BYTES = 1 << 30
# Of what stays in the cache between reading and packing.
_CHECKED_AT_ONCE = 1 << 20
_CHECKED = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor on disk; `stored[...]` reads it, each time anew."""

    name: str
    file: Path
    entry: TensorEntry
    on_read: Callable[[int], None]
    """Told the bytes of each tensor that was read."""
    is_packed: bool = False
    """Whether its numbers are bits of something else, and may look like none."""

    def __getitem__(self, index: EllipsisType) -> Tensor:
        """The tensor on the CPU, in memory of its own.

        Raises `BadFileError` for a file that ends early or cannot be read, and for numbers that are none.
        """
        raw = torch.empty(self.entry.num_bytes, dtype=torch.uint8)
        _read_into(self.file, raw, self.entry.start)
        dtype = _DTYPES.get(self.entry.dtype)
        if dtype is None:
            raise BadFileError(
                f"{self.file}: {self.name} is of the type {self.entry.dtype}, which torch lacks"
            )
        shape = self.entry.shape
        tensor = raw.view(shape) if self.entry.dtype == "F4" else raw.view(dtype).view(shape)
        if not self.is_packed:
            check_numbers(f"{self.file}: {self.name}", tensor)
        self.on_read(self.entry.num_bytes)
        return tensor

    def get_dtype(self) -> str:
        """As safetensors writes it."""
        return self.entry.dtype

    def get_shape(self) -> list[int]:
        """The shape on disk."""
        return list(self.entry.shape)


def stored_tensors(files: tuple[Path, ...], on_read: Callable[[int], None]) -> dict[str, StoredTensor]:
    """Every tensor of the files by name.

    Raises `BadFileError` for damaged headers, and for a name in two files: nobody knows which is meant.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        for name, entry in read_header(file).items():
            if name in found:
                raise BadFileError(
                    f"{file.parent} holds {name} in more than one of its safetensors files",
                    hint="files of another version lie among them: download the model into an empty folder",
                )
            found[name] = StoredTensor(name=name, file=file, entry=entry, on_read=on_read)
    return found


def tensors_of(checkpoint: Checkpoint, on_read: Callable[[int], None]) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint by name, and a word where something else than its files makes them.

    Raises `BadFileError` as `stored_tensors` does.
    """
    if checkpoint.patch is None:
        return stored_tensors(checkpoint.weight_files, on_read)
    for notice in checkpoint.patch.notices:
        log.warning("%s: %s", checkpoint.patch.title, notice)
    return checkpoint.patch.tensors(on_read)


def _read_into(file: Path, raw: Tensor, start: int) -> None:
    """Fill `raw` (uint8 [bytes]) with what stands at `start`; safe in several threads at once."""
    # Not by numpy: memory that it has seen cannot be freed before its tensor.
    buffer = memoryview((ctypes.c_char * raw.numel()).from_address(raw.data_ptr())).cast("B")
    try:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            done = 0
            while done < len(buffer):
                part = buffer[done : done + _MAX_READ_BYTES]
                count = os.preadv(descriptor, [part], start + done)
                if count == 0:
                    raise BadFileError(
                        f"{file} is damaged: it ends at byte {start + done}, {start + len(buffer)} expected",
                        hint="download or copy the file again",
                    )
                done += count
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BadFileError(f"cannot read {file}: {error.strerror}") from error


def check_numbers(name: str, tensor: Tensor) -> None:
    """Raise `BadFileError` for a weight with NaN or infinite numbers: every answer would be nonsense."""
    if tensor.dtype not in _CHECKED:
        return
    parts: Iterable[Tensor] = tensor.flatten().split(_CHECKED_AT_ONCE)  # type: ignore[no-untyped-call]
    wrong = sum(_count_wrong(part) for part in parts)
    if wrong:
        raise BadFileError(
            f"{name} holds {wrong} numbers that are NaN or infinite",
            hint="download the model again; if it stays so, the publisher's file is broken",
        )


def _count_wrong(part: Tensor) -> int:
    # The sum is quick, and NaN or infinite when any number is; a finite sum may overflow, so look again.
    return 0 if bool(part.sum().isfinite()) else int((~part.isfinite()).sum())
