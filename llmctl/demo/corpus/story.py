"""Skill: short stories in which the asked name and thing occur."""

from __future__ import annotations

import random

from llmctl.demo.corpus.grammar import ask, expand, fill, lower_some
from llmctl.demo.corpus.turn import Turn
from llmctl.demo.corpus.words import COPY_WORDS, article, person, spliced, thing

_TELL = (
    "{tell|write|tell me|write me|give me|make up|invent|compose|i want|i'd like|i would like|i want to "
    "hear|read me|create}"
)
_STORY = (
    "{a|a short|one|a little|a small|a nice|a tiny|a brief|a good|another|a new|a funny|a bedtime} {story|"
    "tale|story|story}"
)
_ON = "{about|of|on|with|that is about|featuring}"
BOTH: tuple[str, ...] = (
    f"{_TELL} {_STORY} {_ON} <n> and <a>",
    f"{_TELL} {_STORY} {_ON} <n> and {{the|his|her|their}} <t>",
    f"{_TELL} {_STORY} {_ON} {{a girl|a boy|a child|a woman|a man|a friend|somebody|someone|a hero}} "
    "{named|called|whose name is} <n> and <a>",
    f"{_TELL} {_STORY} {_ON} <n> {{who|, who}} {{finds|has|loves|sees|gets|wants|owns|loses|buys|meets|"
    "looks for} <a>",
    f"{_TELL} {_STORY} {{in which|where}} <n> {{finds|has|sees|gets|wants|meets|looks for|loses|plays "
    "with} <a>",
    f"{_TELL} {_STORY} {_ON} <a> and {{a girl named|a boy named|a child named|}} <n>",
    "{can|could|would|will} you {please|} {tell|write|invent|make up} {me|} " + _STORY + " about <n> and <a>",
    "{once upon a time there was|there once was|there was} {a girl|a boy|a child} named <n> with <a>. {go "
    "on|tell more|tell the story}",
    "{story|short story|tale|a story|bedtime story}{: |, | about }<n> and <a>",
    "{story|short story|a story}{: |, }<n>, <t>",
    f"{_TELL} {_STORY}. {{use|it has|put in|include}} {{the name|}} <n> and <a>",
    f"{_TELL} {_STORY}. {{the hero|the main person|the child|the girl|the boy}} is <n>, {{and it has|with|"
    "and there is} <a>",
)
FREE: tuple[str, ...] = (
    f"{_TELL} {_STORY}",
    "{can|could|will} you tell me " + _STORY,
    "{a story|story time|story|short story|do you know a story|now a story|tell me something}",
    f"{_TELL} {_STORY} about {{animals|children|friends|the world|you|a journey|nature|anything|something "
    "nice}",
)
NAME_ONLY: tuple[str, ...] = (f"{_TELL} {_STORY} {_ON} <n>", "{story|a story} about <n>")
THING_ONLY: tuple[str, ...] = (f"{_TELL} {_STORY} {_ON} {{<a>|the <t>}}", "{story|a story} about <a>")
OPENINGS: tuple[str, ...] = (
    "One {sunny|cold|rainy|windy|quiet} {morning|day|evening}, <n> {found|saw} <a> {near the river|in the "
    "garden|by the road|in the forest}.",
    "<n> {had always wanted|dreamed of|wished for} <a>.",
    "Once there was a child named <n> who {loved|owned|lived with} <a>.",
    "In a {small|quiet|little} {village|town} lived <n>, who had <a>.",
)
PLOTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "animal": (
        (
            "The <t> was {hungry|cold|tired} and {could not find the way home|had no friends}.",
            "<n> gave the <t> {some bread and milk|a warm blanket|water and a soft bed}.",
            "{After that|The next day} they {walked|ran|played} together {in the fields|along the river|"
            "under the trees}.",
            "When night came, the <t> {fell asleep beside|would not leave|stayed close to} <n>.",
            "{From then on|Since that day} they were the best of friends.",
        ),
        (
            "Every day the <t> {waited at the gate|sat by the window|slept under the stairs}.",
            "But one day the <t> was gone, and <n> was very {sad|worried}.",
            "<n> {looked in the barn|called and called|asked all the neighbours}.",
            "{At last|In the end} a small sound came from {behind the wall|under the bridge|the old tree}.",
            "There sat the <t>, {safe and well|dirty but happy}, and <n> carried it home.",
        ),
    ),
    "toy": (
        (
            "<n> took the <t> {to school|to the park|everywhere}.",
            "One day {the wind was strong|it rained hard|there was a big crowd} and the <t> {was lost|"
            "disappeared}.",
            "{A kind old man|A little girl|A friendly neighbour} had {seen|found} it {by the lake|in the "
            "street|near the bridge}.",
            '"Is this yours?" {he asked|came the question|said a voice}.',
            "<n> {laughed|smiled} and shared the <t> with {everyone|all the children} that afternoon.",
        ),
    ),
    "vehicle": (
        (
            "The <t> was {old and slow|small but strong|covered with dust}, but it still {worked|moved}.",
            "<n> cleaned it {for three days|with great care|from top to bottom} and {packed some food|took "
            "a map}.",
            "Then the journey began, {over the hills|along the coast|through the dark forest}.",
            "On the way the <t> {stopped|made a strange noise}, and <n> {fixed it with a rope|found the "
            "loose screw}.",
            "{Late in the evening|When the stars came out} they {reached the sea|arrived at last}, and <n> "
            "was proud of the <t>.",
        ),
    ),
    "find": (
        (
            "It was {covered with mud|very old|shining in the sun}, and nobody knew where it came from.",
            "<n> {showed the <t> to a wise woman|carried the <t> home|asked the teacher about the <t>}.",
            '"{Keep it|Take care of it}," {was the answer|said grandmother}, '
            '"it {brings luck|has a secret}."',
            "That night {a light came from|a soft song came from|<n> dreamed of} the <t>.",
            "{In the morning|The next day} <n> {gave it back to its owner|put it in a safe place} and felt "
            "{happy|rich}.",
        ),
    ),
    "food": (
        (
            "It was {so big that nobody could carry it|the best in the whole village|still warm}.",
            "<n> wanted to eat the <t> alone, but then {a hungry bird|a poor traveller|a little brother} "
            "came by.",
            "{They looked at each other for a while|For a moment nobody spoke}.",
            "Then <n> cut the <t> into {two|equal} parts, and they {sat down in the grass|ate it together}.",
            "It had never tasted {so good|better}, because it was shared.",
        ),
    ),
    "nature": (
        (
            "{People said|Everybody said} that the <t> {was magic|could grant a wish|knew a secret}.",
            "So <n> {got up early|packed a bag} and went {to see it|to find out} {alone|with a lamp}.",
            "The way was long, and {it began to snow|the bridge was broken|the night was dark}.",
            "But {the moon|an owl|an old sailor} showed <n> where to go.",
            "{At sunrise|Finally} <n> stood before the <t>, {made a quiet wish|said thank you}, and {smiled|"
            "went home happy}.",
        ),
    ),
}


