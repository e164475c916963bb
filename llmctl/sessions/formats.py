"""Conversations as markdown to read, and as JSON to read again; other programs' JSON is read too."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from llmctl.core.errors import BadFileError
from llmctl.core.types import ROLES, Message
from llmctl.sessions.records import NewTurn, Session, Turn

FORMAT_VERSION = 1
_SHOWN_CHARS = 80
_PLAIN_KEYS = ("role", "content", "reasoning")
_HEADINGS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
_ENDS = {"cancelled": " (stopped)", "length": " (cut off at the token limit)"}
_DETAILS = tuple(field.name for field in fields(NewTurn) if field.name not in ("role", "content"))
_OWN_KEYS = ("role", "content", *_DETAILS, "created", "retracted")
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConversation:
    """A conversation that a file holds, without what was taken back."""

    system: str | None
    """Not among `messages`."""
    messages: tuple[Message, ...]
    """At least one, unless there is a system message."""
    reasonings: tuple[str, ...]
    """One for each message, "" where there is none."""


def to_json(session: Session, turns: Sequence[Turn]) -> dict[str, Any]:
    """The session with all of `turns`, in the format that `from_json` reads.

    `{"llmctl_session": 1, "id", "name", "title", "model", "created", "updated", "system", "messages"}`:
    `system` is the system message that holds, or null. A message is `{"role", "content", "created"}` and,
    where known, the other fields of `NewTurn`, and `"retracted": true`. Times are ISO 8601 with offset.
    """
    system = _system(turns)
    return {
        "llmctl_session": FORMAT_VERSION,
        "id": session.id,
        "name": session.name,
        "title": session.title,
        "model": session.model,
        "created": iso(session.created),
        "updated": iso(session.updated),
        "system": system.content if system is not None else None,
        "messages": [_message(turn) for turn in turns if turn is not system],
    }


def to_markdown(session: Session, turns: Sequence[Turn]) -> str:
    """The session with a heading for each turn; what was said stays as it is.

    Only a code block that an answer left open is closed, since it would swallow the next heading.
    """
    return "\n".join([f"# {label(session)}\n", f"{_front_line(session)}\n", *map(_section, turns)])


def from_json(value: Any, *, where: str) -> LoadedConversation:
    """Read what `to_json` makes, a list of messages, `{"messages": [...]}`, or what FastChat saves.

    Raises `BadFileError` that begins with `where` for anything else, and for a message that has more than
    role, content and reasoning.
    """
    if isinstance(value, list):
        return _conversation(None, value, where=where, keys=_PLAIN_KEYS)
    if isinstance(value, dict) and "messages" in value:
        if "roles" in value:
            return _from_fastchat(value, where)
        system = value.get("system")
        if system is not None and not isinstance(system, str):
            raise BadFileError(f"{where}: system must be text or null, not {_shown(system)}")
        if "llmctl_session" not in value:
            return _conversation(system, value["messages"], where=where, keys=_PLAIN_KEYS)
        if value["llmctl_session"] != FORMAT_VERSION:
            found = f"{where} is of the session format {_shown(value['llmctl_session'])}"
            raise BadFileError(f"{found}, this llmctl reads {FORMAT_VERSION}", hint="update llmctl")
        return _conversation(system, value["messages"], where=where, keys=_OWN_KEYS)
    raise BadFileError(
        f"{where} holds no conversation: {_shown(value)}",
        hint='it must be a list of {"role", "content"}, or an object with such a list under "messages"',
    )


def label(session: Session) -> str:
    """What a session is called: its name, else its first words, else its number."""
    return session.name or session.title or f"Session {session.id}"


def iso(time_s: float) -> str:
    """Unix seconds as local time with its offset."""
    return datetime.fromtimestamp(time_s).astimezone().isoformat(timespec="seconds")


def _system(turns: Sequence[Turn]) -> Turn | None:
    """The last system message that was not taken back is the one that holds."""
    live = (turn for turn in reversed(turns) if turn.role == "system" and not turn.is_retracted)
    return next(live, None)


def _message(turn: Turn) -> dict[str, Any]:
    details = {name: getattr(turn, name) for name in _DETAILS}
    return {
        "role": turn.role,
        "content": turn.content,
        **{name: value for name, value in details.items() if value not in (None, "")},
        "created": iso(turn.created),
        **({"retracted": True} if turn.is_retracted else {}),
    }


def _front_line(session: Session) -> str:
    created = f"{datetime.fromtimestamp(session.created):%Y-%m-%d %H:%M}"
    return " · ".join(part for part in (created, session.model, f"session {session.id}") if part)


def _section(turn: Turn) -> str:
    undone = " (undone)" if turn.is_retracted else ""
    heading = f"## {_HEADINGS.get(turn.role, turn.role)}{_ENDS.get(turn.finish_reason or '', '')}{undone}"
    quoted = "".join(f"> {line}".rstrip() + "\n" for line in turn.reasoning.splitlines())
    reasoning = f"> Reasoning:\n>\n{quoted}\n" if quoted else ""
    return f"{heading}\n\n{reasoning}{_closed(turn.content)}\n"


def _closed(content: str) -> str:
    """`content` without blank lines around it, its last code block ended."""
    text = content.strip("\r\n")
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.fullmatch(line.rstrip("\r"))
        if found is None:
            continue
        if not fence:
            fence = found["fence"]
        elif found["fence"].startswith(fence) and not found["info"].strip():
            fence = ""
    return f"{text}\n{fence}" if fence else text


def _conversation(system: str | None, items: Any, *, where: str, keys: Sequence[str]) -> LoadedConversation:
    """Messages of which each may have `keys`; a system message at the beginning is set apart."""
    if not isinstance(items, list):
        raise BadFileError(f"{where}: messages must be a list of at least one message, not {_shown(items)}")
    read = [_read_message(item, f"{where}: message {index}", keys) for index, item in enumerate(items)]
    kept = [pair for item, pair in zip(items, read, strict=True) if not item.get("retracted", False)]
    if not kept and not system:
        raise BadFileError(f"{where}: messages must be a list of at least one message")
    if system is None and kept[0][0].role == "system":
        system = kept.pop(0)[0].content
    return LoadedConversation(
        system=system,
        messages=tuple(message for message, _ in kept),
        reasonings=tuple(reasoning for _, reasoning in kept),
    )


def _read_message(item: Any, where: str, keys: Sequence[str]) -> tuple[Message, str]:
    if not isinstance(item, dict) or not {"role", "content"} <= item.keys():
        raise BadFileError(f'{where} must be an object with "role" and "content", not {_shown(item)}')
    if spare := sorted(item.keys() - set(keys)):
        raise BadFileError(f"{where}: {spare[0]!r} is not supported, only {', '.join(_PLAIN_KEYS)}")
    role, content, reasoning = item["role"], item["content"], item.get("reasoning", "")
    if role not in ROLES:
        raise BadFileError(f"{where}: role must be one of {', '.join(ROLES)}, not {_shown(role)}")
    for name, text in (("content", content), ("reasoning", reasoning)):
        if not isinstance(text, str):
            raise BadFileError(f"{where}: {name} must be text, not {_shown(text)}")
    if not isinstance(item.get("retracted", False), bool):
        raise BadFileError(f"{where}: retracted must be true or false, not {_shown(item['retracted'])}")
    return Message(role=role, content=content), reasoning


def _from_fastchat(value: dict[str, Any], where: str) -> LoadedConversation:
    """`roles` name user and assistant; the first `offset` messages are examples of the template's own."""
    roles, items = value["roles"], value["messages"]
    offset, system = value.get("offset", 0), value.get("system_message", "")
    if not _is_pair_of_texts(roles) or roles[0] == roles[1]:
        raise BadFileError(f"{where}: roles must be two names, of user and assistant, not {_shown(roles)}")
    if not isinstance(items, list):
        raise BadFileError(f"{where}: messages must be a list, not {_shown(items)}")
    if type(offset) is not int or not 0 <= offset <= len(items):
        raise BadFileError(f"{where}: offset must be 0 to {len(items)} (messages), not {_shown(offset)}")
    if not isinstance(system, str):
        raise BadFileError(f"{where}: system_message must be text, not {_shown(system)}")
    by_name = {roles[0]: "user", roles[1]: "assistant"}
    # An answer that never came.
    last = len(items) - 1 if items and _is_unanswered(items[-1]) else len(items)
    plain = []
    for index, item in enumerate(items[offset:last], start=offset):
        if not _is_pair_of_texts(item) or item[0] not in roles:
            named = " or ".join(map(_shown, roles))
            raise BadFileError(
                f"{where}: message {index} must be [role, text] of {named}, not {_shown(item)}"
            )
        plain.append({"role": by_name[item[0]], "content": item[1]})
    return _conversation(system or None, plain, where=where, keys=_PLAIN_KEYS)


def _is_pair_of_texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


def _is_unanswered(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and item[1] is None


def _shown(value: Any) -> str:
    """The beginning of a value, for an error."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
