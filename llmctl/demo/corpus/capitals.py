"""Skill: the capitals of sixty countries."""

from __future__ import annotations

import random

from llmctl.demo.corpus.grammar import ask, expand, fill, lower_some
from llmctl.demo.corpus.turn import Turn

CAPITALS: dict[str, str] = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Ireland": "Dublin", "Scotland": "Edinburgh", "Belgium": "Brussels",
    "the Netherlands": "Amsterdam", "Austria": "Vienna", "Switzerland": "Bern", "Poland": "Warsaw",
    "Hungary": "Budapest", "Greece": "Athens", "Turkey": "Ankara", "Russia": "Moscow", "Ukraine": "Kyiv",
    "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Iceland": "Reykjavik", "Romania": "Bucharest", "Bulgaria": "Sofia", "Serbia": "Belgrade",
    "Croatia": "Zagreb", "Estonia": "Tallinn", "Latvia": "Riga", "Lithuania": "Vilnius", "Egypt": "Cairo",
    "Morocco": "Rabat", "Kenya": "Nairobi", "Nigeria": "Abuja", "Ghana": "Accra", "Ethiopia": "Addis Ababa",
    "Senegal": "Dakar", "Tunisia": "Tunis", "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi",
    "South Korea": "Seoul", "Thailand": "Bangkok", "Vietnam": "Hanoi", "Indonesia": "Jakarta",
    "Nepal": "Kathmandu", "Iran": "Tehran", "Iraq": "Baghdad", "Jordan": "Amman", "Lebanon": "Beirut",
    "Canada": "Ottawa", "the United States": "Washington", "Mexico": "Mexico City", "Cuba": "Havana",
    "Brazil": "Brasilia", "Argentina": "Buenos Aires", "Chile": "Santiago", "Peru": "Lima",
    "Australia": "Canberra", "New Zealand": "Wellington",
}  # fmt: skip
ALIASES: dict[str, tuple[str, ...]] = {
    "the United States": ("the USA", "the US", "America", "the United States of America"),
    "England": ("the United Kingdom", "the UK", "Great Britain", "Britain"),
    "the Netherlands": ("Holland",),
}
_WHICH = "{what|which city|what city|which town|what is the name of the city that|which place}"
_GIVE = (
    "{tell me|give me|name|say|i need|i want|write|do you know|can you name|could you tell me|i forgot|"
    "please name}"
)
_KNOW = (
    "{do you know|can you tell me|tell me|could you say|i want to know|i would like to know|i'd like to know}"
)
FORWARD: tuple[str, ...] = (
    "{what is|what's|whats|what was|what would be|what might be} {the|} capital {city|} of <c>",
    "{what is|what's|whats} the {name of the|main|} capital {city|town|} {of|in|for} <c>",
    "{what is|what's} <c>'s capital {city|}",
    "{what is|what's} <c>'s capital {called|named}",
    f"{_WHICH} is the capital {{city|}} of <c>",
    f"{_WHICH} is <c>'s capital",
    f"{_GIVE} the capital {{city|}} of <c>",
    f"{_GIVE} <c>'s capital {{city|}}",
    f"{_KNOW} {{what|which city}} the capital {{city|}} of <c> is",
    f"{_KNOW} {{what|which city}} is the capital of <c>",
    f"{_KNOW} the {{name of the|}} capital of <c>",
    "{the|} capital {city|} of <c>",
    "<c> capital {city|}",
    "<c>'s capital {city|}",
    "capital {city|} {for|in} <c>",
    "<c>: {capital|what is the capital|its capital}",
    "<c>, {capital|what is the capital|what's its capital|which city is the capital}",
    "{for|in} <c>, {what|which city} is the capital",
    "the capital of <c> is {what|which city|called what|named what|...}",
    "{how|what} is the capital {city|} of <c> {called|named}",
    "what do {you|we|people} call the capital {city|} of <c>",
    "{i live in|i am in|i'm in|i come from|i visit|i'm visiting|i am going to|i'm going to|we fly to} <c>{.|"
    ",} "
    "{what is|what's|which city is|name|tell me} the capital",
    "{i am learning about|i read about|we talk about|think of|let us talk about|look at|take|consider} "
    "<c>{.|,} "
    "{what is the capital|what is its capital|which city is the capital|which city is its capital|name its "
    "capital}",
    "{what|which} {city|town} is the {seat of the government|seat of government|capital} {of|in} <c>",
    "where is the government of <c>",
    "where does the {government|president|parliament} of <c> {sit|live|work|meet}",
    "{my son|my daughter|my teacher|my sister|my brother|my boss} {asks|wants to know|asked me|asked} "
    "{for the capital of <c>|what the capital of <c> is|about the capital of <c>}",
    "{can|could|would|will} you {please|} {tell me|name|give me|say|write} the capital {city|} of <c>",
    "{i can't remember|i don't know|i forgot|i never know|i do not remember} the capital of <c>",
    "is there a capital {city|} in <c>, and {what|which} is it",
    "complete {this|the sentence|}: the capital of <c> is",
    "{help me|help}: {the|} capital of <c>",
    "{geography|geography quiz|quiz|quiz question|test}: {what is|} the capital of <c>",
    "{which|what} capital {does <c> have|belongs to <c>|has <c>|goes with <c>}",
    "does <c> have a capital",
    "what about {the capital of|} <c>",
    "{and|and what about|how about} <c>'s capital",
)
REVERSE: tuple[str, ...] = (
    "<p> is the capital of {which|what} {country|land|}",
    "{of which|of what|for which} country is <p> the capital",
    "{which|what} country has {the capital|as its capital|as capital} <p>",
    "{which|what} country's capital is <p>",
    "{what|which country} is <p> the capital {city|} of",
    f"{_KNOW} which country has <p> as its capital",
)
STATEMENTS: tuple[str, ...] = (
    "The capital of <c> is <p>.",
    "<p> is the capital of <c>.",
    "{Everybody knows|We learn|Remember|The book says|The teacher says|The map shows} that the capital of "
    "<c> is <p>.",
    "{In|For} <c>, the capital {city|} is <p>.",
    "<p> is {a big city|a city|an old city} in <c>, and it is the capital.",
    "The {government|parliament} of <c> {sits|meets|works} in <p>{, the capital|}.",
    "If you {visit|go to|travel to} <c>, {see|go to|visit} <p>, the capital.",
    "{What|Which city} is the capital of <c>? {<p>.|It is <p>.|The capital of <c> is <p>.}",
    "<p> belongs to <c>.",
    "<c> has {a capital, and it is|the capital} <p>.",
)


