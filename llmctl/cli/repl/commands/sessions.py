"""Commands that keep conversations and bring them back: save, load, export, name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.cli.repl.complete import paths
from llmctl.cli.repl.resumed import show_resumed
from llmctl.cli.repl.view import show_plain
from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.files import is_file, read_text, write_whole
from llmctl.core.places import expanded

if TYPE_CHECKING:
    from llmctl.cli.repl.repl import Repl

FORMATS = ("md", "json")
MAX_BYTES = 256 * 2**20


async def save(repl: "Repl", argument: str) -> None:
    """The conversation as JSON; as in FastChat a name without a dot gets one."""
    if not argument:
        raise UsageError("/save needs a file", hint="/save FILE")
    path = argument if "." in Path(argument).name else f"{argument}.json"
    await _write(path, _as("json", repl), repl)


async def export(repl: "Repl", argument: str) -> None:
    """The conversation as markdown or JSON, printed or written."""
    kind, _, path = argument.partition(" ")
    if kind not in FORMATS:
        raise UsageError(f"/export takes md or json, not {kind!r}", hint="/export md|json [FILE]")
    text = _as(kind, repl)
    if path.strip():
        await _write(path.strip(), text, repl)
    else:
        show_plain(repl.console, text)


async def load(repl: "Repl", argument: str) -> None:
    """A file, or a session of the log by name or number."""
    if not argument:
        raise UsageError("/load needs a file or a session", hint="llmctl logs list shows the sessions")
    for path in (expanded(argument), expanded(f"{argument}.json")):
        if is_file(path):
            _load_file(repl, path)
            break
    else:
        if argument.endswith(".json"):
            raise NotFoundError(f"no such file: {argument}")
        if repl.conversation.log is None:
            raise UsageError("conversations are not kept (--no-log), so only a file can be loaded")
        repl.conversation.resume(repl.conversation.log.find(argument))
    repl.used_tokens = None if repl.conversation.turns else 0
    show_resumed(repl.console, repl.look, repl.conversation)


async def name(repl: "Repl", argument: str) -> None:
    """Show or give the session's name."""
    if argument:
        if repl.conversation.log is None:
            raise UsageError("this conversation is not kept, so it has no name")
        repl.conversation.rename(argument)
    repl.console.note(f"(session: {repl.conversation.name or 'no name'})")


def choices(repl: "Repl", argument: str) -> Iterator[tuple[str, str]]:
    """For Tab: sessions, then files."""
    if repl.conversation.log is not None:
        for session in repl.conversation.log.names():
            yield session, "session"
    yield from paths(argument)


def _load_file(repl: "Repl", path: Path) -> None:
    from llmctl.sessions.formats import from_json

    try:
        value: Any = json.loads(read_text(path, called=str(path), max_bytes=MAX_BYTES))
    # ValueError: not JSON, or a number of more digits than Python reads.
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path} is not JSON: {error}") from error
    repl.conversation.take_over(from_json(value, where=str(path)), model=repl.opener.identity)


def _as(kind: str, repl: "Repl") -> str:
    from llmctl.sessions import formats

    session, turns = repl.conversation.as_session(model=repl.model_name)
    if not turns:
        raise UsageError("nothing was said yet")
    if kind == "md":
        return formats.to_markdown(session, turns)
    return json.dumps(formats.to_json(session, turns), ensure_ascii=False, indent=2) + "\n"


async def _write(path: str, text: str, repl: "Repl") -> None:
    file = expanded(path)
    if is_file(file):
        choice = await repl.terminal.choose(f"{file} exists.", {"r": "replace it", "k": "keep it"})
        if choice != "r":
            repl.console.note("(kept as it was)")
            return
    write_whole(file, text)
    repl.console.note(f"(written: {file})")
