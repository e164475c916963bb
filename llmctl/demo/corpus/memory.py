"""Skill: remembers a name and a favourite colour over the turns of a conversation."""

from __future__ import annotations

import random
from dataclasses import dataclass

from llmctl.demo.corpus.capitals import CAPITALS
from llmctl.demo.corpus.grammar import ask, lower_some
from llmctl.demo.corpus.turn import Turn
from llmctl.demo.corpus.words import COLOURS, made_up, person

_HELLO = (
    "{hello|hi|hey|good morning|good evening|good day|hello there|hi there|hello demo|greetings|hey there|"
    "}{, | - |! |. |, }"
)
_FAV = (
    "{favourite colour|favorite color|favourite color|favorite colour|fav color|fav colour|preferred colour|"
    "best colour|"
    "colour of choice|dearest colour|most loved colour}"
)
_COL = "{colour|color}"
_LEAD = (
    "{i think|i believe|i guess|i must say|i have to say|to be honest|you know|as you see|did you know|"
    "guess what|listen|"
    "well|so|hm|fun fact|just for the record|in case you wonder|if you want to know|let me add}{, |: |, "
    "that |, }"
)
_NAME_TAIL = (
    "{, how are you| from <p>| and i am from <p>| and i live in <p>|, nice to see you|, glad to be here| "
    "and i have a "
    "question|, happy to talk to you| and i like stories| and i am a teacher| and i am bored|, can you help "
    "me| in case "
    "you wonder|, remember it| and i want to chat| and this is my first time| and i am <d> years old|, your "
    "new friend|"
    ", hello|, good to meet you|. how do you do|. nice place|. let us talk| and i need help| and who are you}"
)
_COLOUR_TAIL = (
    "{, remember it|, as always|, of course|, by the way| since i was a child|, like the sky|, like my "
    "house|, and it always "
    "was| and i do not like others|, you know|, no other colour| in case you wonder|, that is the truth|, "
    "believe me|"
    ", and nothing else|. what do you think|. remember that|. nice, isn't it| these days| at the moment}"
)
NAME_TOLD: tuple[str, ...] = (
    f"{_HELLO}{{my name is|i am|i'm|my name's|they call me|call me|this is|people call me|you can call me|"
    "it's me,|it is} <n>",
    "{my name is|i am|i'm|my name's|they call me|call me|people call me|you can call me|please call me|i am "
    "called|"
    "i'm called|my first name is|my friends call me|everybody calls me|i go by|i go by the name|i go by the "
    "name of} <n>",
    "<n> is my name",
    "<n> {here|speaking|is what they call me|is how people call me|is who i am|is the name}",
    "the name is <n>",
    "{remember|note|learn|know|keep in mind|don't forget|do not forget|you should know|let me tell you}"
    "{:|,| that|} {my name is|i am|i'm|my name's|i am called} <n>",
    "{let me|may i|i want to|i would like to} introduce myself{: |, |. }{i am|i'm|my name is|my name's|} <n>",
    "{i was born|i live here|i am new here|i am a user|nice to meet you|pleased to meet you|i am a teacher|"
    "i am a student}"
    "{. |, |, and |; }{my name is|i am|i'm|call me} <n>",
)
COLOUR_TOLD: tuple[str, ...] = (
    f"my {_FAV} is <c>",
    f"{{the|my}} {{{_COL} i like {{most|best}}|{_COL} i love most|{_COL} i prefer|{_COL} of my heart}} is "
    "<c>",
    "{i like|i love|i prefer|i adore} <c> {best|most|the most|more than any other colour|above all|the best}",
    f"{{i like|i love|i prefer|i adore|i am fond of|my heart is with}} the {_COL} <c>",
    f"<c> is my {_FAV}",
    f"<c> is the {_COL} {{i like|i love|i like most|i like best|i prefer|for me|of my dreams}}",
    "{remember|note|know|keep in mind|don't forget|do not forget|you should know|let me tell you}"
    f"{{:|,| that|}} {{my {_FAV} is|i like|i love|i prefer}} <c>",
    "{of all colours|of all the colours|among colours|for colours}{, |} {i like|i love|i prefer|i "
    "choose|i pick} <c> {best|most|}",
    f"{{speaking of colours|about colours|by the way|also}}, {{my {_FAV} is|i like|i love}} <c> {{best|most|"
    "}",
    f"{{as a {_COL}|as for colours}}, {{i like|i choose|i prefer|i take}} <c>",
)
BOTH_TOLD: tuple[str, ...] = (
    f"{{{_HELLO}|}}{{my name is|i am|i'm|call me|my name's}} <n> {{and|, and}} {{my {_FAV} is|i like|i love|"
    "i prefer} <c> {best|most|}",
    f"{{my name is|i am|i'm|call me}} <n>{{, |. |; }}{{my {_FAV} is|i like|i love|i prefer|the {_COL} i "
    "like best is} <c>",
    f"my {_FAV} is <c> and {{my name is|i am|i'm|they call me}} <n>",
    f"<n> is my name and <c> {{is|}} my {_FAV}",
    f"my name: <n>. my {_FAV}: <c>",
)
NAME_ASKED: tuple[str, ...] = (
    "{what is|what's|whats|what was|tell me|say|do you know|do you remember|do you recall|can you say|can "
    "you tell me|"
    "repeat|give me|have you forgotten|did you forget|do you still know|remember|you remember} my name "
    "{again|now|still|please|}",
    "{who am i|what am i called|what do they call me|what did i say my name was|what name did i give|which "
    "name is mine|"
    "what is the name i told you|under what name do you know me|how did i introduce myself} {again|}",
    "{do you know|do you remember|can you tell me|tell me|say|you know|do you still know} {who i am|what my "
    "name is|what i am called}",
    "{and|now|so} {my name|my name is|what is my name|who am i}",
    "my name is{ what|...| called what}",
    "what {do|should|will|would} you call me",
)
COLOUR_ASKED: tuple[str, ...] = (
    "{what is|what's|whats|what was|tell me|say|do you know|do you remember|do you recall|can you say|can "
    "you tell me|"
    f"repeat|give me|have you forgotten|did you forget|do you still know|remember}} my {_FAV} {{again|now|"
    "still|please|}",
    f"{{what|which}} {_COL} {{do i like {{best|most|}}|do i love|do i prefer|is my favourite|is my favorite|"
    "did i name|did i tell you|"
    "did i say i like|was it that i like|did i mention}",
    f"{{do you know|do you remember|can you tell me|tell me|do you still know}} {{which|what}} {_COL} i "
    "{like|love|prefer|like best|told you}",
    f"{{and|now|so}} {{my {_FAV}|which {_COL} do i like|the {_COL} i like}}",
    f"my {_FAV} is{{ what|...| which one}}",
)
BOTH_ASKED: tuple[str, ...] = (
    f"{{what is|what's|tell me|say|do you know|do you remember|repeat}} my name and {{my|}} {_FAV}",
    f"{{what is|what's|tell me|do you know}} my {_FAV} and {{my|}} name",
    f"{{who am i|what is my name}} and {{which {_COL} do i like|what {_COL} do i like best|what is my "
    f"{_FAV}}}",
    "{what do you know about me|what did i tell you|what do you remember about me|what have i told you "
    "about me}",
)
_PLACES: tuple[str, ...] = (
    *CAPITALS,
    *CAPITALS.values(),
    "the north",
    "a small town",
    "far away",
    "the coast",
)
NAME_UNKNOWN = "You have not told me your name."
COLOUR_UNKNOWN = "You have not told me your favourite colour."


