"""A delta applied while the weights stream in, without a target folder: `llmctl chat BASE --delta D`.

`loading` knows nothing of deltas: it is handed a checkpoint whose tensors a `loading.checkpoint.Patch` makes.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import EllipsisType

import torch
from torch import Tensor

from llmctl.artifacts.delta import manifest
from llmctl.artifacts.delta.apply_add import AddWork
from llmctl.artifacts.delta.find import Found
from llmctl.artifacts.delta.opened import Delta, not_the_base, pieces_of, wrong_base, wrong_shapes
from llmctl.artifacts.stream import bits, carry, digests
from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import BadFileError
from llmctl.loading import contents
from llmctl.loading.checkpoint import Checkpoint
from llmctl.loading.header import TensorEntry
from llmctl.loading.reading import StoredTensor, check_numbers

_ABOUT = re.compile(r"\.md$|/|^(?:LICEN[CS]E|NOTICE)", re.IGNORECASE)
"""Files that nobody reads to run a model."""
_AS_LOADING_HAS_IT: Mapping[str, torch.dtype] = {"F8_E8M0": torch.uint8}
"""Scales that its readers take as bytes."""


class DeltaPatch(ABC):
    """A delta upon a base, as `loading.checkpoint.Patch` wants it."""

    tokenizer_folder: Path
    title: str
    notices: tuple[str, ...] = ()
    entries: Mapping[str, TensorEntry]
    checkpoint: Checkpoint
    """What is loaded: configuration and tokenizer of the delta, weights of both."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """One tensor of the target. Raises `BadFileError` for another base or a damaged delta."""

    def tensors(self, on_read: Callable[[int], None]) -> dict[str, StoredTensor]:
        """What `loading.reading.stored_tensors` gives of a folder."""
        file = self.checkpoint.weight_files[0]
        return {
            name: PatchedTensor(name=name, file=file, entry=entry, on_read=on_read, patch=self)
            for name, entry in self.entries.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchedTensor(StoredTensor):
    """One tensor of the target; `patched[...]` reads it from base and delta."""

    patch: DeltaPatch

    def __getitem__(self, index: EllipsisType) -> Tensor:
        """As of a stored tensor. Raises what `DeltaPatch.read` raises too."""
        tensor = self.patch.read(self.name)
        if not self.is_packed:
            check_numbers(self.name, tensor)
        self.on_read(self.entry.num_bytes)
        return tensor


def patched(base: Checkpoint, found: Found) -> Checkpoint:
    """What the delta `found` makes of `base`, its tensors made when they are read.

    Raises `BadFileError` where names or shapes are those of another base.
    """
    patch = ExactPatch(base, found) if found.kind == "exact" else AddPatch(base, found)
    return patch.checkpoint


class ExactPatch(DeltaPatch):
    """Bit for bit."""

    def __init__(self, base: Checkpoint, found: Found) -> None:
        self._delta = Delta.open(found.folder, name=found.name)
        self._base = Source.open(base)
        self.title, self.tokenizer_folder = f"the delta {found.name}", found.folder
        told = self._delta.manifest
        if wrong := wrong_shapes(told, self._base.entries):
            raise wrong_base(told, found.name, base.name, wrong)
        self.notices = _told_of_files(self._delta)
        self.entries = {
            name: _entry(each.dtype, each.shape, each.num_bytes) for name, each in told.tensors.items()
        }
        self.checkpoint = _checkpoint(base, found, self, name=told.target_name)

    def read(self, name: str) -> Tensor:
        """See `DeltaPatch`."""
        told = self._delta.manifest.tensors[name]
        raw = torch.empty(told.num_bytes, dtype=torch.uint8)
        of_base, of_target = [], []
        for piece in pieces_of([(name, told)]):
            own = torch.empty(0, dtype=torch.uint8)
            if told.base is not None:
                own = self._base.read_bytes(name, piece.start, piece.end)
                of_base.append(digests.of_some(own))
            if piece.target_bytes:
                made = self._delta.decode(name, piece.number, own, piece.target_bytes)
                of_target.append(digests.of_piece(made))
                raw[piece.start : piece.start + piece.target_bytes] = made
        if told.base is not None and digests.of_pieces(of_base) != told.base:
            why = f"{name} differs, the first that was read"
            raise not_the_base(self._delta.manifest, self._delta.name, self._base.name, why)
        if digests.of_pieces(of_target) != told.target:
            raise self._delta.damaged(name)
        return _as_loading_has_it(raw, self.entries[name], name)


class AddPatch(DeltaPatch):
    """FastChat's sums, in float16."""

    def __init__(self, base: Checkpoint, found: Found) -> None:
        self._work = AddWork(Source.open(base), found)
        self._steps = {step.name: step for step in self._work.steps()}
        planned = {name: step.writes[0] for name, step in self._steps.items()}
        self.entries = {
            name: _entry(each.dtype, each.shape, each.num_bytes) for name, each in planned.items()
        }
        self.notices = tuple(self._work.notices)
        self.title, self.tokenizer_folder = f"the delta {found.name}", self._work.tokenizer_folder
        self.checkpoint = _checkpoint(base, found, self, name=found.target_name)

    def read(self, name: str) -> Tensor:
        """See `DeltaPatch`."""
        step = self._steps[name]
        tensors = [self._work.sources[index].read(each) for index, each in step.reads]
        made = self._work.compute(step, tensors)
        if made.facts["wrong"]:
            raise self._work.another_base(name)
        return made.tensors[0]


def _told_of_files(delta: Delta) -> tuple[str, ...]:
    """A word about files that are not as they were made.

    Raises `BadFileError` over a config, tokenizer or template: right weights would answer wrongly with it.
    """
    told = set(delta.manifest.carried)
    here = {each.name for each in carry.carried(delta.folder)} & told
    other = (told - here) | set(manifest.other_files(delta.manifest, delta.folder, sorted(here)))
    if wrong := [name for name in other if not _ABOUT.search(name)]:
        raise BadFileError(
            f"the delta {delta.name} is not as it was made: {contents.shown(wrong)} is changed or missing",
            hint="download or copy the delta again; llmctl delta apply takes its files as they are",
        )
    return (f"{contents.shown(other)} is changed or missing",) if other else ()


def _entry(dtype: str, shape: tuple[int, ...], num_bytes: int) -> TensorEntry:
    return TensorEntry(dtype=dtype, shape=shape, start=0, end=num_bytes)


def _checkpoint(base: Checkpoint, found: Found, patch: DeltaPatch, *, name: str) -> Checkpoint:
    bytes_by_dtype: Counter[str] = Counter()
    for entry in patch.entries.values():
        bytes_by_dtype[entry.dtype] += entry.num_bytes
    folder = found.folder
    has_config = (folder / contents.CONFIG).is_file()
    return replace(
        base,
        name=name,
        folder=folder if has_config else base.folder,
        config=contents.read_json(folder / contents.CONFIG) if has_config else base.config,
        generation_config=contents.read_json(folder / "generation_config.json", optional=True),
        num_bytes=bytes_by_dtype.total(),
        bytes_by_dtype=dict(bytes_by_dtype),
        num_parameters=sum(entry.num_elements for entry in patch.entries.values()),
        patch=patch,
    )


def _as_loading_has_it(raw: Tensor, entry: TensorEntry, name: str) -> Tensor:
    if entry.dtype == "F4":
        return raw.view(*entry.shape[:-1], -1)
    dtype = _AS_LOADING_HAS_IT.get(entry.dtype) or bits.torch_type(entry.dtype, of=name)
    return bits.as_tensor(raw, dtype, entry.shape)
