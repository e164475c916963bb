"""Finds a delta by the name that a user gives, a folder or a hub id, and says of which kind it is."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from llmctl.artifacts.delta import manifest
from llmctl.artifacts.stream import pickles
from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.places import expanded
from llmctl.core.progress import Progress
from llmctl.demo import MODELS
from llmctl.loading import contents
from llmctl.loading.checkpoint import is_path_like


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A folder that is a delta, or can be one."""

    name: str
    folder: Path
    kind: manifest.Kind
    is_told: bool
    """Whether it says so itself; a published one looks like any model."""

    @property
    def target_name(self) -> str:
        """What it makes is called: as its maker said, or else as the delta."""
        if self.is_told:
            return manifest.read(self.folder).target_name
        return self.folder.resolve().name if expanded(self.name).is_dir() else self.name


def find(name: str, *, revision: str | None, progress: Progress) -> Found:
    """The delta called `name`, downloaded if it is the hub's.

    Raises `UsageError` for no name at all, `NotFoundError`, `BadFileError` for what cannot be one, and what
    `hub.download` raises.
    """
    if not name.strip():
        raise UsageError(f"--delta {name!r} names nothing", hint="give the folder of a delta, or its hub id")
    path = expanded(name)
    # A model is none, but then that is what is to be said.
    path = path if path.is_dir() else MODELS.get(name, path)
    if path.is_dir():
        pickles.refuse_revision(name, revision)
        return _look(name, path)
    if path.exists() or is_path_like(name):
        raise NotFoundError(f"no such folder: {name}", hint="give the folder of a delta, or its hub id")
    from llmctl.loading.hub import download as hub

    return _look(name, hub.download(name, revision=revision, progress=progress, wanted=wanted_names))


def wanted_names(names: Collection[str]) -> tuple[str, ...]:
    """What of a repository a delta is, weights last; empty for what can be none."""
    seen = sorted(name for name in names if not name.startswith(".") and "/." not in name)
    if manifest.FILE in seen:
        return tuple(sorted(seen, key=lambda name: name.endswith(".safetensors")))
    root = [name for name in seen if "/" not in name]
    if contents.ADAPTER_CONFIG in root:
        return ()
    weights = contents.weight_names(root) or pickles.weight_names(root)
    return (*contents.small_names(root), *weights) if weights else ()


def _look(name: str, folder: Path) -> Found:
    if manifest.is_delta(folder):
        return Found(name=name, folder=folder, kind=manifest.read(folder).kind, is_told=True)
    names = [path.name for path in folder.iterdir()]
    if contents.ADAPTER_CONFIG in names and not contents.weight_names(names):
        raise BadFileError(f"{name} is an adapter, not a delta", hint="llmctl lora merge takes it")
    if not wanted_names(names):
        raise BadFileError(
            f"{name} is no delta: no {manifest.FILE}, and no weights that could be added",
            hint="llmctl delta make writes one",
        )
    return Found(name=name, folder=folder, kind="add", is_told=False)
