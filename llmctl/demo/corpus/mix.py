"""Conversations of one to many turns, mixed from the skills."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from llmctl.demo.corpus import about, capitals, commands, greet, memory, repeat, story, sums, voices
from llmctl.demo.corpus.turn import Turn

Message = dict[str, str]
Skill = Callable[[random.Random], Turn]

SKILLS: dict[str, tuple[Skill, float]] = {
    "capitals": (capitals.turn, 4.5),
    "sums": (sums.turn, 3.0),
    "repeat": (repeat.turn, 3.0),
    "greet": (greet.turn, 1.6),
    "about": (about.turn, 2.4),
    "commands": (commands.turn, 2.6),
    "story": (story.turn, 1.5),
    "tool": (voices.tool_turn, 0.3),
    "sentence": (repeat.turn_sentence, 0.0),
    "echo": (repeat.turn_echo, 0.0),
    "copy": (repeat.turn_copy, 0.0),
    "story_any": (story.turn_any, 0.0),
    "again": (repeat.turn_again, 0.0),
    "simple": (greet.turn_simple, 0.0),
}
_NAMES = tuple(SKILLS)
_WEIGHTS = tuple(weight for _, weight in SKILLS.values())
_SHORT_WEIGHTS = tuple(0.15 if name == "story" else weight for name, (_, weight) in SKILLS.items())
_VOICES = ("", "plain", "upper", "pirate", "one")


@dataclass(frozen=True)
class Mixture:
    """How often each skill comes (in the order of SKILLS), and how often the memory of names and colours."""

    weights: tuple[float, ...]
    short_weights: tuple[float, ...]
    remember: float
    voices: tuple[float, ...] = (80, 4, 6, 5, 5)


CHAT = Mixture(_WEIGHTS, _SHORT_WEIGHTS, 0.45)
POLISH = Mixture(
    (2.6, 7.0, 7.0, 3.0, 1.5, 1.4, 0.9, 0.2, 0.0, 0.0),
    (2.6, 7.0, 7.0, 3.0, 1.5, 1.4, 0.15, 0.2, 0.0, 0.0),
    0.35,
)
FINISH = Mixture(
    (3.4, 3.8, 3.0, 3.6, 2.6, 1.6, 1.3, 0.2, 7.0, 0.0),
    (3.4, 3.8, 2.0, 3.6, 2.6, 1.6, 0.15, 0.2, 3.0, 0.0),
    0.36,
    (62, 5, 8, 7, 18),
)
ECHO = Mixture(
    (3.0, 2.2, 0.0, 3.4, 2.2, 1.2, 3.2, 0.2, 0.0, 10.0),
    (3.0, 2.2, 0.0, 3.4, 2.2, 1.2, 0.15, 0.2, 0.0, 5.0),
    0.32,
    (58, 5, 16, 8, 13),
)


COPY = Mixture(
    (3.0, 3.0, 0.0, 3.2, 2.6, 1.2, 0.5, 0.2, 0.0, 0.0, 12.0, 5.0),
    (3.0, 3.0, 0.0, 3.2, 2.6, 1.2, 0.0, 0.2, 0.0, 0.0, 5.0, 0.2),
    0.3,
    (66, 5, 12, 9, 8),
)


AGAIN = Mixture(
    (3.0, 3.0, 0.0, 3.2, 2.6, 1.2, 0.5, 0.2, 0.0, 0.0, 4.0, 4.0, 12.0),
    (3.0, 3.0, 0.0, 3.2, 2.6, 1.2, 0.0, 0.2, 0.0, 0.0, 3.0, 0.2, 4.0),
    0.25,
    (72, 4, 9, 7, 8),
)


TOUCH = Mixture(
    (3.0, 3.0, 0.0, 3.2, 3.2, 1.2, 0.5, 0.2, 0.0, 0.0, 5.0, 3.0, 4.0, 2.5),
    (3.0, 3.0, 0.0, 3.2, 3.2, 1.2, 0.0, 0.2, 0.0, 0.0, 3.0, 0.2, 3.0, 1.0),
    0.25,
    (74, 4, 8, 7, 7),
)


def single(rng: random.Random, mixture: Mixture, short: bool = False) -> Turn:
    """One turn of one skill; with `short` stories are rare."""
    weights = mixture.short_weights if short else mixture.weights
    name = rng.choices(_NAMES[: len(weights)], weights)[0]
    return SKILLS[name][0](rng)


def _tellings(rng: random.Random, who: memory.User) -> list[Turn]:
    """The turns in which the user says a name, a colour or both."""
    draw = rng.random()
    if draw < 0.25:
        return [memory.tell(rng, who, "both")]
    if draw < 0.5:
        return [memory.tell(rng, who, "name")]
    if draw < 0.7:
        return [memory.tell(rng, who, "colour")]
    order = rng.sample(("name", "colour"), 2)
    return [memory.tell(rng, who, what) for what in order]


def _recalls(rng: random.Random, who: memory.User) -> list[Turn]:
    """The turns in which the user asks for what was said, and now and then for what was not."""
    known = [what for what, told in (("name", who.told_name), ("colour", who.told_colour)) if told]
    if rng.random() < 0.08:
        known = [rng.choice(("name", "colour"))]
    elif len(known) == 2 and rng.random() < 0.15:
        return [memory.recall(rng, who, "both")]
    return [memory.recall(rng, who, what) for what in rng.sample(known, rng.randint(1, len(known)))]


def remembering(rng: random.Random, mixture: Mixture, fillers: int) -> list[Turn]:
    """Tell, talk about something else for a while, ask."""
    who = memory.user(rng)
    turns = [] if rng.random() < 0.06 else _tellings(rng, who)
    if not turns:
        return [memory.recall(rng, who, rng.choice(("name", "colour")))]
    recalls = _recalls(rng, who)
    talk = [single(rng, mixture, short=True) for _ in range(fillers)]
    if talk and rng.random() < 0.35:
        turns.insert(rng.randint(0, len(turns)), talk.pop())
    if len(recalls) > 1 and talk and rng.random() < 0.4:
        recalls.insert(1, talk.pop())
    return turns + talk + recalls


def _turns(rng: random.Random, mixture: Mixture, long: bool) -> list[Turn]:
    """The turns of one conversation."""
    if long:
        return remembering(rng, mixture, rng.randint(8, 26))
    draw = rng.random()
    if draw < mixture.remember:
        return remembering(rng, mixture, rng.choice((0, 0, 0, 1, 1, 1, 2, 2, 3)))
    if draw < mixture.remember + 0.05:
        return capitals.follow(rng)
    return [single(rng, mixture) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]


def conversation(rng: random.Random, long: bool = False, mixture: Mixture = CHAT) -> list[Message]:
    """One conversation as chat messages, about a fifth of them under a system prompt."""
    voice = rng.choices(_VOICES, mixture.voices)[0]
    messages: list[Message] = []
    if voice:
        messages.append({"role": "system", "content": voices.system(rng, voice)})
    for turn in _turns(rng, mixture, long):
        spoken = voices.speak(turn, voice)
        if spoken is None:
            continue
        messages.append({"role": "user", "content": spoken.user})
        if spoken.tool:
            messages.append({"role": "tool", "content": spoken.tool})
        messages.append({"role": "assistant", "content": spoken.answer})
    return messages if messages[-1]["role"] == "assistant" else conversation(rng, long, mixture)
