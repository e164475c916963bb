"""What is wrong with a request, said of the field that the client wrote: `messages[0].content must be …`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from llmctl.core.errors import UsageError
from llmctl.services.http.errors import ParameterError
from llmctl.services.openai.body import BY_FIELD, HALF, REFUSED, UNKNOWN, is_tag, safe, shown

_MAX_CHARACTERS = 500
"""Of a message: whoever sends a megabyte does not need it back."""


def complaint(told: str, *, param: str, hint: str | None = None) -> ParameterError:
    """The error over the field `param`, of which `told` says what is wrong."""
    return ParameterError(_short(f"{param} {told}"), param=_short(param), hint=hint)


def half_character(param: str) -> ParameterError:
    """The error over a text that is none."""
    return complaint("must be valid Unicode: it holds half a character (a lone surrogate)", param=param)


def of_validation(error: ValidationError, body: Any) -> ParameterError:
    """The first of what is wrong with `body`."""
    first = error.errors(include_url=False)[0]
    kind, context, location = first["type"], first.get("ctx", {}), first["loc"]
    if kind == "missing":
        return complaint("is missing", param=_joined(_path(location[:-1], body), str(location[-1])))
    path = _path(location, body)
    if kind in (UNKNOWN, REFUSED):
        return complaint(context["told"], param=_joined(path, context["field"]), hint=context["hint"])
    value = first["input"]
    if kind.startswith(BY_FIELD):
        return _of_member(kind.removeprefix(BY_FIELD), path, value, told=first["msg"])
    if kind == HALF:
        return half_character(path)
    if kind == "too_short":
        return complaint("must not be empty", param=path)
    return complaint(f"{_must(first['msg'])}, not {shown(value)}", param=path or "body")


@contextmanager
def named(names: Mapping[str, str], *, param: str) -> Iterator[None]:
    """Turn a `UsageError` into one about `param`; `names` are the client's names of core's own."""
    try:
        yield
    except UsageError as error:
        hint = None if error.hint is None else _renamed(error.hint, names)
        raise ParameterError(_short(_renamed(error.message, names)), param=param, hint=hint) from error


def _of_member(field: str, path: str, value: Any, *, told: str) -> ParameterError:
    """The error over an object that is none of those that are told by `field`."""
    if not isinstance(value, Mapping):
        return complaint(f"must be an object, not {shown(value)}", param=path)
    param, found = _joined(path, field), value.get(field)
    if found is None:
        return complaint("is missing", param=param)
    return complaint(f"{_must(told)}, not {shown(found)}", param=param, hint=_HINTS.get(field))


_HINTS = {"type": "this server reads no images, sounds or files"}
"""By the field that is wrong."""


def _path(location: Sequence[int | str], body: Any) -> str:
    """Where in `body` a place of pydantic's is, in which members of unions have names too."""
    path, here = "", body
    for step in location:
        if isinstance(step, int) and isinstance(here, list):
            path, here = f"{path}[{step}]", here[step]
        elif isinstance(here, Mapping) and step in here and not is_tag(step):
            path, here = _joined(path, str(step)), here[step]
    return path


def _joined(path: str, field: str) -> str:
    return safe(f"{path}.{field}" if path else field)


def _must(message: str) -> str:
    """Pydantic's words as the rest of a sentence."""
    _, is_demand, rest = message.partition("should ")
    return f"must {rest}" if is_demand else message[:1].lower() + message[1:]


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for own, name in names.items():
        text = re.sub(rf"\b{own}\b", name, text)
    return text


def _short(text: str) -> str:
    text = safe(text)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]} …"
