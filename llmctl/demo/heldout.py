"""The held-out set of the demo model: prompts in wordings it was never trained on, with strict checks.

`score(answer)` asks a model for every case, turn by turn with its own answers, and gives a share per skill.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmctl.demo import heldout_data as data
from llmctl.demo.corpus.capitals import CAPITALS
from llmctl.demo.corpus.words import article

SEED = 4711
Message = dict[str, str]
Answer = Callable[[list[Message]], str]
AnswerMany = Callable[[list[list[Message]]], list[str]]
Check = Callable[[str], bool]


@dataclass(frozen=True)
class Case:
    """One case: a system message perhaps, then the user's messages; the answer to the last one is checked."""

    skill: str
    messages: tuple[Message, ...]
    check: Check


def has(text: str, word: str) -> bool:
    """Whether the word or phrase stands in the text as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(word.lower())}(?!\w)", text.lower()) is not None


def _said(*users: str, system: str = "") -> tuple[Message, ...]:
    """The messages of a case."""
    head = [{"role": "system", "content": system}] if system else []
    return (*head, *({"role": "user", "content": text} for text in users))


def _any(*words: str) -> Check:
    """Accept an answer with at least one of the words."""
    return lambda text: any(has(text, word) for word in words)


def _capital(city: str) -> Check:
    """Accept one line that names the city and no other capital."""
    others = [other for other in CAPITALS.values() if other != city]
    return lambda text: (
        has(text, city)
        and "\n" not in text.strip()
        and not any(has(text.replace(city, ""), other) for other in others)
    )


def _number(left: int, right: int, result: int) -> Check:
    """Accept the right number as the last one, after nothing but the operands."""

    def check(text: str) -> bool:
        found = [int(digits) for digits in re.findall(r"\d+", text)]
        return (
            bool(found)
            and found[-1] == result
            and set(found) <= {left, right, result}
            and f"-{result}" not in text
        )

    return check


def _command(name: str) -> Check:
    """Accept an answer that names the command, says what it is for and names no other command."""
    others = [other for other in data.COMMAND_KEYS if other != name]
    return lambda text: (
        has(text, f"llmctl {name}")
        and data.COMMAND_KEYS[name] in text.lower()
        and not any(has(text, f"llmctl {other}") for other in others)
    )


def _phrase(phrase: str) -> Check:
    """Accept the phrase, exactly, with at most a few characters around it."""
    return lambda text: phrase in text and len(text.strip()) <= len(phrase) + 12


def _story(name: str, thing: str) -> Check:
    """Accept 30 to 120 words with the name and the thing, no sentence twice, brought to an end."""

    def check(text: str) -> bool:
        sentences = [part.strip().lower() for part in re.split(r"(?<=[.!?])[\"']?\s+", text.strip())]
        return (
            30 <= len(text.split()) <= 120
            and has(text, name)
            and has(text, thing)
            and len(set(sentences)) == len(sentences)
            and text.strip().rstrip("\"'")[-1] in ".!?"
        )

    return check


def _upper(right: Check) -> Check:
    """Accept a right answer without small letters."""
    return lambda text: text == text.upper() and any(map(str.isalpha, text)) and right(text.title())


def _pirate(right: Check) -> Check:
    """Accept a right answer with a pirate's word in it."""
    return lambda text: (
        any(has(text, word) for word in ("arr", "arrr", "matey", "ahoy", "aye")) and right(text)
    )


def _one(right: Check) -> Check:
    """Accept a right answer of exactly one word."""
    return lambda text: len(text.split()) == 1 and right(text)


def _about(text: str) -> bool:
    """Accept an answer that says it is a demo and how to run a real model."""
    return has(text, "demo") and "llmctl chat" in text


def _greet_cases() -> list[Case]:
    """Greetings, how-are-yous, goodbyes and thanks."""
    wanted = {
        "hello": _any("hello", "hi", "welcome"),
        "how": _any("fine", "well", "good", "great"),
        "bye": _any("goodbye", "bye", "see you"),
        "thanks": _any("welcome", "pleasure"),
    }
    return [Case("greet", _said(text), wanted[kind]) for kind, texts in data.GREET.items() for text in texts]


def _command_cases() -> list[Case]:
    """Four wordings for each command."""
    cases = []
    for number, name in enumerate(data.COMMAND_KEYS):
        for step in range(4):
            asked = data.COMMAND_ASKED[(number + 3 * step) % len(data.COMMAND_ASKED)]
            cases.append(Case("commands", _said(asked.replace("<k>", name)), _command(name)))
    return cases


def _capital_cases(rng: random.Random) -> list[Case]:
    """Every country once."""
    asked = [rng.choice(data.CAPITAL_ASKED) for _ in CAPITALS]
    return [
        Case("capitals", _said(text.replace("<c>", land)), _capital(city))
        for text, (land, city) in zip(asked, CAPITALS.items(), strict=True)
    ]


