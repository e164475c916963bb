"""Skill: repeats a phrase exactly."""

from __future__ import annotations

import random

from llmctl.demo.corpus.grammar import expand, first_upper
from llmctl.demo.corpus.turn import Turn
from llmctl.demo.corpus.words import ADJECTIVES, COPY_WORDS, NAMES, THINGS, made_up, spliced

ECHO = "I repeat: "
_VERB = (
    "{repeat|say|echo|write|copy|repeat back|say back|type|read out|print|answer with|reply with|respond "
    "with|say again}"
)
_OBJECT = (
    "{this|these words|the following|the words|this phrase|the phrase|this sentence|the sentence|this text|"
    "this line}"
)
COMMANDS: tuple[str, ...] = (
    "{repeat|repeat this|repeat after me|say|say this|say after me|echo|echo this|copy this|copy|again}{:|,|"
    "} <x>",
    f"{_VERB} {_OBJECT}{{:|,|}} <x>",
    f"{_VERB} {_OBJECT} {{back to me|after me|exactly|again|for me|once|back|word for word}}{{:|}} <x>",
    f"{{please|can you|could you|would you|will you|i want you to|you must|just|now|kindly}} {_VERB} "
    f"{_OBJECT}{{:|,}} <x>",
    f"{{please|can you|could you|would you|will you|i want you to|just|now}} {_VERB}{{:|}} <x>",
    "<x> {- repeat that|- say that again|- now repeat it|. repeat this|. now you say it|. say it back}",
    "{after me|your turn|say with me|listen and repeat|read and repeat}: <x>",
    "{what i say you repeat|do as i do|my words again|let us repeat|only say}: <x>",
)

QUOTE_TAILS: tuple[str, ...] = (
    "",
    "{?|.|!|?}",
    "{ please| for me| now| again| once more| back to me| to me| exactly| if you can| aloud}{?|.|!|}",
    "{, please|, thanks|, ok|, can you|, will you}{?|.|!|}",
)
SENTENCES: tuple[str, ...] = (
    "{the|a|my|your|our} {<a>|} <w> is {the|a|my} {<a>|} <w> {of the <w>|and a <w>|}",
    "{i|we|you|they} {never|always|often|can|must|should|will} <w> {the|a|my|} <w> {again|today|at night|}",
    "{all|many|some|two|three|seven} {my|of my|} <w>s are {in the|on the|under my|} {<a>|} <w>",
    "{my|our|his|her} <w> {has|had|needs|likes} {a|the|no} {<a>|} <w>",
    "{where|when|why|how} is {the|my|a} <a> <w>",
    "{<w>|a <w>|the <w>} is {better|more|less|worse} than {<w>|a <w>|the <w>}",
    "do not <w> the <w> before {you <w>|the <w> is <a>}",
    "{no|every|one} <w> {is|was|makes|gives} {a|the|} <a> <w>",
    "the <w> {leaves|comes|starts|sits|stands|sleeps} {at|on|behind|with} {the|my|} <w>",
    "the capital of <w> is <w>",
    "my name is <w>",
    "{i like|i love|you like|we hate} <w> {and|or|with|but not} <w>",
    "<w> <w> {and|with|or|on} <w> <w>",
    "{this|that|it|here} is {not|only|just|really|still} {a|the|my} <w>",
    "<w> {makes|breaks|finds|becomes|wants|was} <w>",
    "{tomorrow|today|yesterday|tonight} {we|i|they|the <w>} <w> {the|a|to the} <w>",
    "{a|one|the} <w>, {a|two|the} <w> and {a|ten|the} <w>",
    "<w> <w>",
    "{please|never|always} <w> {the|your|a} <w> {when|where|while} {it is|you are|they} <w>",
    "{is|was|are} {the|a|your} <w> {<a>|in the <w>}",
)


def phrase(rng: random.Random, most: int = 8) -> str:
    """A phrase to copy: known words, made-up words, names, small numbers."""
    words = []
    invented = rng.choice((0.0, 0.1, 0.3, 0.8))
    for _ in range(rng.randint(1, most)):
        draw = rng.random()
        if draw < invented:
            words.append(made_up(rng))
        elif draw < invented + 0.05:
            words.append(rng.choice(NAMES))
        elif draw < invented + 0.08:
            words.append(str(rng.randint(0, 99)))
        elif draw < invented + 0.2:
            words.append(rng.choice(THINGS[rng.choice(tuple(THINGS))]))
        else:
            words.append(rng.choice(COPY_WORDS))
    if rng.random() < 0.1 and len(words) > 2:
        words[rng.randrange(len(words) - 1)] += ","
    return " ".join(words)


