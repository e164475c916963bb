"""Looks at every byte of a delta, and of the base and target that it is said to belong to; writes nothing."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from llmctl.artifacts.delta import manifest
from llmctl.artifacts.delta.apply_add import open_add
from llmctl.artifacts.delta.find import Found
from llmctl.artifacts.delta.manifest import Told
from llmctl.artifacts.delta.opened import Delta, Piece, pieces_of, wrong_shapes
from llmctl.artifacts.stream import carry, digests
from llmctl.artifacts.stream.pool import ordered
from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found; nothing wrong when all four are empty."""

    name: str
    kind: manifest.Kind
    damaged: tuple[str, ...]
    """Tensors of the delta whose bytes are not what they were."""
    other_files: tuple[str, ...]
    """Files that come with it, and are missing or not what they were."""
    other_base: tuple[str, ...] | None
    """Tensors of the base that are not those that the delta was made from; None where none was given."""
    other_target: tuple[str, ...] | None
    """The same of the target."""

    @property
    def is_right(self) -> bool:
        """Whether all that was looked at is as it was."""
        return not (self.damaged or self.other_files or self.other_base or self.other_target)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        listed = {"base": self.other_base, "target": self.other_target}
        return {
            "name": self.name,
            "format": self.kind,
            "is_right": self.is_right,
            "damaged": list(self.damaged),
            "other_files": list(self.other_files),
            **{f"other_{key}": None if names is None else list(names) for key, names in listed.items()},
        }


def verify(found: Found, base: Source | None, target: Source | None, progress: Progress) -> Verified:
    """Read all of a delta, and of a base and target where given.

    Raises `BadFileError` for a delta that cannot be opened at all, `UsageError` for a published one, which
    says nothing of what it should be, and for the target of an add delta, which is not kept.
    """
    if not found.is_told:
        raise UsageError(
            f"{found.name} was made by another program, and says nothing by which it could be verified",
            hint="llmctl delta show says what is known of it",
        )
    told = manifest.read(found.folder)
    if told.kind == "add" and target is not None:
        raise UsageError(
            "an add delta does not say what its target was to the bit", hint="leave --target out"
        )
    progress.stage("verify")
    other_base = None if base is None else tuple(_other_base(told, base))
    if told.kind == "exact":
        damaged = _damaged_exact(found, base, other_base or ())
    else:
        damaged = _damaged_add(found, told)
    return Verified(
        name=found.name,
        kind=told.kind,
        damaged=tuple(damaged),
        other_files=tuple(_other_files(found, told)),
        other_base=other_base,
        other_target=None if target is None else tuple(_other_target(told, target)),
    )


def _other_files(found: Found, told: manifest.Manifest) -> list[str]:
    here = [file.name for file in carry.carried(found.folder) if file.name in told.carried]
    return sorted(told.carried.keys() - set(here)) + manifest.other_files(told, found.folder, here)


def _damaged_exact(found: Found, base: Source | None, others: Collection[str]) -> list[str]:
    """Tensors whose pieces do not decode, or, where the base is the right one, decode to something else."""
    delta = Delta.open(found.folder, name=found.name)
    told = delta.manifest.tensors
    looked_at = [name for name in told if name in delta.stored]
    full = {
        name for name in looked_at if told[name].base is None or (base is not None and name not in others)
    }

    def work(piece: Piece) -> tuple[Piece, bytes | None]:
        return piece, _decoded(delta, base if piece.name in full else None, piece)

    damaged: dict[str, None] = {}
    parts: list[bytes | None] = []
    # Rows of the base behind the target's are of no interest here.
    for piece, digest in ordered(
        work, pieces_of((name, replace(told[name], base_rows=None)) for name in looked_at)
    ):
        parts.append(digest)
        if piece.is_last:
            whole = digests.of_pieces(part for part in parts if part is not None)
            if None in parts or (piece.name in full and whole != piece.told.target):
                damaged[piece.name] = None
            parts.clear()
    return list(damaged)


def _decoded(delta: Delta, base: Source | None, piece: Piece) -> bytes | None:
    """Digest of a piece of the target, of no meaning without the base; None where it does not decode."""
    count = piece.target_bytes
    stored = delta.stored[piece.name]
    if not count or (base is None and not stored.coded.sizes[piece.number]):
        return b""
    own = torch.empty(0, dtype=torch.uint8)
    if base is not None and piece.told.base is not None:
        own = base.read_bytes(piece.name, piece.start, piece.end)
    try:
        return digests.of_piece(delta.decode(piece.name, piece.number, own, count))
    except BadFileError:
        return None


def _damaged_add(found: Found, told: manifest.Manifest) -> list[str]:
    source = open_add(found)
    here = [name for name in told.tensors if name in source.entries]
    right = {name for name, digest in _digests(source, here) if digest == told.tensors[name].target}
    return [name for name in told.tensors if name not in right]


def _other_base(told: manifest.Manifest, base: Source) -> list[str]:
    wanted = {name: each.base for name, each in told.tensors.items() if each.base is not None}
    shapes = (
        set(wrong_shapes(told, base.entries)) if told.kind == "exact" else wanted.keys() - base.entries.keys()
    )
    same_shape = [name for name in wanted if name not in shapes]
    wrong = {name for name, digest in _digests(base, same_shape) if digest != wanted[name]}
    return [name for name in wanted if name in shapes or name in wrong]


def _other_target(told: manifest.Manifest, target: Source) -> list[str]:
    known = {name: each for name, each in told.tensors.items() if name in target.entries}
    alike = [name for name, each in known.items() if _is_alike(each, target, name)]
    right = {name for name, digest in _digests(target, alike) if digest == told.tensors[name].target}
    spare = [name for name in target.names if name not in told.tensors]
    return [name for name in told.tensors if name not in right] + spare


def _is_alike(told: Told, target: Source, name: str) -> bool:
    entry = target.entries[name]
    return (entry.dtype, entry.shape) == (told.dtype, told.shape)


def _digests(source: Source, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The digest of each tensor, taken piece by piece."""

    def work(piece: tuple[str, int, int, bool]) -> tuple[str, bytes, bool]:
        name, start, end, is_last = piece
        return name, digests.of_some(source.read_bytes(name, start, end)), is_last

    def pieces() -> Iterator[tuple[str, int, int, bool]]:
        for name in names:
            spans = list(digests.pieces(source.entry(name).num_bytes)) or [(0, 0)]
            for start, end in spans:
                yield name, start, end, (start, end) == spans[-1]

    found: list[bytes] = []
    for name, digest, is_last in ordered(work, pieces()):
        found.append(digest)
        if is_last:
            yield name, digests.of_pieces(found)
            found.clear()
