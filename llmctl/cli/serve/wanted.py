"""Which models a worker is to serve, under which names and how: read from the flags, then loaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from llmctl.cli.family import row_template
from llmctl.cli.model_opening import ModelSource, load_pooled_model, load_text_model, writes_text
from llmctl.core.errors import NotFoundError, UsageError
from llmctl.core.places import expanded

if TYPE_CHECKING:
    from llmctl.core.progress import Progress
    from llmctl.engine.opening import EngineOptions
    from llmctl.prompts.template import ChatTemplate
    from llmctl.services.worker.hosted import Hosted
    from llmctl.services.worker.hosting import Pooled, Writer

Task = Literal["auto", "generate", "embed", "classify"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model to serve."""

    model: str
    names: tuple[str, ...] = ()
    """What clients call it, its own first; none: what it is called anyway."""
    template: "ChatTemplate | None" = None
    task: Task = "auto"
    delta: str | None = None
    """What is applied to it while it loads."""

    def answers_to(self, name: str) -> bool:
        """Whether a flag that says `name` means this one."""
        return name in (self.names or (self.model,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The flags as they were given."""

    models: Sequence[str] = ()
    """`[NAME=]MODEL`, in order."""
    names: Sequence[str] = ()
    """FastChat's `--model-names a,b`, one for each model."""
    templates: Sequence[str] = ()
    """`[NAME=]FILE|NAME`."""
    tasks: Sequence[str] = ()
    """`[NAME=]TASK`."""
    deltas: Sequence[str] = ()
    """`[NAME=]DELTA`."""


def read(asked: Asked, *, default: str) -> tuple[Wanted, ...]:
    """The models to serve, `default` where none is named; templates are read now, weights are not.

    Raises `UsageError` for what contradicts itself, and what `prompts.template.read` raises.
    """
    found = tuple(_named(text) for text in asked.models or (default,))
    if asked.names:
        found = _renamed(found, asked.names)
    _refuse_doubles(found)
    for text in asked.templates:
        found = _laid(found, text, "--template", _with_template)
    for text in asked.tasks:
        found = _laid(found, text, "--task", _with_task)
    for text in asked.deltas:
        found = _laid(found, text, "--delta", _with_delta)
    return found


def load(
    wanted: Sequence[Wanted], source: ModelSource, options: "EngineOptions", progress: "Progress"
) -> "list[Hosted]":
    """Load all and open their engines, in order; raises what the loaders raise.

    `source` holds for each, but for its model. All weights are there before memory is shared out.
    """
    loaded = [_loaded(one, source, progress) for one in wanted]
    from llmctl.services.worker.hosting import host

    progress.stage("open the engine")
    return host(loaded, options)


def _named(text: str) -> Wanted:
    """`NAME=MODEL`, `A,B=MODEL` or `MODEL`, which may be a path that has such a sign in it."""
    name, is_named, model = text.partition("=")
    if not is_named or expanded(text).exists():
        return Wanted(model=text)
    return Wanted(model=model, names=_names(name, text))


def _names(listed: str, text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in listed.split(","))
    if not all(name and name.isprintable() for name in names):
        raise UsageError(f"--model {text!r} has an empty name", hint="write NAME=MODEL")
    return tuple(dict.fromkeys(names))


def _renamed(found: tuple[Wanted, ...], listed: Sequence[str]) -> tuple[Wanted, ...]:
    if len(listed) != len(found):
        raise UsageError(
            f"--model-names is given {len(listed)} times for {len(found)} models",
            hint="write --model NAME=MODEL",
        )
    return tuple(
        replace(one, names=_names(names, f"{names}={one.model}"))
        for one, names in zip(found, listed, strict=True)
    )


def _refuse_doubles(found: tuple[Wanted, ...]) -> None:
    names = [name for one in found for name in one.names or (one.model,)]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two models are called {doubled[0]!r}", hint="give one another name: NAME=MODEL")


def _laid(
    found: tuple[Wanted, ...], text: str, flag: str, lay: Callable[[Wanted, str], Wanted]
) -> tuple[Wanted, ...]:
    """The models, with what `flag` says laid over the one that it names, or over the only one."""
    name, is_named, value = text.partition("=")
    if is_named and any(one.answers_to(name) for one in found):
        return tuple(lay(one, value) if one.answers_to(name) else one for one in found)
    if len(found) > 1:
        called = ", ".join(name for one in found for name in one.names or (one.model,))
        raise UsageError(
            f"{flag} {text}: there are {len(found)} models", hint=f"write {flag} NAME=…; there is {called}"
        )
    return tuple(lay(one, text) for one in found)


def _with_template(one: Wanted, value: str) -> Wanted:
    from llmctl.prompts.template import read

    return replace(one, template=read(value))


def _with_task(one: Wanted, value: str) -> Wanted:
    if value not in TASKS:
        raise UsageError(f"--task must be one of {', '.join(TASKS)}, not {value!r}")
    return replace(one, task=value)


def _with_delta(one: Wanted, value: str) -> Wanted:
    from llmctl.loading.checkpoint import is_path_like

    name, is_named, _ = value.partition("=")
    if is_named and not expanded(value).exists():
        called = (one.names or (one.model,))[0]
        raise UsageError(f"--delta {value}: no model is called {name}", hint=f"write --delta {called}=…")
    if is_path_like(value) and not expanded(value).is_dir():
        # Now: with a fleet it would be told when all else has started.
        raise NotFoundError(f"no such folder: {value}", hint="give the folder of a delta, or its hub id")
    if one.delta is not None:
        raise UsageError(f"--delta {value}: {one.model} has one already, {one.delta}", hint="give one")
    return replace(one, delta=value)


def _loaded(one: Wanted, source: ModelSource, progress: "Progress") -> "Writer | Pooled":
    settings = source.settings.with_flags({"model": one.model}, names={"model": "MODEL"})
    own = replace(source, settings=settings, delta=one.delta)
    if one.task == "generate" or (one.task == "auto" and writes_text(own, progress)):
        return _writer(one, own, progress)
    _refuse_for_pooled(one, own)
    model = load_pooled_model(own, progress, task=None if one.task == "auto" else one.task)
    from llmctl.services.worker.hosting import Pooled

    return Pooled(names=one.names or (model.loaded.name,), model=model)


def _writer(one: Wanted, source: ModelSource, progress: "Progress") -> "Writer":
    loaded, family = load_text_model(source, progress)
    from llmctl.services.worker.hosting import Writer

    return Writer(
        names=one.names or (loaded.name,),
        loaded=loaded,
        template=one.template,
        row=row_template(family),
        context_length=source.settings.context,
        sampling=source.settings.sampling,
    )


def _refuse_for_pooled(one: Wanted, source: ModelSource) -> None:
    """What is said of a model that does not write must not be passed over."""
    flags = {
        "--template": one.template is not None,
        "--context": source.settings.origins.get("context") == "--context",
    }
    for flag, is_given in flags.items():
        if is_given:
            raise UsageError(
                f"{one.model} gives vectors or scores: {flag} does nothing there", hint="leave it out"
            )
