"""Reads the head of a GGUF file: what it says of its model, and names, types and places of its tensors.

Needs neither torch nor the `gguf` package, and reads nothing of the weights. The format is documented in
github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import math
import mmap
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from llmctl.core.errors import BadFileError
from llmctl.loading.header import TensorEntry

_Value = TypeVar("_Value")
SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
"""Of the data, where the file does not say."""
# Far above any real file, so that a damaged count does not keep llmctl busy for hours.
_MAX_ENTRIES, _MAX_ITEMS, _MAX_DIMENSIONS = 1_000_000, 50_000_000, 8
_MAX_KEPT_NUMBERS = 4096
"""Longer arrays of numbers are skipped as those of texts are."""
_MAX_SHOWN = 200
"""Characters of a message about a damaged head."""
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_WIDTHS = {form: struct.calcsize(f"<{form}") for form in _NUMBERS.values()}
_LENGTH = struct.Struct("<Q")
# By the format's number: name, elements of a block, bytes of a block.
_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}


BITS: Mapping[str, float] = {name: 8 * size / count for name, count, size in _TYPES.values()}
"""Of a number, by the type's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHead:
    """What a GGUF file says before its data begins."""

    metadata: Mapping[str, Any]
    """By the format's keys; of an array that is not kept there is only its length."""
    tensors: Mapping[str, TensorEntry]
    """By llama.cpp's names; shapes as torch writes them, slowest dimension first."""
    path: Path
    """Of the file, for messages."""

    @property
    def architecture(self) -> str:
        """llama.cpp's name for the model's make."""
        return str(self.metadata.get("general.architecture", ""))


def read_gguf(path: Path, *, keep: Collection[str] | None = ()) -> GgufHead:
    """The head of the file; arrays whose key is in `keep` (None: all) come whole, however long they are.

    Raises `BadFileError` for a file that is no GGUF, damaged, cut short, or of a kind that cannot be read.
    """
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise _damaged(path, f"it has {num_bytes} bytes and does not begin as GGUF files do")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                head = _Reader(path, data, keep).head()
    except OSError as error:
        raise BadFileError(f"cannot read {path}: {error.strerror}") from error
    end = max((entry.end for entry in head.tensors.values()), default=0)
    if end > num_bytes:
        raise _damaged(path, f"cut short: {end} bytes expected, {num_bytes} found")
    return head


