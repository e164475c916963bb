"""Gathers what the user wants to say: piped stdin, then files, then the prompt; or messages as JSON."""

import json
import logging
import select
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO

from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.files import read_text
from llmctl.core.places import expanded
from llmctl.core.types import ROLES, Message

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**20
"""No context of today holds more text, and a pipe may never end."""
SILENT_STDIN_S = 0.2
"""With `-p` a pipe that is open but says nothing is waited for this long: a script may have left it so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The flags that bring text."""

    prompt: str | None = None
    files: tuple[str, ...] = ()
    """Paths; `-` is stdin."""
    messages: str | None = None
    """Path of a JSON file; `-` is stdin."""
    system: str | None = None
    insists_on_system: bool = False
    """Whether the system message is a flag's; a setting's gives way to that of a messages file."""
    is_raw: bool = False


def gather_text(sources: Sources) -> str | None:
    """stdin, files and prompt as one text, None when nothing was given and stdin is a terminal.

    Raises `UsageError` when all that was given is empty.
    """
    parts: list[str] = []
    if "-" not in sources.files and sources.messages != "-":
        may_be_silent = sources.prompt is not None or bool(sources.files) or sources.messages is not None
        piped = _piped(SILENT_STDIN_S if may_be_silent else None)
        parts += [piped] if piped else []
    parts += [read_input(path) for path in sources.files]
    parts += [sources.prompt] if sources.prompt is not None else []
    if not parts:
        if sources.messages is None and not is_interactive():
            raise UsageError(
                "nothing to answer: stdin is empty", hint="give a prompt with -p TEXT or through a pipe"
            )
        return None
    # A model that continues text must get it to the letter; to a person, a file's last newline is no content.
    text = "".join(parts) if sources.is_raw else "\n\n".join(part.rstrip("\r\n") for part in parts)
    if not text.strip() and not sources.is_raw:
        raise UsageError("nothing to answer: the prompt is empty")
    return text


def is_interactive() -> bool:
    """Whether a person sits at stdin."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def stdin_bytes() -> BinaryIO:
    """stdin; raises `UsageError` when whoever started llmctl has closed it."""
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("cannot read stdin: it is closed", hint="give the prompt with -p TEXT")
    return sys.stdin.buffer


def conversation(sources: Sources, text: str | None) -> tuple[Message, ...]:
    """The messages to answer: system, those of the file, then `text` as the user's turn."""
    messages = _read_messages(sources.messages) if sources.messages is not None else ()
    has_system = any(message.role == "system" for message in messages)
    if has_system and sources.insists_on_system:
        raise UsageError("both --system and the messages file give a system message", hint="give one")
    if sources.system is not None and not has_system:
        messages = (Message(role="system", content=sources.system), *messages)
    if text is not None:
        return (*messages, Message(role="user", content=text))
    return check_open(messages, where=f"--messages {sources.messages}")


def parse_messages(value: Any, *, where: str) -> tuple[Message, ...]:
    """Convert `[{"role": ..., "content": ...}, ...]`; `where` begins the error."""
    if not isinstance(value, list) or not value:
        raise UsageError(f"{where}: messages must be a list of at least one message")
    return tuple(_message(item, f"{where}: message {index}") for index, item in enumerate(value))


def check_open(messages: tuple[Message, ...], *, where: str) -> tuple[Message, ...]:
    """Refuse messages that leave nothing to answer."""
    role = messages[-1].role
    if role in ("system", "assistant"):
        raise UsageError(
            f"{where}: the last message is of the role {role!r}, so there is nothing to answer",
            hint="end with a message of the role 'user' or 'tool', or add -p TEXT",
        )
    return messages


def _read_messages(path: str) -> tuple[Message, ...]:
    try:
        value = json.loads(read_input(path))
    # ValueError: not JSON, or a number of more digits than Python reads.
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"--messages {path} is not JSON: {error}") from error
    if isinstance(value, dict):
        if "llmctl_session" in value or "roles" in value:
            return _of_a_saved_file(value, f"--messages {path}")
        value = value.get("messages")
    return parse_messages(value, where=f"--messages {path}")


def _of_a_saved_file(value: dict[str, Any], where: str) -> tuple[Message, ...]:
    """What /save, `llmctl logs export` or FastChat wrote."""
    from llmctl.sessions.formats import from_json

    loaded = from_json(value, where=where)
    head = () if loaded.system is None else (Message(role="system", content=loaded.system),)
    return (*head, *loaded.messages)


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict) or not {"role", "content"} <= item.keys():
        raise UsageError(f'{where} must be an object with "role" and "content", not {json.dumps(item)[:80]}')
    if spare := sorted(item.keys() - {"role", "content"}):
        raise UsageError(f"{where}: {spare[0]!r} is not supported, only role and content")
    if item["role"] not in ROLES:
        raise UsageError(f"{where}: role must be one of {', '.join(ROLES)}, not {item['role']!r}")
    if not isinstance(item["content"], str):
        raise UsageError(f"{where}: content must be text, not {json.dumps(item['content'])[:80]}")
    return Message(role=item["role"], content=item["content"])


def read_input(path: str) -> str:
    """The text of a file, `-` being stdin. Raises `NotFoundError`, `BadFileError`, `UsageError`."""
    if path != "-":
        return read_text(expanded(path), called=path, max_bytes=MAX_BYTES, may_wait=True)
    try:
        data = stdin_bytes().read(MAX_BYTES + 1)
    except OSError as error:
        raise BadFileError(f"cannot read stdin: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise BadFileError(f"stdin has more than the {MAX_BYTES} bytes allowed")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFileError(f"stdin is not UTF-8 text (byte {error.start})") from error


def _piped(wait_s: float | None) -> str:
    """What stdin holds, "" when it is a terminal, closed, or silent for `wait_s` seconds."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    if wait_s is not None and not select.select([sys.stdin], [], [], wait_s)[0]:
        log.warning("stdin is open and said nothing for %g s: going on without it (-f - waits)", wait_s)
        return ""
    return read_input("-")
