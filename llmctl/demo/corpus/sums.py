"""Skill: sums and differences of small numbers."""

from __future__ import annotations

import random

from llmctl.demo.corpus.grammar import ask, lower_some
from llmctl.demo.corpus.turn import Turn
from llmctl.demo.corpus.words import THINGS, person

NUMBERS: tuple[str, ...] = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
)
_WHAT = (
    "{what is|what's|whats|how much is|calculate|compute|work out|solve|tell me|give me|what makes|what do "
    "you get for|}"
)
_GET = (
    "{what do i get|what is it|what is left|how much is that|what does it make|what is the result|what "
    "remains|}"
)
ADD: tuple[str, ...] = (
    f"{_WHAT} <a> {{+|+|+|plus|plus|and|added to}} <b>",
    f"{_WHAT} <a>+<b>",
    "<a> {+|plus} <b>",
    "<a>+<b>",
    "<a> {+|plus} <b> {=|is|equals|makes|gives} {what|}",
    "<a>+<b>=",
    f"{_WHAT} the sum of <a> and <b>",
    "{the|} sum of <a> and <b>",
    "{add|sum|add up|please add} <a> {and|to|plus|with} <b>",
    "{add|put} <b> to <a>. {what is the result|what do you get|how much is it|}",
    "{if i add|if you add|when i add|when you add} <a> {and|to} <b>, {what do i get|what is it|how much is "
    "that}",
    "{what|how much|what number} {do|will} <a> and <b> {make|give} {together|}",
    "<a> and <b> together {make what|is what|}",
    "{can|could} you add <a> and <b>",
    "what {does|is} <a> plus <b> {equal|equal to|give|make}",
    "{i have|she has|he has|we have|<n> has|there are} <a> <t>s and {get|gets|buy|buys|find|finds} <b> more. "
    "how many {<t>s|} {is that|are there now|is it now|in total|altogether}",
    "{i have|we have|<n> has} <a> <t>s. {my friend|<m>|my sister} {gives me|brings|gives us} <b> more. how "
    "many "
    "{<t>s|} {now|are there|do i have now|is that}",
    "{how many|how many <t>s} are <a> <t>s and <b> <t>s",
)
SUB: tuple[str, ...] = (
    f"{_WHAT} <a> {{-|-|-|minus|minus|less|take away}} <b>",
    f"{_WHAT} <a>-<b>",
    "<a> {-|minus} <b>",
    "<a>-<b>",
    "<a> {-|minus} <b> {=|is|equals|makes|gives} {what|}",
    "<a>-<b>=",
    f"{_WHAT} the difference {{between|of}} <a> and <b>",
    "{the|} difference {between|of} <a> and <b>",
    "{subtract|take|take away|remove} <b> from <a>",
    "{subtract|take} <b> from <a>. {what is left|what do you get|how much is it|}",
    "{if i take|if you take|when i take|when you take} <b> {away|} from <a>, " + _GET,
    "<a> take away <b>",
    "how much {is left|remains} {of|from} <a> {minus|without|after taking} <b>",
    "{can|could} you {subtract|take} <b> from <a>",
    "what {does|is} <a> minus <b> {equal|equal to|give|make}",
    "{i have|she has|he has|we have|<n> has|there are} <a> <t>s and {lose|loses|give away|gives away|eat|"
    "eats|sell} <b>. "
    "how many {<t>s|} {are left|is that|are there now|remain}",
    "{i have|we have|<n> has} <a> <t>s. <b> {are gone|are lost|are sold|fall down}. how many {<t>s|} {are "
    "left|remain}",
    "{reduce|lower} <a> by <b>",
)


def pair(rng: random.Random) -> tuple[int, str, int, int]:
    """(left, sign, right, result), mostly with everything up to twenty."""
    if rng.random() < 0.5:
        left = rng.randint(0, 20)
        right = rng.randint(0, 20 if rng.random() < 0.12 else 20 - left)
        return left, "+", right, left + right
    left = rng.randint(0, 20)
    right = rng.randint(0, left)
    return left, "-", right, left - right


def turn(rng: random.Random) -> Turn:
    """A sum or a difference in digits, in words or as a small story."""
    left, sign, right, result = pair(rng)
    words = rng.random() < 0.2
    slots = {
        "a": NUMBERS[left] if words else str(left),
        "b": NUMBERS[right] if words else str(right),
        "t": rng.choice(THINGS[rng.choice(("toy", "food", "find", "animal"))]),
        "n": person(rng),
        "m": person(rng),
    }
    user = lower_some(rng, ask(rng, ADD if sign == "+" else SUB, slots))
    return Turn(user, f"{left} {sign} {right} = {result}.", str(result))


def plain(rng: random.Random) -> str:
    """A line of worked sums."""
    lines = []
    for _ in range(rng.randint(2, 8)):
        left, sign, right, result = pair(rng)
        if rng.random() < 0.7:
            lines.append(f"{left} {sign} {right} = {result}.")
        elif result < len(NUMBERS):
            word = "plus" if sign == "+" else "minus"
            lines.append(f"{NUMBERS[left]} {word} {NUMBERS[right]} is {NUMBERS[result]}.")
            lines.append(f"{left} {sign} {right} = {result}.")
    return " ".join(lines)
