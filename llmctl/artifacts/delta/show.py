"""What a delta is, from its manifest and the sizes of its files; nothing is read of its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmctl.artifacts.delta import manifest
from llmctl.artifacts.delta.apply_add import open_add
from llmctl.artifacts.delta.find import Found
from llmctl.artifacts.delta.opened import Delta
from llmctl.artifacts.stream import carry


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The facts."""

    name: str
    kind: manifest.Kind
    is_told: bool
    """Whether it says so itself; a published one is taken for an add delta by its looks."""
    base: str | None
    base_commit: str | None
    base_digest: str | None
    target: str | None
    tensors: Mapping[str, int]
    """How many of each fate."""
    removed: tuple[str, ...]
    """Tensors of the base that the target has not."""
    target_bytes: int
    delta_bytes: int
    largest: Mapping[str, int]
    """The tensors that take most of it, in bytes."""
    files: tuple[str, ...]
    """What comes with it and is no weight."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "format": self.kind,
            "is_told": self.is_told,
            "base": self.base,
            "base_commit": self.base_commit,
            "base_digest": self.base_digest,
            "target": self.target,
            "tensors": dict(self.tensors),
            "removed": list(self.removed),
            "target_bytes": self.target_bytes,
            "delta_bytes": self.delta_bytes,
            "largest": dict(self.largest),
            "files": list(self.files),
        }


_NUM_LARGEST = 5


def show(found: Found) -> Shown:
    """The facts of a delta. Raises `BadFileError` for one that is not whole."""
    told = manifest.read(found.folder) if found.is_told else None
    if found.kind == "exact":
        delta = Delta.open(found.folder, name=found.name)
        sizes = {name: stored.coded.num_bytes for name, stored in delta.stored.items()}
        num_bytes = delta.num_bytes
    else:
        source = open_add(found)
        sizes = {name: entry.num_bytes for name, entry in source.entries.items()}
        num_bytes = sum(path.stat().st_size for path in source.files)
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_NUM_LARGEST]
    files = carry.carried(found.folder, without=(manifest.FILE,))
    return Shown(
        name=found.name,
        kind=found.kind,
        is_told=found.is_told,
        base=told.base_name if told else None,
        base_commit=told.base_commit if told else None,
        base_digest=told.base_digest if told else None,
        target=told.target_name if told else None,
        tensors=manifest.counts(told) if told else {"changed": len(sizes)},
        removed=told.removed if told else (),
        target_bytes=sum(each.num_bytes for each in told.tensors.values()) if told else sum(sizes.values()),
        delta_bytes=num_bytes,
        largest=dict(largest),
        files=tuple(file.name for file in files),
    )
