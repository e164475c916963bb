"""`llmctl logs list`, `show` and `search`."""

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from llmctl.cli.console import is_terminal
from llmctl.cli.logs.access import Number, SessionArgument, opened_log, session_in, tell_nothing_kept
from llmctl.cli.logs.display import harmless, local_time, write_entry, write_json, write_table
from llmctl.cli.options import Json, console_of
from llmctl.core.errors import UsageError
from llmctl.sessions.formats import iso, label, to_json, to_markdown
from llmctl.sessions.store import Hit, Session

DEFAULT_NUMBER = 20
_COLUMNS = ("ID", "NAME", "UPDATED", "TURNS", "MODEL", "TITLE")
_HIT_COLUMNS = ("ID", "SESSION", "WHEN", "ROLE", "MATCH")
_MAX_LABEL_CHARS = 24


def list_sessions(
    ctx: typer.Context,
    limit: Number = DEFAULT_NUMBER,
    is_json: Json = False,
) -> None:
    """List conversations, the most recent first."""
    console = console_of(ctx)
    with opened_log() as log:
        sessions = log.list(limit=limit or None) if log is not None else []
    if is_json:
        write_json(console, [_session(session) for session in sessions])
    elif sessions and console.is_narrow:
        for session in sessions:
            number, name, *_ = _row(session)
            facts = [number, *([name] if session.name else []), local_time(session.updated)]
            write_entry(console, [*facts, f"{session.num_turns} turns"], session.title)
    elif sessions:
        write_table(console, _COLUMNS, [_row(session) for session in sessions])
    if not sessions:
        tell_nothing_kept(console)


def show(
    ctx: typer.Context,
    session: SessionArgument = None,
    with_retracted: Annotated[
        bool, typer.Option("--all", help="Show what was undone, too.", show_default=False)
    ] = False,
    is_json: Json = False,
) -> None:
    """Show a conversation as markdown."""
    console = console_of(ctx)
    with opened_log() as log:
        found = session_in(log, session)
        turns = log.turns(found.id, with_retracted=with_retracted) if log is not None and found else []
    if found is None:
        tell_nothing_kept(console)
    if is_json:
        write_json(console, to_json(found, turns) if found is not None else {})
    elif found is not None:
        console.write(harmless(to_markdown(found, turns)))


def search(
    ctx: typer.Context,
    query: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY", help="Words that a message must all hold, also inside of longer ones."
        ),
    ],
    limit: Number = DEFAULT_NUMBER,
    is_json: Json = False,
) -> None:
    """Search conversations for words, the newest message first.

    Case does not matter; names of sessions are searched as well. Finding nothing is no error: the output is
    empty, the exit code 0.
    """
    console, text = console_of(ctx), " ".join(query)
    if not text.strip():
        raise UsageError("there is nothing to search for: the query is empty")
    with opened_log() as log:
        hits = log.search(text, limit=limit or None) if log is not None else []
    if is_json:
        write_json(console, [_hit(hit) for hit in hits])
    elif hits and is_terminal(sys.stdout):
        for hit in hits:
            *facts, snippet = _hit_row(hit)
            write_entry(console, facts, snippet)
    elif hits:
        write_table(console, _HIT_COLUMNS, [_hit_row(hit) for hit in hits])
    if log is None:
        tell_nothing_kept(console)
    elif not hits:
        console.note(f"nothing found for {text!r}")


def _session(session: Session) -> dict[str, Any]:
    return {**asdict(session), "created": iso(session.created), "updated": iso(session.updated)}


def _row(session: Session) -> list[str]:
    return [
        str(session.id),
        session.name or "-",
        local_time(session.updated),
        str(session.num_turns),
        session.model or "-",
        session.title,
    ]


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "session_id": hit.session.id,
        "session_name": hit.session.name,
        "session_title": hit.session.title,
        "turn_id": hit.turn.id,
        "role": hit.turn.role,
        "created": iso(hit.turn.created),
        "retracted": hit.turn.is_retracted,
        "snippet": hit.snippet,
    }


def _hit_row(hit: Hit) -> list[str]:
    role = f"{hit.turn.role} (undone)" if hit.turn.is_retracted else hit.turn.role
    called = label(hit.session)[:_MAX_LABEL_CHARS]
    return [str(hit.session.id), called, local_time(hit.turn.created), role, hit.snippet]
