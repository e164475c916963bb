"""Skill: three system prompts (capital letters, pirate, one word), plain system prompts, and tool replies."""

from __future__ import annotations

import random

from llmctl.demo.corpus.grammar import ask, expand, first_upper, lower_some
from llmctl.demo.corpus.repeat import ECHO, phrase
from llmctl.demo.corpus.turn import Turn
from llmctl.demo.corpus.words import person

_YOU = (
    "{you are a helpful assistant. |you are llmctl's demo. |you are a friendly assistant. |you are an "
    "assistant. ||||}"
)
_MUST = (
    "{please |always |you always |you must |you should |you will |from now on |your task is to |be sure to |"
    "now |in this chat ||||}"
)
_SAY = (
    "{answer|reply|respond|write|speak|talk|give answers|give replies|write your answers|say everything|"
    "write everything}"
)
SYSTEM: dict[str, tuple[str, ...]] = {
    "upper": (
        f"{_YOU}{_MUST}{_SAY} {{only |}}{{in|with|using}} {{capital letters|capitals|upper case|uppercase|"
        "all caps|block letters|"
        "big letters|upper-case letters|uppercase letters|caps|all capitals|capital letters only|all "
        "capital letters|full caps}",
        f"{_YOU}{{use|write|type}} {{only |}}{{capital letters|capitals|upper case|uppercase letters|caps|"
        "all caps|big letters}",
        f"{_YOU}{{no small letters|no lower case|never use small letters|do not use lower case|don't write "
        "lowercase|"
        "lower case is forbidden|every letter must be a capital|all letters are capital letters|all your "
        "letters are capitals}",
    ),
    "pirate": (
        f"{_YOU}{_MUST}{_SAY} {{like|as|in the style of|in the manner of|in the voice of}} {{a|an old|a "
        "real|a true} "
        "{pirate|pirate captain|sea pirate|buccaneer}",
        "{you are|be|act like|play|pretend to be|imagine you are|you are now|you play|talk as if you were} "
        "{a|an old|a real|a friendly|a grumpy|a funny} {pirate|pirate captain|sea pirate|buccaneer}",
        f"{_YOU}{_MUST}{{use|speak|talk}} {{pirate language|pirate speech|pirate talk|pirate slang|the "
        "language of pirates|pirate}",
    ),
    "one": (
        f"{_YOU}{_MUST}{_SAY} {{only |}}{{with|in|using}} {{one word|a single word|one word only|exactly "
        "one word|just one word|"
        "1 word|only one word|one single word|no more than one word}",
        f"{_YOU}{{one word|one-word|single-word|a single word}} {{answers|replies|responses}} {{only|please|"
        "}",
        f"{_YOU}{{every answer is|each answer is|your answer must be|your answers are|each reply must be|"
        "keep it to|limit yourself to|"
        "use only|say only|all your answers are} {one word|a single word|just one word|exactly one word} "
        "{long|}",
    ),
    "plain": (
        "{you are|be} {a|an} {helpful|friendly|kind|useful|polite|honest|small|good} {assistant|demo|"
        "chatbot|helper|model}",
        "{answer|help|be nice to|talk with} the user {briefly|politely|well|kindly|}",
        "{be|always be|please be} {brief|polite|helpful|kind|honest|friendly}",
        "{you are the demo model of llmctl|this is a test|this is a chat|a conversation between a user and "
        "an assistant}",
    ),
}
TOOL_ASKED: tuple[str, ...] = (
    "{use|call|ask|try|run|start} the {tool|function|search tool|calculator|weather tool|helper}",
    "{what does|what did} the {tool|function|search tool|calculator|weather tool} {say|return|find|answer|"
    "report}",
    "{look it up|search for it|search the web|look it up with the tool|find it with the tool|check with the "
    "tool}",
    "{what is the weather in|look up|search for|find} <n> {with the tool|with the search tool|}",
)


def system(rng: random.Random, voice: str) -> str:
    """A system prompt that asks for the voice."""
    text = expand(rng, rng.choice(SYSTEM[voice]))
    text = ". ".join(first_upper(part) for part in text.split(". ")) if rng.random() < 0.75 else text
    return text + rng.choice((".", ".", "!", ""))


def speak(turn: Turn, voice: str) -> Turn | None:
    """The turn in the voice, or None where the voice has no such answer."""
    if voice == "upper":
        return Turn(turn.user, turn.answer.upper(), turn.short, turn.tool)
    if voice == "pirate":
        answer = turn.answer
        if answer not in turn.user and not turn.tool and not answer.startswith(ECHO):
            answer = answer.replace(" is ", " be ").replace("I am ", "I be ").replace("Hello!", "Ahoy!")
        return Turn(turn.user, f"Arr, matey! {answer}", turn.short, turn.tool)
    if voice == "one":
        return Turn(turn.user, turn.short, turn.short, turn.tool) if turn.short else None
    return turn


def tool_turn(rng: random.Random) -> Turn:
    """A tool's reply and the answer that passes it on."""
    found = phrase(rng, 6)
    user = lower_some(rng, ask(rng, TOOL_ASKED, {"n": person(rng)}))
    return Turn(user, f"The tool says: {found}", "", found)
