"""Skill: what each llmctl command is for."""

from __future__ import annotations

import random

from llmctl.demo.corpus.grammar import ask, expand, lower_some
from llmctl.demo.corpus.turn import Turn

COMMANDS: dict[str, str] = {
    "chat": "talks with a model in the terminal",
    "serve controller": "starts the controller, which keeps track of the workers",
    "serve worker": "loads a model and serves it as a worker of the controller",
    "serve api": "starts the web API, which is compatible with OpenAI clients",
    "models list": "lists the known models",
    "models match": "shows which model family a name or folder belongs to",
    "delta make": "makes a delta, the difference between a model and its base",
    "delta apply": "applies a delta to a base model and writes the full model",
    "compress": "writes a smaller, compressed copy of a model",
    "config show": "shows the settings that are in use",
    "doctor": "checks this machine and the installation for problems",
}
GOALS: dict[str, str] = {
    "chat": "{talk to|chat with|speak with|talk with|have a chat with} {a|my|some|the} model "
    "{in the terminal|}",
    "serve controller": "{start|run|launch} {the|a} controller",
    "serve worker": "{start|run|launch|add} {a|the|another} worker",
    "serve api": "{start|run|launch|offer|get} {the|an} {web api|api|api server|openai api|http api}",
    "models list": "{list|see|show} {the|all|all the} {models|known models|model names}",
    "models match": "{see|find out|know} which {family|model family} "
    "{a model|a name|my model|my folder} {belongs to|has}",
    "delta make": "{make|create|build|compute} a {delta|weight delta|delta file}",
    "delta apply": "{apply|use|add|merge} a {delta|weight delta|delta file}",
    "compress": "{compress|shrink|quantise|quantize|make smaller} {a|my|the} model",
    "config show": "{see|show|print|look at} {the|my|all} {settings|configuration|config|options}",
    "doctor": "{check|test|examine|find problems in} {my|the} {installation|machine|setup|computer|system}",
}
_THE = "{the command|the llmctl command|the subcommand|}"
_WHAT = "{what is|what's|whats}"
FORWARD: tuple[str, ...] = (
    f"what {{does|will|would|can}} {_THE} <k> do",
    "what {does|do you do with|do i do with|can i do with|happens with|happens in|do people do with} "
    f"{_THE} <k> {{do|}}",
    f"{_WHAT} {_THE} <k> {{for|good for|about|used for|doing|meant for}}",
    f"{_WHAT} {{the use|the purpose|the point|the job|the task|the meaning|the role}} of {_THE} <k>",
    f"{_WHAT} {_THE} <k>",
    f"{{explain|describe|define|show me|teach me}} {_THE} <k> {{to me|for me|briefly|in short|}}",
    f"{{tell me|say|write|i want to know|i'd like to know}} {{what {_THE} <k> does|about {_THE} <k>|what "
    "<k> is for}",
    "{when|why|for what|how} {do|should|would|can} {i|you|we|people} {use|run|need|type|call|"
    f"start}} {_THE} <k>",
    f"{{can|could}} you {{explain|describe|tell me about}} {_THE} <k>",
    f"what {{happens|do i get|comes|do you get}} {{when|if}} i {{run|type|use|call|start|enter}} {_THE} <k>",
    f"{{do i need|should i run|should i use|may i use|must i run}} {_THE} <k>",
    "{i don't understand|i do not understand|i have a question about|help with|help me with|help on|help "
    f"for}} {_THE} <k>",
    f"{_THE} <k>{{: what is it|, what is it for|, what does it do|: meaning|: help|, explain|, what is that|"
    "}",
    "{what does <k> mean|meaning of <k>|purpose of <k>|use of <k>|<k> help|<k> usage|what can <k> do}",
    "{there is|i see|i found|i read about|the manual names} {a command called|a command named|the command} "
    "<k>{.|,} "
    "{what is it for|what does it do|what is that|explain it|why}",
)
BACKWARD: tuple[str, ...] = (
    "{how do i|how can i|how to|how do you|how would i|how do we|how can we} <g> {with llmctl|in llmctl|"
    "here|}",
    "{which|what} {command|llmctl command|subcommand} {do i use|do i need|should i use|can i use|must i "
    "type|helps me} to <g>",
    "{i want|i need|i would like|i'd like|i have|i am trying} to <g>",
    "{tell me|show me|explain} how to <g> {with llmctl|}",
)


def _spoken(rng: random.Random, name: str) -> str:
    """The command as a user types it."""
    return rng.choice(
        (f"llmctl {name}", f"`llmctl {name}`", f"llmctl {name}", f'"llmctl {name}"', name, f"`{name}`")
    )


def turn(rng: random.Random) -> Turn:
    """A question about one command."""
    name, use = rng.choice(tuple(COMMANDS.items()))
    answer = f"`llmctl {name}` {use}."
    if rng.random() < 0.2:
        slots = {"g": expand(rng, GOALS[name])}
        return Turn(lower_some(rng, ask(rng, BACKWARD, slots)), answer)
    return Turn(lower_some(rng, ask(rng, FORWARD, {"k": _spoken(rng, name)})), answer)


def plain(rng: random.Random) -> str:
    """A few lines as from a manual."""
    lines = []
    for name, use in rng.sample(tuple(COMMANDS.items()), rng.randint(1, 4)):
        lead = expand(rng, "{The command|In the terminal,|Note that|On the command line,|} ")
        lines.append(f"{lead} `llmctl {name}` {use}.".strip())
    return " ".join(lines)
