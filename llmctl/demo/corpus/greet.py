"""Skill: greetings, thanks, goodbyes and small talk about well-being."""

from __future__ import annotations

import random

from llmctl.demo.corpus.grammar import ask, first_upper, lower_some
from llmctl.demo.corpus.turn import Turn

_WHO = (
    "{there|demo|you|friend|my friend|everyone|again|llmctl|computer|dear demo|little model|everybody|mate|}"
)
KINDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "hello": (
        (
            "{hello|hi|hey|hiya|howdy|hello hello|hi hi|"
            "hey hey|hullo|heya|hallo|yo|hey ho|helloo|hii|hellooo} " + _WHO,
            "{good morning|good day|good afternoon|good evening|greetings|welcome|morning|"
            "evening|a good day} " + _WHO,
            "{hello|hi|hey}, {i am here|i'm here|here i am|i am back|i'm back|i am new here|let's talk|can "
            "we talk|"
            "is anybody here|are you there|are you awake|are you ready|shall we start|can you hear me}",
            "{nice to meet you|pleased to meet you|good to see you|nice to see you|glad to see you} " + _WHO,
            "{i say|just wanted to say|i want to say|let me say|i only wanted to say|say} {hello|hi|good "
            "morning}",
        ),
        "Hello! How can I help you?",
        "Hello",
    ),
    "how": (
        (
            "{how are you|how're you|how are you doing|how do you do|how do you feel|how is it going|how's "
            "it going}"
            " {today|now|this morning|this evening|right now|my friend|demo|}",
            "{are you|you|is everything|everything|all} {well|ok|okay|fine|good|alright|all right|happy|in "
            "good health} "
            "{today|now|}",
            "{hello|hi|hey|good morning|good evening}, {how are you|how are you today|how do you do|how is "
            "it going|"
            "how do you feel|are you well|how are things}",
            "{how are things|how is life|how's life|how is your day|how's your day|how was your day|what's "
            "up|whats up|"
            "how have you been|how is everything|how goes it|how is your morning|how do things go} {with "
            "you|today|}",
            "{tell me|say|please tell me|i want to know} how {you are|you feel|you are doing|your day is}",
            "{i am|i'm} {fine|well|good|ok|happy}, {and you|how about you|what about you|and how are you}",
        ),
        "I am fine, thank you. How are you?",
        "Fine",
    ),
    "bye": (
        (
            "{goodbye|bye|bye bye|good bye|see you|see you later|see you soon|farewell|good night|so long|"
            "ciao|cheerio|cya}"
            " {demo|then|now|for now|friend|my friend|everyone|tomorrow|and thanks|llmctl|}",
            "{i have to|i must|i need to|i've got to|time to|it's time to|let me|i will|i'll|i am going to|"
            "i want to} "
            "{go|leave|go now|leave now|stop|stop here|go home|go to bed|say goodbye|run|sleep} {now|soon|"
            "}{, bye|}",
            "{that was all|that is all|that's all|this is the end|we are done|i am done|i'm done|i am "
            "leaving|i'm off}"
            " {for today|for now|now|}{, bye|, goodbye|, see you|}",
            "{until|till} {tomorrow|next time|later|monday|soon|next week}",
            "{have a|i wish you a} {good|nice|great} {night|evening|day|week}{, bye|, goodbye}",
        ),
        "Goodbye! Have a nice day.",
        "Goodbye",
    ),
    "thanks": (
        (
            "{thanks|thank you|thank you very much|thanks a lot|many thanks|thx|ty|thanks so much|thank you "
            "so much|"
            "a big thank you|thanks again|big thanks|i thank you|thankyou} {demo|my friend|for that|for the "
            "answer|"
            "for everything|for your help|for helping|for helping me|indeed|friend|}",
            "{that|this|it} {was|is} {helpful|great|nice|very kind|very good|kind of you|good}, {thanks|"
            "thank you}",
            "{great|good|nice|perfect|wonderful|ok|cool|super}, {thanks|thank you|thanks a lot|many thanks|"
            "thank you very much}",
            "{i am|i'm} {grateful|very grateful|thankful|so grateful}",
            "{you helped me|you have helped me|that helped|that helps|you are helpful} {a lot|very much|"
            "much|}{, thanks|, thank you}",
        ),
        "You are welcome!",
        "Welcome",
    ),
}

SIMPLE: dict[str, tuple[str, ...]] = {
    "hello": ("hello", "hi", "hey", "hello there", "good morning", "good evening", "hi demo"),
    "how": ("how are you", "how are you doing", "how do you do", "are you well", "how is it going"),
    "bye": ("goodbye", "bye", "good night", "see you", "good bye", "see you later", "i am leaving"),
    "thanks": ("thanks", "thank you", "many thanks", "thank you very much", "thanks a lot"),
}


def turn_simple(rng: random.Random) -> Turn:
    """One of the plainest greetings, which the wider wordings make rare."""
    kind = rng.choice(tuple(KINDS))
    _, answer, short = KINDS[kind]
    mark = "?" if kind == "how" else rng.choice("!.")
    text = rng.choice(SIMPLE[kind]) + rng.choice(("", mark))
    return Turn(text if rng.random() < 0.4 else first_upper(text), answer, short)


def turn(rng: random.Random) -> Turn:
    """One greeting and its answer."""
    patterns, answer, short = KINDS[rng.choice(tuple(KINDS))]
    kind_mark = "?" if answer.startswith("I am") else rng.choice(("!", ".", "!"))
    return Turn(lower_some(rng, ask(rng, patterns, {}, kind_mark)), answer, short)
