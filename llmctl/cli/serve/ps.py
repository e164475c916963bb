"""`llmctl serve ps`: the fleets of this machine."""

import os
import time
from typing import TYPE_CHECKING

import typer

from llmctl.cli.logs.display import write_table
from llmctl.cli.options import Json, console_of, settings_of
from llmctl.core.places import Places

if TYPE_CHECKING:
    from llmctl.services.up.state import FleetState

_COLUMNS = ("NAME", "URL", "MODELS", "PARTS", "UPTIME")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def ps(ctx: typer.Context, is_json: Json = False) -> None:
    """List the fleets that run on this machine.

    PARTS are those that live, of all: a part that has died is about to be started again.
    """
    from llmctl.cli.serve.watching import as_dict
    from llmctl.services.up.state import Fleets

    console = console_of(ctx)
    settings_of(ctx)
    running = Fleets(Places.from_environ(os.environ)).running()
    if is_json:
        console.json({"fleets": [as_dict(state) for state in running]})
    elif running:
        write_table(console, _COLUMNS, [_cells(state) for state in running])
    else:
        console.note("no fleet runs on this machine: llmctl serve up starts one")


def _cells(state: "FleetState") -> list[str]:
    num_alive = sum(part.is_alive for part in state.parts)
    return [
        state.name,
        state.url or "(starting)",
        ", ".join(state.models) or "-",
        f"{num_alive}/{len(state.parts)}",
        uptime(time.time() - state.supervisor.started),
    ]


def uptime(seconds: float) -> str:
    """Two numbers at most: 4 s, 12 min, 3 h 20 min, 5 d 2 h."""
    whole = max(0, int(seconds))
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"
