"""A tiny wording grammar: `{a|b|c}` picks one alternative, `<slot>` is filled in afterwards.

The noise functions vary case, punctuation and politeness the way people who type into a chat do.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

_CHOICE = re.compile(r"\{([^{}]*)\}")
_SPACES = re.compile(r"[ \t]+")

PREFIXES: tuple[str, ...] = (
    "please, ", "please ", "hey, ", "hey ", "hi, ", "ok, ", "ok ", "okay, ", "so, ", "so ", "and ", "now ",
    "well, ",
    "right, ", "good, ", "great, ", "quick question: ", "one question: ", "a question: ", "question: ",
    "hmm, ",
    "hello, ", "oh, ", "now, ", "alright, ", "next: ", "next, ", "also, ", "then ", "tell me: ", "tell me, ",
    "listen, ",
    "excuse me, ", "sorry, ", "just wondering, ", "i wonder, ", "my friend asks: ", "for my homework: ",
    "let's see, ",
    "cool, ", "nice, ", "thanks, ", "fine, ", "yes, ", "no, ", "computer, ", "dear demo, ", "demo, ",
    "another one: ",
)  # fmt: skip
SUFFIXES: tuple[str, ...] = (
    " please", ", please", " now", " again", " for me", " then", " thanks", ", thanks", " today",
    ", please tell me",
    ", do you know", ", ok", " exactly", ", by the way", ", if you can", ", my friend", " pls", ", quickly",
)  # fmt: skip


def expand(rng: random.Random, pattern: str) -> str:
    """Pick one alternative of every `{a|b}`, innermost first, and tidy the spaces."""
    previous = ""
    while previous != pattern:
        previous = pattern
        pattern = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), pattern)
    return _SPACES.sub(" ", pattern).strip()


def fill(text: str, slots: Mapping[str, str]) -> str:
    """Replace every `<key>` by its value."""
    for key, value in slots.items():
        text = text.replace(f"<{key}>", value)
    return text


def first_upper(text: str) -> str:
    """The text with its first character in upper case."""
    return text[:1].upper() + text[1:]


def _end(rng: random.Random, text: str, mark: str) -> str:
    """Finish a message: mostly with its mark, often with none, rarely with another one."""
    draw = rng.random()
    if draw < 0.55:
        return text + mark
    if draw < 0.92:
        return text
    return text + rng.choice(("!", ".", "?", "??", " ?", "..."))


def ask(rng: random.Random, patterns: Sequence[str], slots: Mapping[str, str], mark: str = "?") -> str:
    """A user's message from one of the patterns, with politeness, case and punctuation varied."""
    text = expand(rng, rng.choice(patterns))
    if rng.random() < 0.22:
        text = rng.choice(PREFIXES) + text
    if rng.random() < 0.1:
        text += rng.choice(SUFFIXES)
    draw = rng.random()
    if draw < 0.6:
        text = first_upper(text)
    elif draw < 0.63:
        text = text.upper()
        slots = {key.upper(): value for key, value in slots.items()}
    return _end(rng, fill(text, slots), mark)


def lower_some(rng: random.Random, text: str, share: float = 0.25) -> str:
    """The text in lower case for a share of the calls, untouched otherwise."""
    return text.lower() if rng.random() < share else text


def normalise(text: str) -> str:
    """Lower case, letters and digits only, single spaces: the form in which wordings are compared."""
    return re.sub(r"[^a-z0-9+\-]+", " ", text.lower()).strip()
