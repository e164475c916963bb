"""A delta that is open for reading: what it says of itself, and its coded pieces."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from llmctl.artifacts.delta import coding, manifest
from llmctl.artifacts.delta.manifest import Coded, Manifest, Told
from llmctl.artifacts.stream import bits, digests
from llmctl.artifacts.stream.source import Entry, bytes_of
from llmctl.core.errors import BadFileError
from llmctl.loading.reading import stored_tensors

_AGAIN = "download or copy the delta again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The coded pieces of one tensor."""

    coded: Coded
    ends: tuple[int, ...]
    read: Callable[[int, int], Tensor]

    def piece(self, number: int) -> Tensor:
        """One of them, uint8 [bytes]. Raises `BadFileError`."""
        end = self.ends[number]
        return self.read(end - self.coded.sizes[number], end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """An exact delta; safe in several threads at once."""

    name: str
    folder: Path
    manifest: Manifest
    stored: Mapping[str, Stored]
    """Of tensors that are not as in the base all through."""
    num_bytes: int
    """Of its safetensors files."""

    @classmethod
    def open(cls, folder: Path, *, name: str | None = None) -> "Delta":
        """Raises `BadFileError` for a folder that is no delta, or not a whole one."""
        told = manifest.read(folder)
        files = sorted(folder.glob(f"{manifest.STEM}*.safetensors"))
        tensors = stored_tensors(tuple(files), lambda _: None)
        coded = {key: each for file in files for key, each in manifest.read_coded(file).items()}
        if tensors.keys() != coded.keys():
            raise _damaged(folder, "its files do not hold what their metadata tells")
        stored = {
            key: Stored(
                coded=coded[key], ends=tuple(accumulate(coded[key].sizes)), read=bytes_of(tensors[key])
            )
            for key in tensors
        }
        for key, each in told.tensors.items():
            _check(folder, key, each, stored.get(key))
        for key, tensor in tensors.items():
            if key not in told.tensors or coded[key].num_bytes != tensor.entry.num_bytes:
                raise _damaged(folder, f"{key} does not belong to it")
        size = sum(file.stat().st_size for file in files)
        return cls(name=name or str(folder), folder=folder, manifest=told, stored=stored, num_bytes=size)

    def decode(self, name: str, number: int, base: Tensor, num_bytes: int) -> Tensor:
        """Piece `number` of a tensor of the target, uint8 [num_bytes], from that of the base.

        Raises `BadFileError` for damaged pieces.
        """
        stored = self.stored.get(name)
        coded = stored.piece(number) if stored is not None else torch.empty(0, dtype=torch.uint8)
        width = stored.coded.width if stored is not None else 1
        try:
            return coding.decode(bits.buffer_of(coded), base[:num_bytes], width, num_bytes)
        except ValueError as error:
            raise self.damaged(name, str(error)) from error

    def damaged(self, name: str, reason: str = "what comes out is not what went in") -> BadFileError:
        """The refusal of one tensor."""
        return BadFileError(f"the delta {self.name} is damaged: {name}: {reason}", hint=_AGAIN)


def _check(folder: Path, name: str, told: Told, stored: Stored | None) -> None:
    """What one tensor's pieces must be, so that nothing else has to be looked at when it is applied."""
    is_known = told.dtype in bits.TORCH_TYPES or told.dtype == "F4"
    if is_known and bits.num_bytes(told.dtype, told.shape) != told.num_bytes:
        raise _damaged(folder, f"{name} is told to have {told.num_bytes} bytes")
    if stored is None:
        # All of it is the base's then, or its first rows.
        is_there = told.base is not None and (told.base == told.target or told.base_rows is not None)
        if told.num_bytes and not is_there:
            raise _damaged(folder, f"{name} is missing")
        return
    coded, count = stored.coded, digests.num_pieces(told.num_bytes)
    if len(coded.sizes) != count or min(coded.sizes, default=0) < 0:
        raise _damaged(folder, f"{name} has {len(coded.sizes)} pieces, and {count} are told of")
    if coded.width != coding.width_of(told.dtype):
        raise _damaged(folder, f"{name} has numbers of {coded.width} bytes")


def _damaged(folder: Path, reason: str) -> BadFileError:
    return BadFileError(f"the delta {folder} is damaged: {reason}", hint=_AGAIN)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a tensor of the target and of what it is made from."""

    name: str
    told: Told
    number: int
    start: int
    end: int
    """It may lie behind the end of either."""
    is_last: bool

    @property
    def target_bytes(self) -> int:
        """How many bytes of the target it is, 0 behind its end."""
        return max(0, min(self.end, self.told.num_bytes) - self.start)


def pieces_of(tensors: Iterable[tuple[str, Told]]) -> Iterator[Piece]:
    """The pieces of tensors, as many as the longer of base and target has."""
    for name, told in tensors:
        longest = max(told.num_bytes, _base_bytes(told))
        if not longest:
            yield Piece(name, told, 0, 0, 0, is_last=True)
        for number, (start, end) in enumerate(digests.pieces(longest)):
            yield Piece(name, told, number, start, end, is_last=end == longest)


def _base_bytes(told: Told) -> int:
    """Of the base's tensor; rows are as long as those of the target."""
    if told.base_rows is None or not told.shape[0]:
        return told.num_bytes
    return told.num_bytes // told.shape[0] * told.base_rows


def wrong_shapes(delta: Manifest, base: Mapping[str, Entry]) -> list[str]:
    """Tensors that a base has not, or has in another type or shape than the delta was made from."""
    return [
        name
        for name, told in delta.tensors.items()
        if told.base is not None and (name not in base or not _fits(told, base[name]))
    ]


def _fits(told: Told, base: Entry) -> bool:
    rows = told.shape if told.base_rows is None else (told.base_rows, *told.shape[1:])
    return (base.dtype, base.shape) == (told.dtype, rows)


def wrong_base(delta: Manifest, name: str, base: str, tensors: list[str]) -> BadFileError:
    """The refusal of a base that is another model than the delta was made from, all its tensors compared."""
    count = sum(told.base is not None for told in delta.tensors.values())
    shown = ", ".join(tensors[:3]) + (f" and {len(tensors) - 3} more" if len(tensors) > 3 else "")
    return not_the_base(delta, name, base, f"{len(tensors)} of {count} tensors differ: {shown}")


def not_the_base(delta: Manifest, name: str, base: str, why: str) -> BadFileError:
    """The refusal of a base, with what is wrong with it."""
    commit = f" at {delta.base_commit}" if delta.base_commit else ""
    return BadFileError(
        f"{base} is not the base of the delta {name}: {why}",
        hint=f"it was made from {delta.base_name}{commit}",
    )
