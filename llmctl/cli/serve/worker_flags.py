"""What can be said of workers, to one or to all of a fleet; and the words that say it again to a process."""

from collections.abc import Collection, Iterator
from typing import Annotated, Any

import typer

from llmctl.cli.serve.wanted import TASKS

_MODELS, _ENGINE = "Models", "Engine"


def _engine(help_text: str, *names: str, metavar: str = "NUMBER", low: int | None = None) -> Any:
    return typer.Option(
        *names, help=help_text, metavar=metavar, min=low, rich_help_panel=_ENGINE, show_default=False
    )


Templates = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        metavar="FILE|NAME",
        help="Chat template instead of the model's; of several models MODEL=FILE|NAME. Repeatable.",
        rich_help_panel=_MODELS,
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        metavar="|".join(TASKS),
        help="What a model is to do, auto: by its files; of several models MODEL=TASK. Repeatable.",
        rich_help_panel=_MODELS,
    ),
]
Deltas = Annotated[
    list[str] | None,
    typer.Option(
        "--delta",
        metavar="DELTA",
        help="Apply it to the model while it loads, a folder or hub id; of several models MODEL=DELTA. "
        "Repeatable.",
        rich_help_panel=_MODELS,
    ),
]
MaxRunning = Annotated[
    int | None, _engine("Requests that run at once in a worker; left out, as suits the device.", low=1)
]
MaxWaiting = Annotated[
    int | None, _engine("Requests that may wait in a worker, 512 if not set; more are told 429.", low=0)
]
MaxStepTokens = Annotated[
    int | None, _engine("Tokens that are computed together; left out, as suits the device.", low=1)
]
KvMemory = Annotated[
    str | None,
    _engine("Memory for keys and values of each model: 4GiB; left out, what is free.", metavar="SIZE"),
]
NoPrefixCache = Annotated[
    bool, _engine("Compute what prompts have in common anew each time.", "--no-prefix-cache")
]


def words(ctx: typer.Context, names: Collection[str]) -> Iterator[str]:
    """The flags among the parameters `names` of the running command, as they could be typed."""
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        # What is not given is None, False or empty; 0 is a value.
        if param.name not in names or value is None or value is False or value in ((), []):
            continue
        flag = max(param.opts, key=len)
        if value is True:
            yield flag
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            yield f"{flag}={each}"