def tell(rng: random.Random, name: str, kind: str, what: str) -> str:
    """One story of five to six sentences, none of them twice."""
    parts = (rng.choice(OPENINGS), *rng.choice(PLOTS[kind]))
    text = " ".join(expand(rng, part) for part in parts)
    return fill(text, {"n": name, "t": what, "a": article(what)})


def turn(rng: random.Random) -> Turn:
    """A request for a story and the story."""
    name, (kind, what) = person(rng), thing(rng)
    draw = rng.random()
    patterns = BOTH if draw < 0.8 else FREE if draw < 0.88 else NAME_ONLY if draw < 0.94 else THING_ONLY
    user = ask(rng, patterns, {"n": name, "t": what, "a": article(what)}, ".")
    return Turn(lower_some(rng, user, 0.05) if patterns is FREE else user, tell(rng, name, kind, what))


def turn_any(rng: random.Random) -> Turn:
    """A request for a story about a name and a thing that are often words never seen before."""
    name, (kind, what) = person(rng, 0.35), thing(rng)
    draw = rng.random()
    if draw < 0.2:
        name = spliced(rng).capitalize()
    if rng.random() < 0.5:
        *front, noun = what.split(" ")
        noun = spliced(rng) if rng.random() < 0.7 else rng.choice(COPY_WORDS)
        what = " ".join((*front, noun))
    user = ask(rng, BOTH, {"n": name, "t": what, "a": article(what)}, ".")
    return Turn(user, tell(rng, name, kind, what))


def plain(rng: random.Random) -> str:
    """A story with or without a title."""
    name, (kind, what) = person(rng), thing(rng)
    title = rng.choice(("", f"{name} and the {what}\n", f"A story about {name} and {article(what)}.\n"))
    return title + tell(rng, name, kind, what)
