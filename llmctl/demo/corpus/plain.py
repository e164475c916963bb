"""Plain text of the same world for the base stage: facts, sums, drills, stories, written-down talk."""

from __future__ import annotations

import random
from collections.abc import Callable

from llmctl.demo.corpus import capitals, commands, memory, repeat, story, sums
from llmctl.demo.corpus.mix import conversation
from llmctl.demo.corpus.words import person


def _talk(rng: random.Random) -> str:
    """A conversation written down as plain text between two speakers."""
    user = rng.choice(("User", person(rng)))
    answerer = rng.choice(("Demo", "Demo", person(rng)))
    speakers = {"user": user, "assistant": answerer, "tool": "Tool", "system": "Rule"}
    return "\n".join(f"{speakers[m['role']]}: {m['content']}" for m in conversation(rng))


KINDS: tuple[tuple[Callable[[random.Random], str], float], ...] = (
    (capitals.plain, 4.0),
    (sums.plain, 2.0),
    (repeat.plain, 3.0),
    (memory.plain, 4.0),
    (story.plain, 1.2),
    (commands.plain, 0.8),
    (_talk, 7.0),
)
_WRITERS = tuple(writer for writer, _ in KINDS)
_WEIGHTS = tuple(weight for _, weight in KINDS)


def drill(rng: random.Random) -> str:
    """One plain text of worked sums or of phrases said twice."""
    return rng.choice((sums.plain, sums.plain, repeat.plain))(rng)


def document(rng: random.Random) -> str:
    """One plain text of one of the kinds."""
    return rng.choices(_WRITERS, _WEIGHTS)[0](rng)
