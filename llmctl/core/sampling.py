"""Reads sampling parameters from outside (flags, settings, JSON) and holds the range of each in one table.

What only makes sense for one request (`REQUEST_KEYS`) is taken from JSON; flags and settings know `KEYS`.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from llmctl.core.errors import UsageError
from llmctl.core.types import SamplingParams

ALIASES = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a number may be."""

    kind: type[int] | type[float]
    low: float
    high: float = math.inf
    open_low: bool = False
    """Whether `low` itself is excluded."""

    def __str__(self) -> str:
        high = "" if math.isinf(self.high) else f" and at most {self.high}"
        return f"{'more than' if self.open_low else 'at least'} {self.low:g}{high}"

    def holds(self, value: float) -> bool:
        """Whether `value` is inside."""
        above = value > self.low if self.open_low else value >= self.low
        # Not math.isfinite: a whole number may be too large for a float.
        return above and value <= self.high and value != math.inf


RANGES: dict[str, Range] = {
    "temperature": Range(kind=float, low=0, high=100),
    "top_p": Range(kind=float, low=0, high=1, open_low=True),
    "top_k": Range(kind=int, low=0),
    "min_p": Range(kind=float, low=0, high=1),
    "repetition_penalty": Range(kind=float, low=0.01, high=10),
    "presence_penalty": Range(kind=float, low=-2, high=2),
    "frequency_penalty": Range(kind=float, low=-2, high=2),
    "seed": Range(kind=int, low=0, high=2**63 - 1),
    "max_new_tokens": Range(kind=int, low=1),
    "logprobs": Range(kind=int, low=0, high=20),
}
REQUEST_RANGES: dict[str, Range] = {
    "n": Range(kind=int, low=1, high=128),
    "prompt_logprobs": Range(kind=int, low=0, high=20),
    "min_tokens": Range(kind=int, low=0),
}
REQUEST_KEYS: tuple[str, ...] = (
    *REQUEST_RANGES,
    "logit_bias",
    "bad_words",
    "ignore_eos",
    "allowed_token_ids",
)
"""Parameters of a single request: no flag and no setting is named so."""
ALL_KEYS: tuple[str, ...] = tuple(field.name for field in fields(SamplingParams) if field.name != "given")
KEYS: tuple[str, ...] = tuple(key for key in ALL_KEYS if key not in REQUEST_KEYS)
BIAS = Range(kind=float, low=-100, high=100)


def update(base: SamplingParams, values: Mapping[str, Any]) -> SamplingParams:
    """`base` with `values` laid over it; None leaves a field as it is.

    Raises `UsageError` for a name that does not exist, a wrong type, a number outside its range, or lengths
    that exclude each other.
    """
    changes: dict[str, Any] = {}
    for name, value in values.items():
        key = ALIASES.get(name, name)
        if key not in ALL_KEYS:
            raise unknown_key(name, (*ALL_KEYS, *ALIASES))
        if value is not None:
            checked = _checked(key, value)
            if changes.setdefault(key, checked) != checked:
                raise UsageError(f"{key} is given twice, as {changes[key]!r} and as {name} {value!r}")
    updated = replace(base, given=base.given | changes.keys(), **changes)
    longest = updated.max_new_tokens
    if longest is not None and updated.min_tokens > longest:
        raise UsageError(
            f"min_tokens must be at most {longest} (max_new_tokens), not {updated.min_tokens}",
            hint="give a smaller one, or a larger max_new_tokens",
        )
    return updated


def unknown_key(name: str, known: tuple[str, ...]) -> UsageError:
    """The error for a misspelt key, with the nearest known one."""
    begun = [key for key in known if name and key.startswith(name)]
    near = begun if len(begun) == 1 else difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return UsageError(f"unknown key {name!r}", hint=hint)


def _checked(key: str, value: Any) -> Any:
    read = _READERS.get(key)
    return read(key, value) if read else number(key, value, RANGES.get(key) or REQUEST_RANGES[key])


def number(key: str, value: Any, limits: Range) -> int | float:
    """`value` as the kind of number that `key` is. Raises `UsageError` for another type or out of range."""
    if isinstance(value, float) and limits.kind is int and value.is_integer():
        value = int(value)
    accepted = (int,) if limits.kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted):
        noun = "a whole number" if limits.kind is int else "a number"
        raise UsageError(f"{key} must be {noun}, not {value!r}")
    if not limits.holds(value):
        raise UsageError(f"{key} must be {limits}, not {value!r}")
    return limits.kind(value)


def _texts(key: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
        raise UsageError(f"{key} must be a string or a list of strings that are not empty, not {value!r}")
    return tuple(texts)


def _ids(key: str, value: Any) -> tuple[int, ...]:
    is_list = isinstance(value, list | tuple)
    if not is_list or not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in value):
        raise UsageError(f"{key} must be a list of token ids (whole numbers from 0), not {value!r}")
    return tuple(value)


def _some_ids(key: str, value: Any) -> tuple[int, ...]:
    ids = _ids(key, value)
    if not ids:
        raise UsageError(f"{key} must hold at least one token id", hint="leave it out to allow all")
    return ids


def _switch(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{key} must be true or false, not {value!r}")
    return value


def _biases(key: str, value: Any) -> tuple[tuple[int, float], ...]:
    """From a mapping, or from pairs as `SamplingParams` has them."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    is_paired = isinstance(pairs, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    )
    if not is_paired:
        raise UsageError(f"{key} must map token ids to numbers, not {value!r}")
    found: dict[int, float] = {}
    for name, bias in pairs:
        token_id = _id_of(key, name)
        if token_id in found:
            raise UsageError(f"{key} has token id {token_id} twice")
        found[token_id] = number(f"{key} of token {token_id}", bias, BIAS)
    return tuple(sorted(found.items()))


def _id_of(key: str, name: Any) -> int:
    """A token id, which is text as a key in JSON."""
    # Python reads no number of thousands of digits, and nobody has such an id.
    if isinstance(name, str) and name.isascii() and name.isdigit() and len(name) < 20:
        name = int(name)
    if isinstance(name, bool) or not isinstance(name, int) or name < 0:
        raise UsageError(f"{key}: {name!r} is no token id (a whole number from 0)")
    return name


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "stop": _texts,
    "bad_words": _texts,
    "stop_token_ids": _ids,
    "allowed_token_ids": _some_ids,
    "logit_bias": _biases,
    "ignore_eos": _switch,
}
