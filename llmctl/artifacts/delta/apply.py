"""Applies an exact delta: the target comes back bit for bit, its files to the last byte.

Each base tensor that is read is checked against the digest that the delta names, each result against its own.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llmctl.artifacts.delta import manifest
from llmctl.artifacts.delta.opened import Delta, Piece, pieces_of, wrong_base, wrong_shapes
from llmctl.artifacts.delta.outputs import OutFile, indexes, out_files
from llmctl.artifacts.stream import carry, digests
from llmctl.artifacts.stream.carry import Carried
from llmctl.artifacts.stream.job import Job, check_target, key_of
from llmctl.artifacts.stream.pool import ordered
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.writer import RawFile
from llmctl.core.errors import BadFileError
from llmctl.core.progress import Progress
from llmctl.loading import contents, memory
from llmctl.loading.header import TensorEntry, read_header


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for."""

    out: Path
    max_shard_bytes: int | None = None
    """None: the files that the target had."""
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A target that was made, or (`seconds` is None) would be."""

    out: Path
    kind: manifest.Kind
    base: str
    delta: str
    files: tuple[str, ...]
    """Its weights."""
    num_tensors: int
    num_bytes: int
    carried: tuple[str, ...]
    notices: tuple[str, ...]
    seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "out": str(self.out),
            "format": self.kind,
            "base": self.base,
            "delta": self.delta,
            "files": list(self.files),
            "tensors": self.num_tensors,
            "bytes": self.num_bytes,
            "carried": list(self.carried),
            "notices": list(self.notices),
            "seconds": round(self.seconds, 1) if self.seconds is not None else None,
        }


def apply(base: Source, delta: Delta, wish: Wish, progress: Progress, *, is_dry: bool = False) -> Result:
    """Write the target of `delta` as a folder.

    Raises `BadFileError` for a base that is another one, naming tensors that differ, and for a damaged delta;
    `UsageError`, `DoesNotFitError`, `AccessError` for the place.
    """
    started = time.monotonic()
    if wrong := wrong_shapes(delta.manifest, base.entries):
        raise wrong_base(delta.manifest, delta.name, base.name, wrong)
    files, notices = _carried(delta)
    outs = out_files(delta, wish.max_shard_bytes)
    result = Result(
        out=wish.out,
        kind="exact",
        base=base.name,
        delta=delta.name,
        files=tuple(out.name for out in outs),
        num_tensors=len(delta.manifest.tensors),
        num_bytes=sum(told.num_bytes for told in delta.manifest.tensors.values()),
        carried=tuple(file.name for file in files),
        notices=notices,
    )
    check_target(wish.out, overwrite=wish.overwrite, sources=(base, delta))
    if is_dry:
        return result
    options = {"digests": digests.of_checkpoint(_targets(delta)), "max_shard_bytes": wish.max_shard_bytes}
    job = Job(
        wish.out,
        key=key_of("delta apply exact", options, (base, delta)),
        sources=(base, delta),
        num_bytes=sum(out.num_bytes for out in outs) + sum(file.num_bytes for file in files),
        progress=progress,
        overwrite=wish.overwrite,
    )
    with job, memory.frugal():
        _Applying(base, delta, job).write(outs)
        for name, data in indexes(delta, outs).items():
            job.write_bytes(name, data)
        job.carry(files)
        job.finish()
    return replace(result, seconds=time.monotonic() - started)


def _targets(delta: Delta) -> dict[str, str]:
    return {name: told.target or "" for name, told in delta.manifest.tensors.items()}


def _carried(delta: Delta) -> tuple[list[Carried], tuple[str, ...]]:
    """The files that go along, and what is to be said of those that do not."""
    told = delta.manifest.carried
    found = [each for each in carry.carried(delta.folder) if each.name in told]
    notices = []
    if missing := set(told) - {each.name for each in found}:
        notices.append(f"the delta {delta.name} lacks {contents.shown(missing)}, which its target had")
    # Somebody may have written a better README.
    if other := manifest.other_files(delta.manifest, delta.folder, [each.name for each in found]):
        notices.append(f"{contents.shown(other)} of the delta {delta.name} is not what its target had")
    if not carry.has_tokenizer([each.name for each in found]):
        notices.append(f"the delta {delta.name} has no tokenizer, so the result has none")
    return found, tuple(notices)


class _Applying:
    """The weights of one target on their way."""

    def __init__(self, base: Source, delta: Delta, job: Job) -> None:
        self._base, self._delta, self._job = base, delta, job
        self._wrong: list[str] = []
        """Tensors of the base that are others than the delta was made from: then nothing more is written."""

    def write(self, outs: Sequence[OutFile]) -> None:
        """Write the files that are not there yet. Raises `BadFileError`."""
        self._job.progress.stage("apply the delta", total_bytes=sum(out.num_bytes for out in outs))
        for out in outs:
            if out.name in self._job.finished:
                self._job.progress.advance(out.num_bytes)
                continue
            path = self._job.folder / out.name
            with RawFile(path) as file:
                file.write_at(0, out.header)
                file.resize(out.num_bytes)
                self._fill(out, self._places(out, path), file)
            if not self._wrong:
                self._job.finish_shard(out.name, {})
        if self._wrong:
            raise wrong_base(self._delta.manifest, self._delta.name, self._base.name, self._wrong)

    def _places(self, out: OutFile, path: Path) -> Mapping[str, TensorEntry]:
        """Where the tensors stand, as the header tells that the delta has. Raises `BadFileError`."""
        try:
            places = read_header(path)
        except BadFileError as error:
            raise self._delta.damaged(out.name, "its header is not that of safetensors") from error
        sizes = self._delta.manifest.tensors
        if any(sizes[name].num_bytes != place.num_bytes for name, place in places.items()):
            raise self._delta.damaged(out.name, "its header tells of other sizes")
        return places

    def _fill(self, out: OutFile, entries: Mapping[str, TensorEntry], file: RawFile) -> None:
        def work(piece: Piece) -> tuple[Piece, bytes, bytes]:
            return (piece, *self._piece(piece, entries, file))

        names = [(name, self._delta.manifest.tensors[name]) for name in out.tensors]
        found: dict[str, tuple[list[bytes], list[bytes]]] = {name: ([], []) for name in out.tensors}
        for piece, base, target in ordered(work, pieces_of(names)):
            found[piece.name][0].append(base)
            found[piece.name][1].append(target)
            self._job.progress.advance(piece.target_bytes)
            if piece.is_last:
                self._check(piece, *found.pop(piece.name))

    def _piece(self, piece: Piece, entries: Mapping[str, TensorEntry], file: RawFile) -> tuple[bytes, bytes]:
        """Write one piece; returns its digests, in the base and in the target."""
        base = torch.empty(0, dtype=torch.uint8)
        if piece.told.base is not None:
            base = self._base.read_bytes(piece.name, piece.start, piece.end)
        of_base = digests.of_some(base)
        num_bytes = piece.target_bytes
        if self._wrong or not num_bytes:
            return of_base, b""
        target = self._delta.decode(piece.name, piece.number, base, num_bytes)
        file.write_at(entries[piece.name].start + piece.start, target)
        return of_base, of_base if target is base else digests.of_some(target)

    def _check(self, piece: Piece, base: list[bytes], target: list[bytes]) -> None:
        told = piece.told
        if told.base is not None and digests.of_pieces(base) != told.base:
            self._wrong.append(piece.name)
        elif not self._wrong and digests.of_pieces(target) != told.target:
            raise self._delta.damaged(piece.name)
