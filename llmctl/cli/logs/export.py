"""`llmctl logs export`: a conversation as a file of its own."""

import json
from pathlib import Path
from typing import Annotated

import typer

from llmctl.cli.logs.access import SessionArgument, opened_log, session_in
from llmctl.cli.logs.display import harmless, write_json
from llmctl.cli.options import console_of
from llmctl.core.errors import NotFoundError, UsageError
from llmctl.core.files import write_whole
from llmctl.core.places import expanded
from llmctl.sessions.formats import to_json, to_markdown

FORMATS = ("md", "json")
_STDOUT = "-"


def export(
    ctx: typer.Context,
    session: SessionArgument = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="|".join(FORMATS),
            help="json can be loaded again; left out, a FILE ending in .json gets it, else md.",
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Left out, or -, stdout.")
    ] = None,
    with_retracted: Annotated[
        bool, typer.Option("--all", help="With what was undone, too.", show_default=False)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace FILE if it exists.", show_default=False)
    ] = False,
) -> None:
    """Write a conversation to stdout or to a file."""
    console = console_of(ctx)
    if kind is not None and kind not in FORMATS:
        raise UsageError(f"--format must be one of {', '.join(FORMATS)}, not {kind!r}")
    target = expanded(output) if output is not None and output != _STDOUT else None
    if target is not None and target.exists() and not target.is_file() and not target.is_dir():
        raise UsageError(f"{output} is no regular file", hint="leave out -o to write to stdout")
    with opened_log() as log:
        found = session_in(log, session)
        if log is None or found is None:
            raise NotFoundError("there is no conversation to export", hint="none has been kept yet")
        turns = log.turns(found.id, with_retracted=with_retracted)
    is_json = (kind or _kind_of(target)) == "json"
    if target is None:
        if is_json:
            write_json(console, to_json(found, turns))
        else:
            console.write(harmless(to_markdown(found, turns)))
        return
    text = json.dumps(to_json(found, turns), ensure_ascii=False, indent=2) + "\n"
    write_whole(target, text if is_json else to_markdown(found, turns), replaces=force)
    console.note(f"written: {output}")


def _kind_of(target: Path | None) -> str:
    return "json" if target is not None and target.suffix.lower() == ".json" else "md"
