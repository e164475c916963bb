"""Makes an exact delta: what turns one checkpoint into another, bit for bit, in as few bytes as come easily.

Both are read once, piece by piece, on all cores; memory does not grow with the tensors.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from llmctl.artifacts.delta import coding, manifest
from llmctl.artifacts.delta.manifest import Coded, Fate, Manifest, TargetFile, Told
from llmctl.artifacts.delta.pairs import Excluded, Pair, pairs_of
from llmctl.artifacts.delta.results import Result, Wish
from llmctl.artifacts.stream import carry, digests
from llmctl.artifacts.stream.job import Job, check_target, key_of
from llmctl.artifacts.stream.pool import ordered
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.writer import RawFile, framed, grouped, shard_names
from llmctl.core.progress import Progress
from llmctl.loading import contents, memory


def make(base: Source, target: Source, wish: Wish, progress: Progress, *, is_dry: bool = False) -> Result:
    """Write the delta from `base` to `target` as a folder.

    Raises `UsageError` (a place that cannot be written to, a pattern), `DoesNotFitError`, `AccessError`,
    `BadFileError` (weights that end early).
    """
    started = time.monotonic()
    excluded = Excluded(wish.exclude, target.names)
    pairs, left_out = pairs_of(base, target, excluded)
    files = carry.carried(target.folder, without=(manifest.FILE,))
    notices = (*excluded.notices, *_notices(target, [file.name for file in files], pairs, left_out))
    about = _About(base=base, target=target, wish=wish, left_out=left_out, carried=[f.name for f in files])
    check_target(wish.out, overwrite=wish.overwrite, sources=(base, target))
    if is_dry:
        fates: dict[str, int] = dict(Counter(pair.fate for pair in pairs))
        return _result(about, fates, None, notices, None)
    options = {"exclude": wish.exclude, "max_shard_bytes": wish.max_shard_bytes}
    # Room for a delta that compresses to nothing is not asked for: the disk says when it is full.
    job = Job(
        wish.out,
        key=key_of("delta make exact", options, (base, target)),
        sources=(base, target),
        num_bytes=sum(file.num_bytes for file in files),
        progress=progress,
        overwrite=wish.overwrite,
    )
    with job, memory.frugal():
        told = _write(about, pairs, job)
        job.carry(files)
        made = _manifest(about, told, digests.of_files(job.folder, about.carried))
        job.write_text(manifest.FILE, made.as_text())
        num_bytes = sum((job.folder / name).stat().st_size for name in job.finished)
        job.finish()
    return _result(about, manifest.counts(made), num_bytes, notices, time.monotonic() - started)


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    base: Source
    target: Source
    wish: Wish
    left_out: tuple[str, ...]
    carried: Sequence[str]


def _notices(
    target: Source, files: Sequence[str], pairs: Sequence[Pair], left_out: Sequence[str]
) -> tuple[str, ...]:
    found = list(carry.left_behind(target.folder, target.files))
    if pairs and all(pair.fate == "new" for pair in pairs):
        found.append(
            f"no tensor has a counterpart of its shape and type in the base: all of {target.name} is in it"
        )
    other = [pair.name for pair in pairs if pair.fate == "excluded" and pair.is_other(target)]
    if other:
        found.append(
            f"{len(other)} excluded tensors have another shape or type in {target.name}, whose config.json "
            f"the result will have: {other[0]}"
        )
    if not carry.has_tokenizer(files):
        found.append(f"{target.name} has no tokenizer, so the delta has none")
    if left_out:
        found.append(f"{len(left_out)} excluded tensors are not in the base, and left out: {left_out[0]}")
    return tuple(found)


def _write(about: _About, pairs: Sequence[Pair], job: Job) -> dict[str, Told]:
    """Write what `job` lacks; returns what became of every tensor."""
    groups = grouped(pairs, lambda pair: pair.target.num_bytes, about.wish.max_shard_bytes)
    names = shard_names(manifest.STEM, len(groups))
    job.progress.stage("make the delta", total_bytes=sum(pair.target.num_bytes for pair in pairs))
    found: dict[str, Told] = {}
    for name, group in zip(names, groups, strict=True):
        if name in job.finished:
            job.progress.advance(sum(pair.target.num_bytes for pair in group))
        else:
            with _DeltaFile(job.folder / name, group) as file:
                told = _write_group(about, group, file, job.progress)
                file.finish()
            job.finish_shard(name, told)
        for pair in group:
            fate, base, target = job.finished[name][pair.name]
            found[pair.name] = _told(pair, fate, base, target)
    return found


def _told(pair: Pair, fate: Fate, base: str | None, target: str | None) -> Told:
    rows = pair.base.shape[0] if pair.base is not None and fate == "resized" else None
    entry = pair.target
    return Told(
        dtype=entry.dtype,
        shape=entry.shape,
        num_bytes=entry.num_bytes,
        fate=fate,
        base=base,
        target=target,
        base_rows=rows,
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    pair: Pair
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Done:
    pair: Pair
    base: bytes
    target: bytes
    coded: bytes
    num_bytes: int


def _write_group(
    about: _About, group: Sequence[Pair], file: "_DeltaFile", progress: Progress
) -> dict[str, tuple[Fate, str | None, str]]:
    """Code the tensors of one file; returns what became of each, with the digests of base and target."""

    def work(piece: _Piece) -> _Done:
        return _code(about, piece)

    by_name: dict[str, tuple[list[bytes], list[bytes]]] = {pair.name: ([], []) for pair in group}
    for done in ordered(work, _pieces(group)):
        by_name[done.pair.name][0].append(done.base)
        by_name[done.pair.name][1].append(done.target)
        file.add(done.pair.name, done.coded)
        progress.advance(done.num_bytes)
    told: dict[str, tuple[Fate, str | None, str]] = {}
    for pair in group:
        base, target = map(digests.of_pieces, by_name[pair.name])
        is_same = pair.fate == "changed" and base == target
        told[pair.name] = ("same" if is_same else pair.fate, base if pair.base is not None else None, target)
    return told


def _pieces(group: Sequence[Pair]) -> Iterator[_Piece]:
    """Those of base and target, whichever is longer."""
    for pair in group:
        longest = max(pair.target.num_bytes, pair.base.num_bytes if pair.base is not None else 0)
        for start, end in digests.pieces(longest):
            yield _Piece(pair, start, end)


def _code(about: _About, piece: _Piece) -> _Done:
    pair = piece.pair
    base = _read(about.base if pair.base is not None else None, piece)
    if pair.fate == "excluded":
        digest = digests.of_some(base)
        return _Done(pair, digest, digest, b"", base.numel())
    target = _read(about.target, piece)
    own = base[: target.numel()]
    coded = coding.encode(target, own, pair.width) if target.numel() else b""
    return _Done(pair, digests.of_some(base), digests.of_some(target), coded, target.numel())


def _read(source: Source | None, piece: _Piece) -> Tensor:
    if source is None:
        return Tensor().byte()
    return source.read_bytes(piece.pair.name, piece.start, piece.end)


class _DeltaFile(RawFile):
    """A file whose sizes are known when it is done: room for its header is left free."""

    def __init__(self, path: Path, group: Sequence[Pair]) -> None:
        super().__init__(path)
        counts = {p.name: sum(1 for _ in digests.pieces(p.target.num_bytes)) for p in group}
        self._widths = {pair.name: pair.width for pair in group}
        self._sizes: dict[str, list[int]] = {pair.name: [] for pair in group}
        self._counts = counts
        longest = [(p.name, p.width, counts[p.name]) for p in group]
        self._header_bytes = len(framed(b"", manifest.longest_header(longest, coding.MAX_CODED_BYTES) + 8))
        self._end = self._header_bytes

    def add(self, name: str, coded: bytes) -> None:
        """The next piece of the tensor."""
        if len(self._sizes[name]) < self._counts[name]:
            self._sizes[name].append(len(coded))
        self.write_at(self._end, coded)
        self._end += len(coded)

    def finish(self) -> None:
        """Write the header; tensors of which nothing is stored do not stand in it."""
        coded = [
            Coded(name=name, width=self._widths[name], sizes=tuple(sizes))
            for name, sizes in self._sizes.items()
            if any(sizes)
        ]
        self.write_at(0, framed(manifest.shard_header(coded), self._header_bytes))


def _manifest(about: _About, told: Mapping[str, Told], carried: Mapping[str, str]) -> Manifest:
    base, target = about.base, about.target
    bases = {name: each.base for name, each in told.items() if each.base is not None}
    is_whole = not about.left_out and all(
        (each.dtype, each.shape) == (target.entries[name].dtype, target.entries[name].shape)
        for name, each in told.items()
    )
    return Manifest(
        kind="exact",
        base_name=manifest.name_of(base),
        base_digest=digests.of_checkpoint(bases),
        base_commit=base.commit,
        target_name=manifest.name_of(target),
        target_commit=target.commit,
        tensors=told,
        removed=tuple(name for name in base.names if name not in target.entries),
        left_out=about.left_out,
        files=_target_files(target) if is_whole else (),
        carried=carried,
        exclude=about.wish.exclude,
    )


def _target_files(target: Source) -> tuple[TargetFile, ...]:
    found = []
    for path in target.files:
        if not manifest.is_plain(path.name):
            return ()
        with path.open("rb") as file:
            prefix = file.read(8)
            header = prefix + file.read(int.from_bytes(prefix, "little"))
        found.append(TargetFile(name=path.name, header=header))
    index = target.folder / contents.INDEX
    if index.is_file() and target.files[0].name != contents.SINGLE_FILE:
        found.append(TargetFile(name=index.name, header=index.read_bytes()))
    return tuple(found)


def _result(
    about: _About,
    fates: Mapping[str, int],
    num_bytes: int | None,
    notices: tuple[str, ...],
    seconds: float | None,
) -> Result:
    return Result(
        out=about.wish.out,
        kind="exact",
        base=about.base.name,
        target=about.target.name,
        fates=fates,
        target_bytes=about.target.num_bytes,
        delta_bytes=num_bytes,
        carried=tuple(about.carried),
        notices=notices,
        seconds=seconds,
    )
