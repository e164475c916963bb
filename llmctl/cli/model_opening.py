"""From what a user said of a model to that model in memory: the one path of chat and of the worker."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmctl.cli.family import family_of, own_loader, suited
from llmctl.cli.loading_flags import LoadingFlags
from llmctl.core import log
from llmctl.core.places import Places
from llmctl.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llmctl.adapters.spec import Family
    from llmctl.artifacts.delta.find import Found
    from llmctl.core.progress import Progress
    from llmctl.engine.pooling.model import PooledModel
    from llmctl.loading.checkpoint import Checkpoint
    from llmctl.loading.hub.fetch import RemoteFile
    from llmctl.loading.loader import LoadedModel, LoadRequest
    from llmctl.loading.pooled import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Which model, and how it is to be loaded."""

    settings: Settings
    """`model` names it."""
    loading: LoadingFlags = field(default_factory=LoadingFlags)
    revision: str | None = None
    trust_remote_code: bool = False
    adapter_files: tuple[str, ...] = ()
    """Families of the user's own, TOML or Python."""
    delta: str | None = None
    """What is applied to it while it loads, a folder or hub id."""

    @property
    def model(self) -> str:
        """Its name, folder or file."""
        return self.settings.model

    def told(self, progress: "Progress") -> "Told":
        """What is known of it before it is found; a delta of the hub is downloaded for that.

        Raises what `artifacts.delta.find.find` and `family_of` raise.
        """
        if self.delta is None:
            return Told(family=family_of(self.model, self.adapter_files))
        from llmctl.artifacts.delta.find import find

        found = find(self.delta, revision=None, progress=progress)
        # The base is of another family, or of none.
        family = family_of(found.target_name, self.adapter_files, folder=found.folder)
        return Told(family=family, delta=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What files and names tell of a model."""

    family: "Family | None"
    delta: "Found | None" = None


def load_text_model(source: ModelSource, progress: "Progress") -> "tuple[LoadedModel, Family | None]":
    """A model that writes, and its family where one fits. Raises what `loading.loader.load` raises."""
    progress.stage("start torch")
    from llmctl.loading.hub.local_models import find_here
    from llmctl.loading.loader import load

    log.tame_libraries()
    was_here = find_here(source.model, os.environ) is not None
    told = source.told(progress)
    loaded = load(_request(source, told), progress)
    # A model that has just been downloaded tells more than its name did.
    if told.family is None and not was_here:
        told = source.told(progress)
    _remember(source)
    return suited(loaded, told.family), told.family


def load_pooled_model(source: ModelSource, progress: "Progress", *, task: "Task | None") -> "PooledModel":
    """A model that gives vectors or scores; `task` None is what its class is made for.

    Raises what `loading.pooled.load` raises.
    """
    progress.stage("start torch")
    from llmctl.engine.pooling.model import load_pooled

    log.tame_libraries()
    pooled = load_pooled(_request(source, source.told(progress)), progress, task=task)
    _remember(source)
    return pooled


def writes_text(source: ModelSource, progress: "Progress") -> bool:
    """Whether the model is made to write, and not to give vectors or scores; what is of the hub comes first.

    Raises what `loading.checkpoint.locate` raises.
    """
    progress.stage("start torch")
    log.tame_libraries()
    told = source.told(progress)
    if told.family is not None and told.family.generates == "none":
        return False
    request = _request(source, told)

    def look(folder: "Path", weights: "Sequence[RemoteFile]") -> None:
        _refuse_early(request, folder, weights)

    checkpoint = request.locate(progress, before_weights=look)
    return _is_writer(checkpoint.config, checkpoint.folder, request)


def _request(source: ModelSource, told: Told) -> "LoadRequest":
    from llmctl.loading.loader import LoadRequest

    family = told.family
    return LoadRequest(
        model=source.model,
        revision=source.revision,
        plan=source.loading.request(source.settings),
        formats=source.loading.formats or {},
        row=family.loading if family is not None else {},
        trust_remote_code=source.trust_remote_code,
        generates=family.generates if family is not None else None,
        own_loader=own_loader(family),
        patched=_applying(told.delta) if told.delta is not None else None,
    )


def _applying(delta: "Found") -> "Callable[[Checkpoint], Checkpoint]":
    from llmctl.artifacts.delta.patch import patched

    return lambda base: patched(base, delta)


def _remember(source: ModelSource) -> None:
    """Now it is on this machine, and the shell can offer it."""
    from llmctl.loading.hub.local_models import remember

    remember(Places.from_environ(os.environ).cache, used=source.model)


def _is_writer(config: Mapping[str, Any], folder: "Path", request: "LoadRequest") -> bool:
    from llmctl.core.errors import BadFileError
    from llmctl.loading import architecture, contents

    # Decoders are made into embedding models too, and look like any other but for this file.
    if (folder / contents.MODULES).exists():
        return False
    try:
        architecture.check(config, name=request.model, trust_remote_code=request.trust_remote_code)
    except BadFileError:
        # Whoever loads it for vectors says what is wrong with it where it is not made for them either.
        return not architecture.is_known(config)
    return True


def _refuse_early(request: "LoadRequest", folder: "Path", weights: "Sequence[RemoteFile]") -> None:
    """What cannot be run is refused before its weights come, as far as its config tells."""
    from llmctl.loading import contents, lookahead
    from llmctl.loading.loader import wishes

    is_gguf = weights[0].name.endswith(".gguf")
    if is_gguf or _is_writer(contents.read_json(folder / contents.CONFIG), folder, request):
        trust = request.trust_remote_code
        lookahead.check(folder, weights, name=request.model, wishes=wishes(request), trust_remote_code=trust)
