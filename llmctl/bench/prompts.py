"""The prompts of `bench serve`: random ones of a length, or those of a file, as fields of a request."""

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llmctl.core.errors import BadFileError

Endpoint = Literal["completions", "chat"]
PATHS: dict[Endpoint, str] = {"completions": "/completions", "chat": "/chat/completions"}
_IDS = range(256, 1024)
"""Token ids that are text in every vocabulary of today: below lie bytes and special tokens."""
# Of everyday English: one token each in most vocabularies.
_WORDS = (
    "time year people way day man thing woman life child world school state family student group country "
    "problem hand part place case week company system program question work government number night point "
    "home water room mother area money story fact month lot right study book eye job word business issue "
    "side kind head house service friend father power hour game line end member law car city name team idea"
)
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Form:
    """A way to put a prompt."""

    endpoint: Endpoint
    has_ids: bool = False
    """Whether prompts are token ids, whose number is exact."""

    def __str__(self) -> str:
        kind = "token ids" if self.has_ids else "text"
        return f"{PATHS[self.endpoint]}, {kind}"


class Prompts(Protocol):
    """Gives one prompt after the other."""

    forms: tuple[Form, ...]
    """That it can take; the first that the server takes as well is used."""
    num_different: int | None
    """After so many they come again; None: never."""

    def draw(self, form: Form) -> dict[str, Any]:
        """The next prompt, as fields of a request."""
        ...

    def fit(self, num_told: int) -> bool:
        """Hear how many tokens the last prompt was; whether the next ones have another length for that."""
        ...


class RandomPrompts:
    """Prompts of `length` tokens, never the same twice, so that no prefix cache helps."""

    def __init__(self, length: int, *, endpoint: Endpoint | None = None) -> None:
        self.length = length
        forms = (Form("completions", has_ids=True), Form("completions"), Form("chat"))
        self.forms = tuple(form for form in forms if endpoint in (None, form.endpoint))
        self.num_different: int | None = None
        self._words = _WORDS.split()
        self._num_words = length
        self._has_words = False
        # Another run must not find these prompts in the cache of the server.
        self._random = random.Random()

    def draw(self, form: Form) -> dict[str, Any]:
        """See `Prompts`."""
        self._has_words = not form.has_ids
        if form.has_ids:
            return {"prompt": self._random.choices(_IDS, k=self.length)}
        return _as_fields(" ".join(self._random.choices(self._words, k=self._num_words)), form)

    def fit(self, num_told: int) -> bool:
        """See `Prompts`; words are not tokens, and templates add theirs."""
        if not self._has_words or num_told <= 0:
            return False
        before = self._num_words
        self._num_words = max(1, round(before + (self.length - num_told) * min(1.0, before / num_told)))
        return self._num_words != before


class FilePrompts:
    """The prompts of a file, in their order, and then from the first on again."""

    def __init__(self, entries: list[str | list[Any]], *, endpoint: Endpoint | None = None) -> None:
        """`entries` as `read_prompts` gives them; messages are for chat alone."""
        self.num_different: int | None = len(entries)
        has_messages = any(not isinstance(entry, str) for entry in entries)
        forms = (Form("chat"),) if has_messages else (Form("chat"), Form("completions"))
        self.forms = tuple(form for form in forms if endpoint in (None, form.endpoint))
        self._entries: Iterator[str | list[Any]] = itertools.cycle(entries)

    def draw(self, form: Form) -> dict[str, Any]:
        """See `Prompts`."""
        entry = next(self._entries)
        return _as_fields(entry, form) if isinstance(entry, str) else {"messages": entry}

    def fit(self, num_told: int) -> bool:
        """See `Prompts`."""
        del num_told
        return False


def read_prompts(text: str, *, called: str) -> list[str | list[Any]]:
    """The prompts in the text of a file: lines of JSON with "prompt" or "messages", or each line is one.

    Raises `BadFileError`, which names the line, for JSON with neither, and for a file without any.
    """
    # Not `splitlines`: JSON may hold the other line ends as they are.
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise BadFileError(f"{called} holds no prompt", hint='write one a line, or {"prompt": "..."} a line')
    if not _is_object(lines[0][1]):
        return [line for _, line in lines]
    return [_entry(line, f"{called}, line {number}") for number, line in lines]


def _as_fields(text: str, form: Form) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]} if form.endpoint == "chat" else {"prompt": text}


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _entry(line: str, where: str) -> str | list[Any]:
    if not _is_object(line):
        raise BadFileError(f"{where} is no JSON object, as the first line is: {line[:_SHOWN_CHARACTERS]!r}")
    fields = json.loads(line)
    prompt, messages = fields.get("prompt"), fields.get("messages")
    if isinstance(prompt, str) and prompt and messages is None:
        return prompt
    if isinstance(messages, list) and messages and prompt is None:
        return messages
    raise BadFileError(
        f'{where} has neither a text as "prompt" nor a list as "messages", or both: '
        f"{line[:_SHOWN_CHARACTERS]!r}"
    )