class _Reader:
    """Walks through the bytes of one file."""

    def __init__(self, path: Path, data: mmap.mmap, keep: Collection[str] | None) -> None:
        self._path = path
        self._data = data
        self._keep = keep
        self._at = len(_MAGIC)

    def head(self) -> GgufHead:
        """Everything before the data."""
        try:
            self._check_version()
            num_tensors, num_keys = self._count(_MAX_ENTRIES), self._count(_MAX_ENTRIES)
            metadata = _unique("key", (self._pair() for _ in range(num_keys)))
            infos = _unique("tensor", (self._tensor() for _ in range(num_tensors)))
            alignment = metadata.get("general.alignment", _ALIGNMENT)
            if type(alignment) is not int or alignment < 1 or alignment.bit_count() != 1:
                raise ValueError(f"general.alignment is {alignment!r}, not a power of two")
        except (ValueError, TypeError) as error:
            raise _damaged(self._path, f"its head cannot be read at byte {self._at}: {error}") from error
        start = -(-self._at // alignment) * alignment
        tensors = {
            name: self._entry(name, shape, kind, start + at) for name, (shape, kind, at) in infos.items()
        }
        return GgufHead(metadata=metadata, tensors=tensors, path=self._path)

    def _check_version(self) -> None:
        version = self._number("I")
        if version not in _VERSIONS:
            swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
            what = "for big-endian machines" if swapped in _VERSIONS else f"of version {version}"
            raise BadFileError(
                f"{self._path} is a GGUF file {what}; version 2 and 3, little-endian, can be read",
                hint="take a newer file of the model, or its *.safetensors",
            )

    def _pair(self) -> tuple[str, Any]:
        key = self._text()
        return key, self._value(self._number("I"), key)

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array(self._number("I"), key)
        if kind not in _NUMBERS:
            raise ValueError(f"{key} is of the unknown type {kind}")
        return self._number(_NUMBERS[kind])

    def _array(self, kind: int, key: str) -> Any:
        count = self._count(_MAX_ITEMS)
        is_kept = self._keep is None or key in self._keep
        if kind == _STRING:
            texts = self._texts(count, is_kept=is_kept)
            return texts if is_kept else count
        if kind not in _NUMBERS:
            raise ValueError(f"{key} is an array of the type {kind}")
        form, start = _NUMBERS[kind], self._at
        self._skip(count * _WIDTHS[form])
        if count <= _MAX_KEPT_NUMBERS or is_kept:
            return list(struct.unpack_from(f"<{count}{form}", self._data, start))
        return count

    def _texts(self, count: int, *, is_kept: bool) -> list[str]:
        """Walk over texts, of which a vocabulary and its merges have half a million; none unless kept."""
        at, data, length_at = self._at, self._data, _LENGTH.unpack_from
        texts = []
        try:
            for _ in range(count):
                start = at + _LENGTH.size
                at = start + length_at(data, at)[0]
                if is_kept:
                    texts.append(data[start:at].decode(errors="replace"))
        except (struct.error, OverflowError) as error:
            raise ValueError("the file ends") from error
        self._skip(at - self._at)
        return texts

    def _tensor(self) -> tuple[str, tuple[tuple[int, ...], int, int]]:
        """Name, shape, type and place of a tensor, the last counted from the start of the data."""
        name = self._text()
        num_dimensions = self._number("I")
        if num_dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"{name} has {num_dimensions} dimensions")
        sizes = [self._number("Q") for _ in range(num_dimensions)]
        return name, (tuple(reversed(sizes)), self._number("I"), self._number("Q"))

    def _entry(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> TensorEntry:
        if kind not in _TYPES:
            raise BadFileError(
                f"{self._path} has tensors of the type {kind} ({name[:_MAX_SHOWN]!r}), which llmctl does not "
                "know",
                hint="take another quantisation of the model, such as Q4_K_M or Q8_0",
            )
        title, num_elements, num_bytes = _TYPES[kind]
        if shape and shape[-1] % num_elements:
            raise _damaged(self._path, f"{name} has rows of {shape[-1]}, no multiple of {num_elements}")
        return TensorEntry(
            dtype=title, shape=shape, start=start, end=start + math.prod(shape) // num_elements * num_bytes
        )

    def _number(self, form: str) -> Any:
        start = self._at
        self._skip(_WIDTHS[form])
        return struct.unpack_from(f"<{form}", self._data, start)[0]

    def _count(self, limit: int) -> int:
        count = int(self._number("Q"))
        if count > limit:
            raise ValueError(f"a count of {count}")
        return count

    def _text(self) -> str:
        start = self._at + 8
        self._skip(self._number("Q"))
        return self._data[start : self._at].decode(errors="replace")

    def _skip(self, num_bytes: int) -> None:
        if self._at + num_bytes > len(self._data):
            raise ValueError("the file ends")
        self._at += num_bytes


def _unique(kind: str, pairs: Iterable[tuple[str, _Value]]) -> dict[str, _Value]:
    """By name. Raises `ValueError` for a name that is there twice: nobody knows which is meant."""
    found: dict[str, _Value] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the {kind} {name!r} is there twice")
        found[name] = value
    return found


def _damaged(path: Path, what: str) -> BadFileError:
    # It may quote what a damaged file has for a name.
    return BadFileError(
        f"{path} is damaged: {' '.join(what[:_MAX_SHOWN].split())}", hint="download or copy the file again"
    )
