"""`llmctl logs delete`: what is deleted is gone from the disk."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from llmctl.cli.console import Console, is_terminal
from llmctl.cli.logs.access import opened_log, session_in
from llmctl.cli.options import Json, console_of
from llmctl.core.errors import UsageError
from llmctl.sessions.offer import offer
from llmctl.sessions.store import Session, SessionLog

_DATE = "%Y-%m-%d"


def delete(
    ctx: typer.Context,
    session: Annotated[
        list[str] | None, typer.Argument(metavar="SESSION", help="Names or numbers.", show_default=False)
    ] = None,
    is_all: Annotated[
        bool, typer.Option("--all", help="Delete every conversation.", show_default=False)
    ] = False,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="YYYY-MM-DD", help="Delete those not used since that day began."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False,
    is_json: Json = False,
) -> None:
    """Delete conversations for good."""
    console = console_of(ctx)
    if [bool(session), is_all, before is not None].count(True) != 1:
        raise UsageError("say what to delete: SESSION..., --all, or --before YYYY-MM-DD, one of them")
    before_s = _midnight(before) if before is not None else None
    num_deleted = 0
    with opened_log() as log:
        chosen = _chosen(log, session or [], before_s)
        if log is not None and chosen and (yes or _is_confirmed(console, chosen)):
            num_deleted = log.delete([found.id for found in chosen])
            offer(log)
    if is_json:
        console.json({"deleted": num_deleted})
    else:
        console.line(f"deleted {_counted(num_deleted, 'session')}")


def _chosen(log: SessionLog | None, names: Sequence[str], before_s: float | None) -> list[Session]:
    """The sessions named, else all of those last used before `before_s`, else all."""
    if names:
        found = [session_in(log, name) for name in names]
        # One can be given twice, by its name and by its number.
        return list({session.id: session for session in found if session is not None}.values())
    every = log.list(limit=None, with_empty=True) if log is not None else []
    return [session for session in every if before_s is None or session.updated < before_s]


def _is_confirmed(console: Console, chosen: Sequence[Session]) -> bool:
    if not is_terminal(sys.stdin):
        raise UsageError("without a terminal nobody can be asked whether to delete", hint="add --yes")
    num_turns = sum(session.num_turns for session in chosen)
    what = f"{_counted(len(chosen), 'session')} with {_counted(num_turns, 'turn')}"
    try:
        return console.ask(f"Delete {what} for good? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        console.note("")
        return False


def _midnight(date: str) -> float:
    """Unix seconds at which a day begins here."""
    try:
        return datetime.strptime(date, _DATE).timestamp()
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--before must be a day such as 2026-01-31, not {date!r}") from error


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
