"""A checkpoint to read from, tensor by tensor, whatever its sharding: safetensors, or the old pickle files.

Numbers are bits here: nothing is judged, converted or left out.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmctl.artifacts.stream import bits, pickles
from llmctl.core.errors import BadFileError
from llmctl.core.progress import Progress, SilentProgress
from llmctl.loading import contents
from llmctl.loading.checkpoint import Checkpoint, locate, open_folder
from llmctl.loading.reading import StoredTensor, stored_tensors

_SILENT = SilentProgress()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of a tensor before it is read."""

    name: str
    dtype: str
    """As safetensors writes it."""
    shape: tuple[int, ...]
    num_bytes: int
    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkpoint that is open for reading; safe in several threads at once."""

    name: str
    """As the user called it."""
    folder: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    """Its weights."""
    entries: Mapping[str, Entry]
    """By name, in order of file and place in it."""
    commit: str | None = None
    """Of the hub."""
    ties: Mapping[str, str] = field(default_factory=dict)
    """Of pickle files: names of tensors that share their memory with one before, whose name it gives."""
    readers: Mapping[str, Callable[[int, int], Tensor]] = field(default_factory=dict, repr=False)
    """From first byte and the one behind the last to uint8 [bytes]."""

    @classmethod
    def open(
        cls,
        model: str | Path | Checkpoint,
        *,
        revision: str | None = None,
        progress: Progress = _SILENT,
        takes_pickles: bool = False,
    ) -> "Source":
        """Find a model as `chat` does, or take a folder or checkpoint that was found.

        With `takes_pickles` a folder or repository with `pytorch_model*.bin` alone will do. Raises what
        `checkpoint.locate` raises, and `BadFileError` for GGUF.
        """
        if isinstance(model, Checkpoint):
            return _of_checkpoint(model)
        if takes_pickles and (folder := pickles.find(str(model), revision, progress)) is not None:
            return _of_pickles(str(model), folder)
        if isinstance(model, Path):
            return _of_checkpoint(open_folder(model))
        return _of_checkpoint(locate(model, revision=revision, progress=progress))

    @classmethod
    def of_files(
        cls, name: str, folder: Path, config: Mapping[str, Any], files: tuple[Path, ...]
    ) -> "Source":
        """Tensors in safetensors files, whatever they are. Raises `BadFileError`."""
        stored = stored_tensors(files, lambda _: None).values()
        ordered = sorted(stored, key=lambda each: (each.file, each.entry.start, each.entry.end))
        return cls(
            name=name,
            folder=folder,
            config=config,
            files=files,
            entries={each.name: _entry(each) for each in ordered},
            readers={each.name: bytes_of(each) for each in ordered},
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors, in order of file and place in it."""
        return tuple(self.entries)

    @property
    def num_bytes(self) -> int:
        """Of all tensors."""
        return sum(entry.num_bytes for entry in self.entries.values())

    def entry(self, name: str) -> Entry:
        """Raises `BadFileError` for a name that it has not."""
        found = self.entries.get(name)
        if found is None:
            raise BadFileError(f"{self.name} has no tensor {name}")
        return found

    def read(self, name: str) -> Tensor:
        """The tensor, in memory of its own, bit for bit. Raises `BadFileError`."""
        entry = self.entry(name)
        raw = self.read_bytes(name)
        if entry.dtype == "F4":
            return raw.view(*entry.shape[:-1], -1)
        return bits.as_tensor(raw, bits.torch_type(entry.dtype, of=name), entry.shape)

    def read_bytes(self, name: str, start: int = 0, end: int | None = None) -> Tensor:
        """Its bytes from `start` to before `end`, uint8 [bytes], in memory of their own."""
        size = self.entry(name).num_bytes
        return self.readers[name](min(start, size), size if end is None else min(end, size))


def _of_checkpoint(checkpoint: Checkpoint) -> Source:
    if checkpoint.gguf is not None:
        raise BadFileError(
            f"{checkpoint.name} is a GGUF file, and this works on safetensors",
            hint="take the model's checkpoint for transformers",
        )
    if checkpoint.adapter is not None:
        raise BadFileError(
            f"{checkpoint.name} is an adapter, and this works on whole models",
            hint="make one of it first: llmctl lora merge",
        )
    files = checkpoint.weight_files
    opened = Source.of_files(checkpoint.name, checkpoint.folder, checkpoint.config, files)
    if files[0].name != contents.SINGLE_FILE:
        _check_index(checkpoint.folder / contents.INDEX, opened.entries)
    return replace(opened, commit=checkpoint.commit)


def _check_index(index: Path, entries: Collection[str]) -> None:
    """Refuse a checkpoint whose files hold less than its index tells."""
    told = contents.read_json(index, optional=True).get("weight_map", {})
    if lacking := [name for name in told if name not in entries]:
        raise BadFileError(
            f"{index.parent} lacks {len(lacking)} tensors that {index.name} names, the first is {lacking[0]}",
            hint="download or copy the model again",
        )


def _entry(stored: StoredTensor) -> Entry:
    entry = stored.entry
    return Entry(
        name=stored.name,
        dtype=entry.dtype,
        shape=entry.shape,
        num_bytes=entry.num_bytes,
        file=stored.file,
    )


def bytes_of(stored: StoredTensor) -> Callable[[int, int], Tensor]:
    """What reads the bytes of a stored tensor from one to before another, uint8 [bytes]."""

    def read(start: int, end: int) -> Tensor:
        if start == end:
            return torch.empty(0, dtype=torch.uint8)
        own, first = stored.entry, stored.entry.start
        entry = replace(own, dtype="U8", shape=(end - start,), start=first + start, end=first + end)
        return replace(stored, entry=entry)[...]

    return read


def _of_pickles(name: str, folder: Path) -> Source:
    found = pickles.tensors(folder)
    _check_index(folder / pickles.INDEX, {each.name for each in found})
    entries = {
        each.name: Entry(
            name=each.name,
            dtype=bits.NAMES[each.tensor.dtype],
            shape=tuple(each.tensor.shape),
            num_bytes=each.tensor.numel() * each.tensor.dtype.itemsize,
            file=each.file,
        )
        for each in found
    }
    return Source(
        name=name,
        folder=folder,
        config=contents.read_json(folder / contents.CONFIG, optional=True),
        files=tuple(dict.fromkeys(each.file for each in found)),
        entries=entries,
        ties=pickles.ties(found),
        readers={each.name: each.read for each in found},
    )
