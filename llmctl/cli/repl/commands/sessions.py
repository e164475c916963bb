"""Commands that keep conversations and bring them back: save, load, export, name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.cli.repl.complete import paths
from llmctl.cli.repl.resumed import show_resumed
from llmctl.cli.repl.view import show_plain
from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.files import write_whole

if TYPE_CHECKING:
    from llmctl.cli.repl.repl import Repl

FORMATS = ("md", "json")


async def save(repl: "Repl", argument: str) -> None:
    """The conversation as JSON; as in FastChat a name without a dot gets one."""
    if not argument:
        raise UsageError("/save needs a file", hint="/save FILE; every session is kept by itself, too")
    path = argument if "." in Path(argument).name else f"{argument}.json"
    _write(path, _as("json", repl), repl)


async def export(repl: "Repl", argument: str) -> None:
    """The conversation as markdown or JSON, printed or written."""
    kind, _, path = argument.partition(" ")
    if kind not in FORMATS:
        raise UsageError(f"/export takes md or json, not {kind!r}", hint="/export md|json [FILE]")
    text = _as(kind, repl)
    if path.strip():
        _write(path.strip(), text, repl)
    else:
        show_plain(repl.console, text)


async def load(repl: "Repl", argument: str) -> None:
    """A file, or a session of the log by name or number."""
    if not argument:
        raise UsageError("/load needs a file or a session", hint="llmctl logs list shows the sessions")
    for path in (Path(argument).expanduser(), Path(f"{argument}.json").expanduser()):
        if path.is_file():
            _load_file(repl, path)
            break
    else:
        if argument.endswith(".json"):
            raise NotFoundError(f"no such file: {argument}")
        if repl.conversation.log is None:
            raise UsageError("conversations are not kept (--no-log), so only a file can be loaded")
        repl.conversation.resume(repl.conversation.log.find(argument))
    repl.unanswered = None
    repl.used_tokens = None if repl.conversation.turns else 0
    show_resumed(repl.console, repl.look, repl.conversation)


async def name(repl: "Repl", argument: str) -> None:
    """Show or give the session's name."""
    if argument:
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
        value: Any = json.loads(path.read_bytes())
    # ValueError: not UTF-8, not JSON, or a number of more digits than Python reads.
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path} is not JSON: {error}") from error
    except OSError as error:
        raise BadFileError(f"cannot read {path}: {error.strerror}") from error
    repl.conversation.take_over(from_json(value, where=str(path)), model=repl.opener.identity)


def _as(kind: str, repl: "Repl") -> str:
    from llmctl.sessions import formats

    session, turns = repl.conversation.as_session(model=repl.model_name)
    if not turns:
        raise UsageError("nothing was said yet")
    if kind == "md":
        return formats.to_markdown(session, turns)
    return json.dumps(formats.to_json(session, turns), ensure_ascii=False, indent=2) + "\n"


def _write(path: str, text: str, repl: "Repl") -> None:
    file = Path(path).expanduser()
    write_whole(file, text)
    repl.console.note(f"(written: {file})")
