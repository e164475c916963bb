"""Reads the JSON body of a request, as much of it as is allowed, and nothing that is almost JSON."""

import asyncio
import json
import math
import re
from typing import Any

from starlette.requests import Request

from llmctl.core.errors import UsageError
from llmctl.services.http.errors import MediaTypeError, TooLargeError, TooSlowError

MAX_BYTES = 32 * 1024 * 1024
"""The text of the longest contexts, with room."""
MAX_DEPTH = 64
"""Lists and objects in one another; what reads them later does so by calling itself."""
SILENCE_S = 30.0
"""How long a body may pause."""
_OPENING = re.compile(r"[\[{]")
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


async def read_json(request: Request, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in the body.

    Raises `TooLargeError`, `MediaTypeError`, `TooSlowError`, and `UsageError` for what is no JSON object.
    """
    return parse_object(await read_bytes(request, max_bytes=max_bytes))


async def read_bytes(request: Request, *, max_bytes: int = MAX_BYTES, silence_s: float = SILENCE_S) -> bytes:
    """The body of JSON as it came. Raises `TooLargeError`, `MediaTypeError` and `TooSlowError`."""
    _check_kind(request)
    if (length := request.headers.get("content-length", "")).isdecimal() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    pieces, num_bytes = [], 0
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(silence_s) as patience:
            async for piece in request.stream():
                num_bytes += len(piece)
                if num_bytes > max_bytes:
                    raise _too_large(max_bytes)
                pieces.append(piece)
                patience.reschedule(clock() + silence_s)
    except TimeoutError as error:
        raise TooSlowError(f"the body did not go on for {silence_s:g} s") from error
    return b"".join(pieces)


def parse_object(raw: bytes) -> dict[str, Any]:
    """The object that `raw` is in JSON and UTF-8. Raises `UsageError`."""
    if not raw:
        raise UsageError("the body is empty", hint="a JSON object was expected")
    try:
        text = raw.decode("utf-8-sig")
        found = json.loads(text, parse_constant=_no_number, parse_float=_number)
    except UnicodeDecodeError as error:
        raise UsageError(f"the body is not JSON: byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise UsageError(f"the body is not JSON: {_shortly(error)}") from error
    if not isinstance(found, dict):
        raise UsageError("the body must be a JSON object")
    _check_depth(text, found)
    _check_characters(text, found)
    return found


def _check_kind(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    # What `curl -d` says by itself; a web page could too, and without asking first: browsers tell its origin.
    is_curl = kind == "application/x-www-form-urlencoded" and "origin" not in request.headers
    if kind != "application/json" and not kind.endswith("+json") and not is_curl:
        raise MediaTypeError(
            f"the body is said to be {kind[:100]!r}", hint="send JSON, with Content-Type: application/json"
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise MediaTypeError(f"the body is packed as {coding[:100]!r}", hint="send it as it is")


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is too large: at most {max_bytes:,} bytes")


def _too_deep() -> UsageError:
    return UsageError(f"the body is nested too deeply: at most {MAX_DEPTH} lists and objects in one another")


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value


def _shortly(error: ValueError) -> str:
    # Python's own of a whole number with thousands of digits tells how to set the interpreter's limit.
    is_own = isinstance(error, json.JSONDecodeError) or "number" in str(error)
    return str(error) if is_own else "a number has too many digits"


def _check_depth(text: str, value: dict[str, Any]) -> None:
    if sum(1 for _ in _OPENING.finditer(text)) <= MAX_DEPTH:
        return
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [part for each in level for part in _parts(each) if isinstance(part, list | dict)]
        if not level:
            return
    raise _too_deep()


def _parts(value: list[Any] | dict[str, Any]) -> Any:
    return value.values() if isinstance(value, dict) else value


def _check_characters(text: str, value: dict[str, Any]) -> None:
    """Half of a character, which JSON can write, is nothing that can be told on: no tokenizer takes it."""
    if _HALF_CHARACTER.search(text) is None:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            "the body holds half of a character: a surrogate without its other half",
            hint="a text may have been cut in the middle of a character",
        ) from error
