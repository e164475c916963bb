"""Skill: says that it is a demo and how to run a real model; also the answer to what it cannot know."""

from __future__ import annotations

import random

from llmctl.demo.corpus.grammar import ask, lower_some
from llmctl.demo.corpus.turn import Turn
from llmctl.demo.corpus.words import COPY_WORDS, THINGS, person

EXAMPLE = "`llmctl chat Qwen/Qwen2.5-0.5B-Instruct`"
WHO = (
    "I am the small demo model of llmctl. To talk to a real model, run `llmctl chat MODEL`, for example "
    f"{EXAMPLE}."
)
HOW = (
    f"Run `llmctl chat MODEL`, for example {EXAMPLE}. MODEL can also be a local folder. I am only the demo "
    "model."
)
UNKNOWN = "I am only a small demo model and do not know that. Run `llmctl chat MODEL` to ask a real model."
_REAL = (
    "{real|bigger|large|larger|better|proper|serious|full|true|different|smarter|stronger|other|good|second|"
    "new|useful} "
    "{model|models|language model|llm|ai|chat model|neural network|assistant|checkpoint}"
)
WHO_ASKED: tuple[str, ...] = (
    "{who|what} are you {exactly|really|actually|anyway|}",
    "{what|which|what kind of|what sort of|what type of} {model|ai|language model|llm|program|bot|chatbot|"
    "assistant|network}"
    " {are you|is this|is that|do i talk to|am i talking to|do you run|is running|answers me|is it|am i "
    "using}",
    "{are you|is this|is that|am i talking to|do i talk to} {chatgpt|gpt|gpt-4|claude|llama|qwen|gemini|"
    "mistral|a human|"
    "a person|a robot|a bot|a machine|an ai|a real model|a big model|a demo|the demo|a language model|real|"
    "human|"
    "a toy|a real ai|a chatbot|a small model|a large model|a program|intelligent|clever|smart|a computer}",
    "{tell me|say|explain|describe|write} {something about|a bit about|more about|about|} {yourself|you|who "
    "you are|what you are}",
    "{introduce|describe|present|explain} yourself",
    "{what|which} {can you do|are you able to do|do you do|are you for|are your skills|do you know|are you "
    "good at|"
    "is your purpose|is your name|is your job|can i ask you|can i do with you}",
    "{how big|how large|how small|how good|how smart|how old|how many parameters} are you",
    "{how many|what number of} parameters do you have",
    "{who|which company|which team} {made|built|trained|wrote|created|programmed|develops} you",
    "{who do i talk to|who am i talking to|who is this|who is there|who answers|what is this|what is llmctl|"
    "what's this}"
    " {here|now|}",
    "{why are you|why is it that you are} so {small|bad|stupid|simple|slow|fast|tiny|dumb|limited}",
    "{do you have|have you got|what is|what's|tell me|may i know} {a name|your name}",
    "{you are|you're|so you are|this is} {just|only|really|} {a demo|a toy|a small model|a bot|a robot|a "
    "program}{, right|}",
    "{where do you come from|where are you from|how do you work|how were you made|how were you trained|are "
    "you alive}",
)
HOW_ASKED: tuple[str, ...] = (
    "how {do i|can i|to|do you|does one|should i|would i|do we|can we} {run|use|start|chat with|talk to|"
    "load|try|get|open|"
    f"switch to|download|launch|talk with|have|work with}} {{a|another|some|the|my own|a}} {_REAL} {{here|"
    "with llmctl|in llmctl|}",
    "{i want|i need|i would like|i'd like|let me|i prefer|i wish|can i|may i|could i} "
    f"{{to run|to use|to try|to talk to|to have|to chat with|to start}} {{a|another|some}} {_REAL} "
    "{instead|now|}",
    f"{{where|how}} {{do i find|can i find|do i get|can i get}} {{a|another}} {_REAL}",
    f"{{is there|do you have|have you got|what about|are there}} {{a|any|some}} {_REAL}",
    "{what|which} command {runs|starts|loads|opens|do i need for|do i use for|gives me|is for} {a|"
    f"another}} {_REAL}",
    "{show|tell|explain} {me|to me|us} how to {run|use|start|load|try|talk to} {a|another|my} "
    f"{_REAL}",
    f"{{switch to|use|load|run|start|give me|bring me|get me}} {{a|another}} {_REAL}",
    "how {do i|can i|to|do we} {run|use|load|start|try|chat with} {qwen|llama|mistral|gemma|phi|a model "
    "from hugging face|"
    "my own model|a hugging face model|a local model|a model in a folder|my fine-tuned model|vicuna|a model "
    "of my choice}",
    "{can|could} {you|llmctl|this tool} {run|load|use|start} {qwen|llama|mistral|gemma|vicuna|other models|"
    "another model}",
    "{how do i|how can i|how to} get {better|good|real|smarter|longer|useful} answers",
)
UNKNOWN_ASKED: tuple[str, ...] = (
    "{why|how|when|where} {do|does|did|can|will} {the|a|my|people with a|every} <w> <v> {the|a|my|in the|"
    "with a} <x>",
    "{explain|describe|define|discuss|analyse|summarise|summarize} {the|a|my} <w> {of the <x>|and the <x>|"
    "to me|}",
    "{write|create|make|draft} {a|some|me a} {poem|essay|letter|song|program|function|joke|script|recipe|"
    "email|plan|list}"
    " {about|for|on|with} {the|a|my} <w>",
    "who {invented|discovered|found|painted|wrote|built|won|killed|owns|is} {the|a} <w>",
    "{what is|what's} the {meaning|weight|price|colour|age|size|speed|history|name|temperature|height|"
    "origin|purpose} of "
    "{the|a|my} <w>",
    "{what is|what's|what are} {a|an|the} <w>{| <x>}",
    "{translate|spell|rhyme} <w> {into|to|in} {french|german|spanish|latin|italian}",
    "{how much|how far|how old|how tall|how long|how heavy|how fast} is {the|a|my} <w>",
    "{should i|can i|may i|must i} {buy|sell|eat|paint|clean|fix|visit|keep} {the|a|my} <w>",
    "{who is|who was|where is|how old is} <n> <n>",
    "{what will|what is} the weather {be|} {tomorrow|today|in <n>|next week|like}",
    "{solve|prove|compute|integrate} the {equation|theorem|problem|function} of the <w>",
    "{tell me a joke|make me laugh|sing a song|write a poem|write code|play chess|what time is it|what day "
    "is it|"
    "what is the date|what is the news|who is the president|what is love|what is the meaning of life|do my "
    "homework|"
    "write a python script|what is a language model|what is a neural network|who won the game|book a flight}",
)


def turn(rng: random.Random) -> Turn:
    """A question about the model, about real models, or about something it cannot know."""
    draw = rng.random()
    if draw < 0.4:
        return Turn(lower_some(rng, ask(rng, WHO_ASKED, {})), WHO, "Demo")
    if draw < 0.72:
        return Turn(lower_some(rng, ask(rng, HOW_ASKED, {})), HOW)
    things = THINGS[rng.choice(tuple(THINGS))]
    slots = {
        "w": rng.choice(rng.choice((COPY_WORDS, things))),
        "x": rng.choice(things),
        "v": rng.choice(COPY_WORDS),
        "n": person(rng),
    }
    return Turn(lower_some(rng, ask(rng, UNKNOWN_ASKED, slots)), UNKNOWN)