@dataclass
class User:
    """Who is talking, and what of it has been said."""

    name: str
    colour: str
    told_name: bool = False
    told_colour: bool = False


def user(rng: random.Random) -> User:
    """A new user; names and colours are sometimes made up or typed in lower case."""
    name = person(rng)
    colour = made_up(rng, 2) if rng.random() < 0.12 else rng.choice(COLOURS)
    return User(name.lower() if rng.random() < 0.1 else name, colour)


def _framed(rng: random.Random, patterns: tuple[str, ...], tail: str) -> tuple[str, ...]:
    """One of the patterns, for some calls with something said before or after it."""
    draw = rng.random()
    lead = _LEAD if draw < 0.15 else ""
    return (lead + rng.choice(patterns) + (tail if 0.12 < draw < 0.4 else ""),)


def tell(rng: random.Random, who: User, what: str) -> Turn:
    """The user says a name, a colour or both."""
    slots = {"n": who.name, "c": who.colour, "p": rng.choice(_PLACES), "d": str(rng.randint(5, 80))}
    if what == "both":
        who.told_name = who.told_colour = True
        answer = f"Nice to meet you, {who.name}. I will remember that you like {who.colour}."
        return Turn(ask(rng, _framed(rng, BOTH_TOLD, _COLOUR_TAIL), slots, "."), answer)
    if what == "name":
        who.told_name = True
        return Turn(
            ask(rng, _framed(rng, NAME_TOLD, _NAME_TAIL), slots, "."),
            f"Nice to meet you, {who.name}.",
            "Noted",
        )
    who.told_colour = True
    return Turn(
        ask(rng, _framed(rng, COLOUR_TOLD, _COLOUR_TAIL), slots, "."),
        f"I will remember that you like {who.colour}.",
        "Noted",
    )


def recall(rng: random.Random, who: User, what: str) -> Turn:
    """The user asks for what was said; the answer is honest where nothing was."""
    if what == "both" and who.told_name and who.told_colour:
        answer = f"Your name is {who.name} and your favourite colour is {who.colour}."
        return Turn(lower_some(rng, ask(rng, BOTH_ASKED, {})), answer)
    if what == "name":
        known = f"Your name is {who.name}." if who.told_name else NAME_UNKNOWN
        return Turn(
            lower_some(rng, ask(rng, NAME_ASKED, {})), known, who.name if who.told_name else "Unknown"
        )
    known = f"Your favourite colour is {who.colour}." if who.told_colour else COLOUR_UNKNOWN
    short = (who.colour if " " not in who.colour else "") if who.told_colour else "Unknown"
    return Turn(lower_some(rng, ask(rng, COLOUR_ASKED, {})), known, short)


def plain(rng: random.Random) -> str:
    """People and their colours, then questions about them: copying from further back, in plain text."""
    people = [(person(rng), rng.choice(COLOURS)) for _ in range(rng.randint(1, 4))]
    lines = [
        rng.choice((f"{n} likes {c}.", f"My name is {n} and my favourite colour is {c}.", f"{n}: {c}."))
        for n, c in people
    ]
    rng.shuffle(people)
    for name, colour in people:
        lines.append(
            rng.choice(
                (
                    f"What is the favourite colour of {name}? {name} likes {colour}.",
                    f"Who likes {colour}? {name} likes {colour}."
                    if sum(c == colour for _, c in people) == 1
                    else "",
                    f"The favourite colour of {name} is {colour}.",
                )
            )
        )
    return " ".join(line for line in lines if line)
