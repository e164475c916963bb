"""`llmctl serve stop`: ends fleets of this machine."""

import os
from typing import Annotated

import typer

from llmctl.cli.options import Json, console_of, settings_of
from llmctl.core.errors import UsageError
from llmctl.core.places import Places

_BEYOND_S = 25.0
"""Beyond the drain: what a supervisor allows its parts, one kind after the other."""
_HURRIED_S = 10.0


def stop(
    ctx: typer.Context,
    fleet: Annotated[
        str | None,
        typer.Argument(
            metavar="[FLEET]",
            help="Its name in llmctl serve ps, or its URL; left out, the only one.",
            show_default=False,
        ),
    ] = None,
    is_all: Annotated[bool, typer.Option("--all", help="End all fleets of this machine.")] = False,
    is_hurried: Annotated[
        bool, typer.Option("--now", help="Do not wait for open requests.", show_default=False)
    ] = False,
    is_json: Json = False,
) -> None:
    """Stop a fleet of this machine.

    Open requests have the time that its --drain gives them.
    """
    from llmctl.services.up.state import Fleets, chosen, end

    console = console_of(ctx)
    settings_of(ctx)
    if is_all and fleet is not None:
        raise UsageError(f"--all ends all fleets, and {fleet} is one", hint="give one of the two")
    running = Fleets(Places.from_environ(os.environ)).running()
    ended = []
    for state in running if is_all else [chosen(running, fleet)]:
        wait_s = _HURRIED_S if is_hurried else state.drain_s + _BEYOND_S
        is_peaceful = end(state, wait_s=wait_s, is_hurried=is_hurried)
        ended.append({"name": state.name, "url": state.url, "was_killed": not is_peaceful})
        if not is_peaceful:
            console.note(f"fleet {state.name} did not end and was killed", is_vital=True)
        elif not is_json:
            console.note(f"fleet {state.name} has ended")
    if is_json:
        console.json({"ended": ended})
