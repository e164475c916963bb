"""Which way a model runs, and why: packed rows (A), states in slots (B), one sequence at a time (C).

The log says it when it is not A. What is found out about a class is in `selfcheck`.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmctl.core.errors import BadFileError
from llmctl.engine.checking import selfcheck
from llmctl.engine.execution import layout
from llmctl.engine.execution.drive import UndrivableError
from llmctl.engine.execution.layout import Layout, Letter
from llmctl.engine.generate.stepper import is_of_transformers

log = logging.getLogger(__name__)

_TITLES: Mapping[Letter, str] = {
    "A": "all sequences at once, packed",
    "B": "all sequences at once, recurrent states in slots",
    "C": "one sequence at a time",
}
_OWN_CODE = "its code comes from the model's repository"
# Their frequencies depend on the longest position of whatever is computed together.
_LONG_ROPES = ("longrope", "dynamic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """How the engine runs a model."""

    letter: Letter
    reason: str
    """In a clause, for people."""
    in_pieces: bool
    """Prompts may be cut in pieces, and begin with what a prefix cache holds."""
    layout: Layout
    """What it keeps, for `storage.allocate` and `layout.handler`."""

    @property
    def has_prefixes(self) -> bool:
        """Whether sequences can share the blocks of a prefix: recurrent states cannot be cut at one."""
        return self.letter == "A"

    @property
    def max_running(self) -> int | None:
        """Sequences at a time; None: as many as memory takes."""
        return 1 if self.letter == "C" else None

    def __str__(self) -> str:
        return f"{_TITLES[self.letter]} (tier {self.letter}): {self.reason}"


def choose(model: Any, *, context_length: int | None = None) -> Tier:
    """The tier of a loaded model that will see no more than `context_length` tokens of a sequence.

    Raises `BadFileError` where none is right.
    """
    tier = _found(model, context_length)
    log.log(logging.WARNING if tier.letter == "C" else logging.INFO, "%s: %s", type(model).__name__, tier)
    return tier


def _found(model: Any, context_length: int | None) -> Tier:
    if not is_of_transformers(model):
        return _one_at_a_time(_OWN_CODE)
    if len(places := set(getattr(model, "hf_device_map", {}).values())) > 1:
        return _one_at_a_time(f"it is spread over {', '.join(sorted(map(str, places)))}")
    if getattr(model.config, "is_encoder_decoder", False):
        return _one_at_a_time("it has an encoder")
    if (reason := long_rope(model.config, context_length)) is not None:
        return _one_at_a_time(reason)
    verdict = _verdict(model.config)
    try:
        kept = layout.layout(model, verdict.letter)
    except UndrivableError as error:
        return _one_at_a_time(str(error))
    return Tier(letter=verdict.letter, reason=verdict.reason, in_pieces=verdict.in_pieces, layout=kept)


def _verdict(config: Any) -> selfcheck.Verdict:
    """Raises `BadFileError` for a class that answers wrongly whichever way it is run."""
    verdict = selfcheck.check(config)
    if not verdict.is_right:
        name = type(config).__name__.removesuffix("Config")
        raise BadFileError(
            f"a model of the class {name} would answer wrongly: {verdict.reason}",
            hint="llmctl has no way to run this class; take another model",
        )
    return verdict


def _one_at_a_time(reason: str) -> Tier:
    return Tier(letter="C", reason=reason, in_pieces=False, layout=Layout(letter="C"))


def long_rope(config: Any, context_length: int | None) -> str | None:
    """Why sequences so long (None: the model's own limit) cannot be computed together; None if they can."""
    text = config.get_text_config(decoder=True)
    for rope in _ropes(getattr(text, "rope_parameters", None)):
        kind = rope.get("rope_type")
        limit = rope.get("original_max_position_embeddings") or getattr(text, "max_position_embeddings", None)
        longest = context_length or getattr(text, "max_position_embeddings", None)
        if kind in _LONG_ROPES and limit and longest and longest > limit:
            return (
                f"its rotary positions ({kind}) change for all tokens at once beyond {limit}; "
                f"a context of {limit} would run packed"
            )
    return None


def _ropes(parameters: Any) -> Iterator[Mapping[str, Any]]:
    """One set for the model, or one for each kind of layer."""
    if not isinstance(parameters, Mapping):
        return
    nested = [each for each in parameters.values() if isinstance(each, Mapping)]
    yield from nested or [parameters]


def describe(
    config: Any, *, context_length: int | None = None, has_own_code: bool = False
) -> list[tuple[str, str]]:
    """Rows of (what, value) on how the engine would run a model with the loaded `config`, without weights.

    `has_own_code` says that its code would come from its repository.
    """
    if has_own_code:
        return _first_rows("C", _OWN_CODE)
    verdict = _verdict(config)
    letter, reason = verdict.letter, verdict.reason
    if config.is_encoder_decoder:
        letter, reason = "C", "it has an encoder"
    elif (told := long_rope(config, context_length)) is not None:
        letter, reason = "C", told
    rows = _first_rows(letter, reason)
    if letter == "C":
        return rows
    is_whole = not verdict.in_pieces
    rows.append(("prompts", "in one step each" if is_whole else "in pieces beside sequences that decode"))
    rows.append(("prefix cache", "yes" if letter == "A" else "no: states cannot be cut at a block"))
    rows.append(("layers", ", ".join(_counted(config))))
    if not any(each.keeps_blocks for each in layout.layer_policies(config)):
        rows.append(("attention", "none of its layers attends"))
    return rows


def _first_rows(letter: Letter, reason: str) -> list[tuple[str, str]]:
    return [("tier", f"{letter}, {_TITLES[letter]}"), ("because", reason)]


def _counted(config: Any) -> Iterator[str]:
    """How many layers remember how much."""
    named = Counter(_named(each) for each in layout.layer_policies(config))
    return (f"{count} {name}" for name, count in named.items())


def _named(each: Any) -> str:
    match each.kind:
        case "sliding":
            return f"with a window of {each.window}"
        case "chunked":
            return f"in chunks of {each.chunk}"
        case "shared":
            return "that read an earlier layer's keys"
        case "none":
            return "that keep nothing"
        case kind:
            return str(kind)
