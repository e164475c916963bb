"""Writes safetensors shards tensor by tensor: the header first, then bytes at their places.

    shards = split(steps, max_bytes=2_000_000_000)
    with ShardFile(path, shards[0].planned) as file:
        file.write("a.weight", tensor)

Only what is being written is in memory. Sizes must be known before.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from torch import Tensor

from llmctl.artifacts.stream import bits
from llmctl.artifacts.stream.disk import disk_errors

T = TypeVar("T")

MAX_SHARD_BYTES = 2 * 10**9
"""Less than others take: an interrupted job goes on after the last whole file."""
METADATA: Mapping[str, str] = {"format": "pt"}
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A tensor that will be written."""

    name: str
    dtype: str
    """As safetensors writes it."""
    shape: tuple[int, ...]
    size: int | None = None
    """Bytes, of a type that torch lacks."""

    @property
    def num_bytes(self) -> int:
        """Size of the data."""
        return bits.num_bytes(self.dtype, self.shape) if self.size is None else self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One piece of work: the tensors that it reads, and those that it makes, which go into one shard."""

    name: str
    reads: tuple[tuple[int, str], ...]
    """Which of the sources, and the tensor's name there."""
    writes: tuple[Planned, ...]

    @property
    def num_bytes(self) -> int:
        """Of what it makes."""
        return sum(planned.num_bytes for planned in self.writes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of the result."""

    name: str
    steps: tuple[Step, ...]

    @property
    def planned(self) -> tuple[Planned, ...]:
        """All its tensors."""
        return tuple(planned for step in self.steps for planned in step.writes)

    @property
    def num_bytes(self) -> int:
        """Of its tensors, without the header."""
        return sum(step.num_bytes for step in self.steps)


def split(steps: Sequence[Step], *, max_bytes: int = MAX_SHARD_BYTES) -> tuple[Shard, ...]:
    """The shards for `steps` in their order, each of at most `max_bytes` unless one step has more."""
    groups = grouped(steps, lambda step: step.num_bytes, max_bytes)
    names = shard_names("model", len(groups))
    return tuple(Shard(name=name, steps=tuple(group)) for name, group in zip(names, groups, strict=True))


def grouped(items: Sequence[T], num_bytes: Callable[[T], int], max_bytes: int) -> list[list[T]]:
    """`items` in their order, each group of at most `max_bytes` unless one item has more; at least one."""
    groups: list[list[T]] = [[]]
    size = 0
    for item in items:
        if groups[-1] and size + num_bytes(item) > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(item)
        size += num_bytes(item)
    return groups


def shard_names(stem: str, count: int) -> list[str]:
    """What the files of a checkpoint of `count` files are called."""
    if count == 1:
        return [f"{stem}.safetensors"]
    return [f"{stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def index_of(shards: Sequence[Shard]) -> str:
    """The text of `model.safetensors.index.json`."""
    weight_map = {planned.name: shard.name for shard in shards for planned in shard.planned}
    total = sum(shard.num_bytes for shard in shards)
    value = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


class RawFile:
    """A file of a known or unknown size that is filled at any place, by several threads if need be."""

    def __init__(self, path: Path) -> None:
        """Raises what `disk_errors` raises."""
        self._path = path
        with disk_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """On success all is on the disk; after an error the file is gone."""
        try:
            if error is None:
                with disk_errors(self._path):
                    os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)
            if error is not None and not isinstance(error, KeyboardInterrupt):
                self._path.unlink(missing_ok=True)

    def resize(self, num_bytes: int) -> None:
        """Make the file that long; what was not written reads as zeros."""
        with disk_errors(self._path):
            os.ftruncate(self._descriptor, num_bytes)

    def write_at(self, start: int, data: Tensor | bytes) -> None:
        """Put bytes, or uint8 [bytes], at `start`. Raises what `disk_errors` raises."""
        buffer = memoryview(data) if isinstance(data, bytes) else bits.buffer_of(data)
        with disk_errors(self._path):
            done = 0
            while done < len(buffer):
                done += os.pwrite(self._descriptor, buffer[done : done + (1 << 30)], start + done)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Header and places of the tensors of one file."""

    header: bytes
    """All that stands before the data, its length too."""
    places: Mapping[str, int]
    """First byte of each tensor, counted from the start of the file."""
    num_bytes: int
    """Of the whole file."""

    @classmethod
    def of(cls, planned: Iterable[Planned], metadata: Mapping[str, str] = METADATA) -> "Layout":
        """Wider numbers first, so that every tensor stands where its type may."""
        ordered = sorted(planned, key=lambda each: -bits.TORCH_TYPES.get(each.dtype, bits.BYTE).itemsize)
        entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
        offsets, end = {}, 0
        for each in ordered:
            offsets[each.name] = end
            end += each.num_bytes
            span = [offsets[each.name], end]
            entries[each.name] = {"dtype": each.dtype, "shape": list(each.shape), "data_offsets": span}
        header = framed(json.dumps(entries, separators=(",", ":")).encode())
        places = {name: len(header) + offset for name, offset in offsets.items()}
        return cls(header=header, places=places, num_bytes=len(header) + end)


def framed(text: bytes, num_bytes: int = 0) -> bytes:
    """A header's JSON with its length before it and blanks behind it, at least `num_bytes` together."""
    size = max(len(text), num_bytes - _ALIGNMENT)
    size += -size % _ALIGNMENT
    return size.to_bytes(8, "little") + text.ljust(size)


class ShardFile(RawFile):
    """A safetensors file whose tensors are known before any of them is there."""

    def __init__(
        self, path: Path, planned: Sequence[Planned], metadata: Mapping[str, str] = METADATA
    ) -> None:
        """Raises what `disk_errors` raises."""
        super().__init__(path)
        self._planned = {each.name: each for each in planned}
        self._layout = Layout.of(planned, metadata)
        self.write_at(0, self._layout.header)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor; what its plan says of type and size must be true."""
        planned = self._planned[name]
        is_packed = planned.dtype not in bits.TORCH_TYPES
        is_as_told = tuple(tensor.shape) == planned.shape and bits.NAMES[tensor.dtype] == planned.dtype
        assert is_packed or is_as_told, (name, tensor.shape, tensor.dtype, planned)
        assert tensor.nbytes == planned.num_bytes, (name, tensor.nbytes, planned)
        self.write_at(self._layout.places[name], bits.as_bytes(tensor))