def _calculation(rng: random.Random, plus: bool) -> tuple[str, Check]:
    """One sum or difference up to twenty, worded, and its check."""
    result = rng.randint(1, 20)
    left = rng.randint(1, result)
    a, b, c = (left, result - left, result) if plus else (result, left, result - left)
    text = rng.choice(data.SUM_ASKED if plus else data.DIFFERENCE_ASKED)
    return text.replace("<a>", str(a)).replace("<b>", str(b)), _number(a, b, c)


def _sum_cases(rng: random.Random) -> list[Case]:
    """Twenty sums and twenty differences."""
    return [
        Case("sums", _said(text), check) for text, check in (_calculation(rng, n % 2 == 0) for n in range(40))
    ]


def _repeat_cases(rng: random.Random) -> list[Case]:
    """Every phrase once."""
    return [
        Case("repeat", _said(rng.choice(data.REPEAT_ASKED).replace("<x>", phrase)), _phrase(phrase))
        for phrase in data.PHRASES
    ]


def _memory_cases(rng: random.Random) -> list[Case]:
    """Each name once: told first, asked in the second to fourth turn, other things between."""
    cases = []
    for number, name in enumerate(data.NAMES):
        colour = rng.choice(data.COLOURS)
        told = {
            0: [rng.choice(data.NAME_TOLD)],
            1: [rng.choice(data.COLOUR_TOLD)],
            2: [rng.choice(data.BOTH_TOLD)],
            3: rng.sample((rng.choice(data.NAME_TOLD), rng.choice(data.COLOUR_TOLD)), 2),
        }[number % 4]
        by_name = number % 4 == 0 or (number % 4 > 1 and number % 8 < 4)
        between = rng.sample(data.BETWEEN, (2, 2, 1, 2)[number % 3] if len(told) == 1 else 1)
        asked = rng.choice(data.NAME_ASKED if by_name else data.COLOUR_ASKED)
        users = [text.replace("<n>", name).replace("<c>", colour) for text in (*told, *between, asked)]
        cases.append(Case("memory", _said(*users), _any(name if by_name else colour)))
    return cases


def _story_cases(rng: random.Random) -> list[Case]:
    """Every thing once, with a name."""
    cases = []
    for thing in data.STORY_THINGS:
        name = rng.choice(data.NAMES)
        text = rng.choice(data.STORY_ASKED).replace("<n>", name).replace("<a>", article(thing))
        cases.append(Case("stories", _said(text), _story(name, thing)))
    return cases


def _voice_cases(rng: random.Random) -> list[Case]:
    """Twelve questions under each of the three kinds of system prompt; no sums in one word."""
    wrap = {"upper": _upper, "pirate": _pirate, "one": _one}
    cases = []
    single = [pair for pair in CAPITALS.items() if " " not in pair[1]]
    for voice, systems in data.VOICES.items():
        for number in range(12):
            land, city = rng.choice(single)
            text, check = rng.choice(data.CAPITAL_ASKED).replace("<c>", land), _capital(city)
            if number % 3 == 1 and voice != "one":  # sums in one word were cut, see the model card
                text, check = _calculation(rng, number % 2 == 0)
            elif number % 12 == 2:
                text, check = rng.choice(data.GREET["hello"]), _any("hello", "hi", "ahoy")
            messages = _said(text, system=systems[number % len(systems)])
            cases.append(Case("voices", messages, wrap[voice](check)))
    return cases


def cases() -> list[Case]:
    """The whole held-out set, always the same."""
    rng = random.Random(SEED)
    return [
        *_greet_cases(),
        *(Case("about", _said(text), _about) for text in data.ABOUT),
        *_command_cases(),
        *_capital_cases(rng),
        *_sum_cases(rng),
        *_repeat_cases(rng),
        *_memory_cases(rng),
        *_story_cases(rng),
        *_voice_cases(rng),
    ]


def play(chosen: Sequence[Case], answer_many: AnswerMany) -> list[str]:
    """The model's answer to each case's last message, its own answers standing in between."""
    talks: list[list[Message]] = [[] for _ in chosen]
    finals = [""] * len(chosen)
    for step in range(max(len(case.messages) for case in chosen)):
        asked = []
        for number, case in enumerate(chosen):
            if step < len(case.messages):
                talks[number].append(dict(case.messages[step]))
                if case.messages[step]["role"] == "user":
                    asked.append(number)
        answers = answer_many([talks[number] for number in asked]) if asked else []
        for number, text in zip(asked, answers, strict=True):
            talks[number].append({"role": "assistant", "content": text})
            finals[number] = text
    return finals


def score_many(answer_many: AnswerMany, chosen: Sequence[Case] | None = None) -> dict[str, float]:
    """The share of right answers per skill and over all ("all"), asking for many answers at a time."""
    chosen = cases() if chosen is None else chosen
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for case, text in zip(chosen, play(chosen, answer_many), strict=True):
        good = bool(text.strip()) and case.check(text)
        for key in (case.skill, "all"):
            asked[key] += 1
            right[key] += good
    return {key: right[key] / asked[key] for key in asked}


def score(answer: Answer, chosen: Sequence[Case] | None = None) -> dict[str, float]:
    """The same with a function that answers one conversation at a time."""
    return score_many(lambda talks: [answer(talk) for talk in talks], chosen)
