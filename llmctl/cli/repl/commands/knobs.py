"""Commands that change how answers are made: system, model, template, set."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmctl.cli.chat.opening import LocalOpener, Opener
from llmctl.cli.repl.view import show_plain
from llmctl.core import sampling, settings
from llmctl.core.errors import UsageError
from llmctl.core.settings import Settings
from llmctl.core.types import Message
from llmctl.prompts import template as templates

if TYPE_CHECKING:
    from llmctl.cli.repl.repl import Repl

RESET = "default"
_ASSIGNMENT = re.compile(r"([^\s=]*)(?:\s*=\s*|\s+|$)(.*)", re.DOTALL)
_OWN = ("context", "timeout", "thinking", "reasoning", "overflow")
_LOOK = {"style": ("rich", "simple"), "footer": ("on", "off")}


async def system(repl: "Repl", argument: str) -> None:
    """Show or set the system message."""
    if not argument:
        show_plain(repl.console, repl.conversation.system or "(no system message)")
        return
    is_quoted = len(argument) > 1 and argument[0] == argument[-1] == '"'
    text = (argument[1:-1] if is_quoted else argument) or None
    repl.conversation.set_system(text)
    repl.console.note("(the system message is set)" if text else "(no system message any more)")


async def model(repl: "Repl", argument: str) -> None:
    """Show or change the model; the conversation goes on."""
    if not argument:
        repl.console.line(repl.model_name)
        others = [name for name in models(repl) if name != repl.model_name]
        if others:
            repl.console.note("others: " + ", ".join(others))
        return
    if not await repl.switch_model(argument):
        repl.console.note(f"(stopped; the model is still {repl.model_name})")
        return
    repl.used_tokens = None if repl.conversation.turns else 0
    told = ": ".join([repl.model_name, *filter(None, [loaded_as(repl)])])
    repl.console.note(f"(the model is now {told})")


def loaded_as(repl: "Repl") -> str | None:
    """The numbers that a model in this process runs in, and where."""
    made = repl.opener.plan if isinstance(repl.opener, LocalOpener) else None
    return made.summary if made is not None else None


async def template(repl: "Repl", argument: str) -> None:
    """Show or change the chat template of a model in this process."""
    opener = repl.opener
    if not argument:
        present = opener.opening.template
        show_plain(repl.console, f"{present.source}\n{present.text}" if present else "(the model's own)")
        return
    chosen = None if argument == RESET else templates.read(argument)
    _try_template(opener, chosen)
    opener.reconfigure(replace(opener.opening, template=chosen))
    repl.console.note("(the template is the model's own)" if argument == RESET else f"(template: {argument})")


def _try_template(opener: Opener, chosen: "templates.ChatTemplate | None") -> None:
    """A template that fails is refused now, not at the next question."""
    if isinstance(opener, LocalOpener) and opener.backend is not None:
        before = opener.opening
        try:
            opener.reconfigure(replace(before, template=chosen))
            opener.backend.prompt((Message(role="user", content="hello"),))
        finally:
            opener.reconfigure(before)


async def set_knob(repl: "Repl", argument: str) -> None:
    """List the knobs, show one, or turn one."""
    words = [word for word in _ASSIGNMENT.fullmatch(argument.strip()).groups() if word]  # type: ignore[union-attr]
    knobs = knobs_of(repl)
    if not words:
        rows = [[key, knob.value(), knob.limits] for key, knob in knobs.items()]
        repl.console.table(["KEY", "VALUE", "RANGE"], rows)
        return
    key = sampling.ALIASES.get(words[0].replace("-", "_"), words[0].replace("-", "_"))
    if key not in knobs:
        raise sampling.unknown_key(words[0], tuple(knobs))
    if len(words) == 2:
        knobs[key].turn(None if words[1] == RESET else words[1])
    repl.console.note(f"({key} = {knobs[key].value()})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """Something that /set changes."""

    limits: str
    value: Callable[[], str]
    turn: Callable[[str | None], None]
    """Takes the text of the new value, None for the default. Raises `UsageError` out of range."""


def knobs_of(repl: "Repl") -> dict[str, Knob]:
    """All knobs by key, in the order in which they are listed."""
    found = {key: _sampling_knob(repl, key) for key in sampling_keys()}
    for key in _OWN:
        found[key] = _settings_knob(repl, key)
    for key, choices in _LOOK.items():
        found[key] = _look_knob(repl, key, choices)
    return found


def sampling_keys() -> tuple[str, ...]:
    """The sampling parameters that mean something in a chat."""
    return tuple(key for key in sampling.KEYS if key != "logprobs")


def sampling_value(key: str, text: str) -> dict[str, Any]:
    """One checked sampling parameter from text. Raises `UsageError`."""
    name = sampling.ALIASES.get(key.replace("-", "_"), key.replace("-", "_"))
    if name not in sampling_keys():
        raise sampling.unknown_key(key, sampling_keys())
    checked = Settings().with_flags({name: settings.from_text(name, text)}, names={name: key})
    return {name: checked.sampling[name]}


def choices(repl: "Repl", argument: str) -> Iterable[tuple[str, str]]:
    """For Tab: keys, then the values of those that have a list."""
    key, gap, _ = argument.partition(" ")
    if not gap:
        return [(name, knob.limits) for name, knob in knobs_of(repl).items()]
    values = {**settings.CHOICES, **_LOOK}.get(key, ())
    return [(value, "") for value in (*values, RESET)]


def models(repl: "Repl") -> Iterator[str]:
    """For Tab and /model: what the server offers, or what lies on this machine."""
    backend = repl.opener.backend
    offered = getattr(backend, "models", None)
    if offered is not None:
        yield from offered
    elif isinstance(repl.opener, LocalOpener):
        from llmctl.loading.hub.local_models import local_models

        yield from local_models(os.environ)


def _sampling_knob(repl: "Repl", key: str) -> Knob:
    def value() -> str:
        backend, chosen = repl.opener.backend, repl.settings.sampling
        if key in chosen:
            return _text(chosen[key])
        if repl.settings.url is not None:
            return "server's"
        return _text(getattr(backend.info.default_sampling, key)) if backend is not None else "-"

    def turn(text: str | None) -> None:
        _change(repl, key, text)

    limits = sampling.RANGES.get(key)
    lists = {"stop": "text", "stop_token_ids": "token ids, with commas"}
    return Knob(limits=str(limits) if limits else lists[key], value=value, turn=turn)


def _settings_knob(repl: "Repl", key: str) -> Knob:
    def value() -> str:
        return _text(getattr(repl.settings, key))

    def turn(text: str | None) -> None:
        _change(repl, key, text)
        repl.look.reasoning = repl.settings.reasoning

    limits = settings.RANGES.get(key)
    return Knob(limits=str(limits) if limits else "|".join(settings.CHOICES[key]), value=value, turn=turn)


def _look_knob(repl: "Repl", key: str, values: tuple[str, ...]) -> Knob:
    def value() -> str:
        return repl.look.style if key == "style" else ("on" if repl.look.has_footer else "off")

    def turn(text: str | None) -> None:
        text = text or values[0]
        if text not in values:
            raise UsageError(f"{key} must be one of {', '.join(values)}, not {text!r}")
        if key == "style":
            repl.look.style = text
        else:
            repl.look.has_footer = text == "on"

    return Knob(limits="|".join(values), value=value, turn=turn)


def _change(repl: "Repl", key: str, text: str | None) -> None:
    opener = repl.opener
    if text is None:
        changed = repl.settings.without(key)
    else:
        value = settings.from_text(
            key, text.replace("\\n", "\n").replace("\\t", "\t") if key == "stop" else text
        )
        changed = repl.settings.with_flags({key: value}, names={key: "/set"})
    opener.reconfigure(replace(opener.opening, settings=changed))


def _text(value: Any) -> str:
    if value is None or value == ():
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