def sentence(rng: random.Random) -> str:
    """A phrase to copy that reads like a sentence, so that copying wins over telling facts."""
    text = expand(rng, rng.choice(SENTENCES))
    while "<" in text:
        text = text.replace("<w>", _word(rng), 1).replace("<a>", rng.choice(ADJECTIVES), 1)
    return text


def _word(rng: random.Random) -> str:
    """Any word: known, a thing, a name or made up."""
    draw = rng.random()
    if draw < 0.25:
        return made_up(rng)
    if draw < 0.5:
        return rng.choice(THINGS[rng.choice(tuple(THINGS))])
    return rng.choice(NAMES) if draw < 0.55 else rng.choice(COPY_WORDS)


def turn_sentence(rng: random.Random) -> Turn:
    """A request to repeat something that reads like a sentence."""
    return _request(rng, sentence(rng))


def turn(rng: random.Random) -> Turn:
    """A request to repeat a phrase of random words."""
    return _request(rng, phrase(rng))


def turn_echo(rng: random.Random) -> Turn:
    """A request to repeat anything; the answer leads in, so its words are the very tokens of the request."""
    text = sentence(rng) if rng.random() < 0.6 else phrase(rng)
    asked = _request(rng, text)
    said = asked.answer
    while f" {said}" not in asked.user and f'"{said}"' not in asked.user:
        asked = _request(rng, text)
        said = asked.answer
    return Turn(asked.user, f'{ECHO}"{said}"' if f'"{said}"' in asked.user else ECHO + said)


def turn_copy(rng: random.Random) -> Turn:
    """As turn_echo, with spliced words among the others and often something said after the quotation."""
    return _copy(rng, 0.0)


def turn_again(rng: random.Random) -> Turn:
    """As turn_copy, often with words that come twice: after them the model must not lose its place."""
    return _copy(rng, 0.4)


def _copy(rng: random.Random, twice: float) -> Turn:
    """A request to repeat a phrase; for a share of the calls one or two of its words come twice."""
    words = (sentence(rng) if rng.random() < 0.7 else phrase(rng)).split(" ")
    share = rng.choice((0.0, 0.15, 0.4))
    words = [spliced(rng) if rng.random() < share else word for word in words]
    if twice and rng.random() < twice:
        at = rng.randrange(len(words))
        words.insert(rng.randint(0, len(words)), words[at])
        words += words[at : at + 2] if rng.random() < 0.3 else []
    text = " ".join(words)
    text = first_upper(text) if rng.random() < 0.4 else text
    command = expand(rng, rng.choice(COMMANDS[:5]))
    command = first_upper(command) if rng.random() < 0.7 else command
    if rng.random() < 0.5:
        return Turn(command.replace("<x>", text), ECHO + text)
    quoted = expand(rng, '"<x>"' + rng.choice(QUOTE_TAILS)).replace("<x>", text)
    return Turn(command.replace("<x>", quoted), f'{ECHO}"{text}"')


def _request(rng: random.Random, text: str) -> Turn:
    """A request to repeat the text, with or without quotation marks."""
    draw = rng.random()
    text = first_upper(text) if draw < 0.3 else text.upper() if draw < 0.34 else text
    if rng.random() < 0.2:
        text += rng.choice((".", "!", "?", "."))
    left, right = rng.choice((("", ""), ("", ""), ('"', '"'), ('"', '"'), ("'", "'")))
    command = expand(rng, rng.choice(COMMANDS))
    command = first_upper(command) if rng.random() < 0.6 and not command.startswith("<") else command
    return Turn(command.replace("<x>", left + text + right), text)


def plain(rng: random.Random) -> str:
    """A drill in which each phrase comes twice or three times."""
    lines = []
    for _ in range(rng.randint(2, 5)):
        text = phrase(rng)
        joint = rng.choice(
            (" - ", ". Again: ", '" and "', ". He repeats: ", " / ", ". The parrot says: ", "; ")
        )
        lines.append(joint.join([text] * rng.choice((2, 2, 3))) + ".")
    return "\n".join(lines)