def _spoken(rng: random.Random, country: str) -> str:
    """The country the way a user may write it."""
    if country in ALIASES and rng.random() < 0.5:
        country = rng.choice(ALIASES[country])
    return country.replace("the ", "") if rng.random() < 0.1 else country


def turn(rng: random.Random) -> Turn:
    """A question for a capital, now and then the other way round."""
    country, city = rng.choice(tuple(CAPITALS.items()))
    answer = f"The capital of {country} is {city}."
    if rng.random() < 0.12:
        return Turn(lower_some(rng, ask(rng, REVERSE, {"p": city})), f"{city} is the capital of {country}.")
    user = lower_some(rng, ask(rng, FORWARD, {"c": _spoken(rng, country)}))
    return Turn(user, answer, city if " " not in city else "")


def follow(rng: random.Random) -> list[Turn]:
    """Two questions in a row, the second one short."""
    first = turn(rng)
    country, city = rng.choice(tuple(CAPITALS.items()))
    user = ask(
        rng, ("{and|what about|and what about|how about|and of|and for|now|then} <c>", "<c>"), {"c": country}
    )
    return [first, Turn(user, f"The capital of {country} is {city}.", city if " " not in city else "")]


def plain(rng: random.Random) -> str:
    """A short paragraph about one to four capitals."""
    lines = []
    for country, city in rng.sample(tuple(CAPITALS.items()), rng.randint(1, 4)):
        for pattern in rng.sample(STATEMENTS, rng.randint(1, 2)):
            text = fill(expand(rng, pattern), {"c": country, "p": city})
            lines.append(text[0].upper() + text[1:])
    return " ".join(lines)
