"""What a server says when it does not do what it is asked: the shapes of its errors, in one line.

Nothing here raises: whatever comes, something is made of it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_DEEPEST = 4
# What stands between quantifiers is bounded: a server could send what takes a regular expression for ever.
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_TITLE = re.compile(r"<title[^>]{0,200}>(.{0,500}?)</title>", re.IGNORECASE | re.DOTALL)

_OVERFLOW_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "context_overflow"})
_OVERFLOW = re.compile(
    r"maximum context"
    r"|exceed\w* the (?:available |model's )?context"
    r"|context (?:length|size|window) (?:of|is) only"
    r"|longer than the (?:model's )?(?:maximum )?context"
    r"|(?:prompt|input) is too long"
    r"|must have less than \d{1,9} tokens"
    r"|`max_new_tokens` must be <="
    r"|the context of .{1,100} holds \d",
    re.IGNORECASE,
)
_PROMPT_TOKENS = re.compile(
    r"(?P<a>\d{1,9}) (?:tokens )?(?:in|from) the (?:input )?(?:messages|prompt)"
    r"|(?P<b>\d{1,9}) input tokens"
    r"|(?:resulted in|passed|contains|has|too long:|given:|request \(|input \() ?(?P<c>\d{1,9})"
    r"(?: `?inputs`?)?(?: tokens|$)",
    re.IGNORECASE,
)
_CONTEXT_LENGTH = re.compile(
    r"context (?:length|size|window)(?: is| of)?(?: only)? ?\(?(?P<a>\d{1,9})"
    r"|(?:<=|holds|less than|tokens >) (?P<b>\d{1,9})"
    r"|with (?P<c>\d{1,9}) maximum context",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that is an error, read."""

    status: int
    """0 when it came inside of a stream and told none."""
    message: str
    """The server's own words on one line, without control characters; "" when it says nothing."""
    is_overflow: bool = False
    """Whether the prompt or the answer asked for is longer than the context."""
    prompt_tokens: int | None = None
    context_length: int | None = None
    wait_s: str | None = None
    """Seconds after which to try again, as told."""


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """Read an HTTP answer whose status says that it is no success; `headers` know no case."""
    text = body.decode(errors="replace")
    wait_s = headers.get("retry-after", "").strip()
    wait = wait_s if _SECONDS.fullmatch(wait_s) else None
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return _read(status, {}, _plain(text), wait)
    return _read(status, told, _message(told), wait)


def from_error(told: Any) -> Refusal:
    """Read the error object (or text) of an event in the middle of a stream."""
    code = told.get("code") if isinstance(told, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 0
    return _read(status, told, _message(told), None)


def one_line(text: str, *, limit: int | None = None) -> str:
    """`text` for a terminal: one line, no control characters, at most `limit` characters."""
    line = " ".join(text.split())
    line = "".join(each if each.isprintable() else "\ufffd" for each in line)
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def as_json(value: Any) -> str:
    """A value that came as JSON, as a text to show."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "[[…]]"


def _read(status: int, told: Any, message: str, wait_s: str | None) -> Refusal:
    objects = list(_objects(told))
    codes = {each.get(key) for each in objects for key in ("code", "type") if isinstance(each.get(key), str)}
    return Refusal(
        status=status,
        message=message,
        is_overflow=bool(codes & _OVERFLOW_CODES) or bool(_OVERFLOW.search(message)),
        prompt_tokens=_number(objects, "n_prompt_tokens", _PROMPT_TOKENS, message),
        context_length=_number(objects, "n_ctx", _CONTEXT_LENGTH, message),
        wait_s=wait_s,
    )


def _objects(told: Any) -> Iterator[dict[str, Any]]:
    """The error object, however deep: `{"error": {...}}`, or it is the whole answer."""
    for _ in range(3):
        if isinstance(told, dict):
            yield told
            told = told.get("error")


def _message(told: Any, depth: int = 0) -> str:
    """OpenAI's `{"error": {"message"}}`, `{"error": "text"}`, `{"message"}`, FastAPI's `{"detail"}`."""
    if isinstance(told, str):
        return one_line(told)
    if depth > _DEEPEST:
        return ""
    if isinstance(told, list):
        return "; ".join(_invalid_field(each, depth + 1) for each in told)
    if isinstance(told, dict):
        for key in ("error", "message", "detail", "text"):
            if told.get(key):
                return _message(told[key], depth + 1)
    return one_line(as_json(told)) if told else ""


def _invalid_field(told: Any, depth: int) -> str:
    """An entry of FastAPI's list: where in the request, and what is wrong there."""
    if not isinstance(told, dict) or not isinstance(told.get("loc"), list):
        return _message(told, depth)
    return f"{'.'.join(map(str, told['loc']))}: {_message(told.get('msg', ''), depth)}"


def _plain(text: str) -> str:
    """A body that is no JSON: of a page of HTML its title."""
    title = _TITLE.search(text)
    if title is not None:
        return one_line(title[1])
    return "" if text.lstrip().startswith("<") else one_line(text)


def _number(objects: list[dict[str, Any]], key: str, pattern: re.Pattern[str], message: str) -> int | None:
    for each in objects:
        if isinstance(each.get(key), int):
            return int(each[key])
    match = pattern.search(message)
    return int(match[match.lastgroup or 0]) if match else None
