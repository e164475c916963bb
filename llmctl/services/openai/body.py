"""What all bodies and their parts have in common: null is left out, and no field is ignored."""

import difflib
import json
import reprlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from llmctl.services.openai.refused import Refusal

UNKNOWN, REFUSED, HALF = "unknown_field", "refused_field", "half_character"
"""Kinds of errors here; the context of the first two tells the `field`, and of it `told` and `hint`."""
BY_FIELD = "by_"
"""Begins the kind of an error of a union whose members are told by the field that is named behind it."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 2


def is_unicode(text: str) -> bool:
    """Whether `text` has no halves of characters (lone surrogates), which JSON can say and nobody encode."""
    return text.isascii() or safe(text) == text


def _unicode(text: str) -> str:
    if not is_unicode(text):
        raise PydanticCustomError(HALF, "half a character")
    return text


Text = Annotated[str, AfterValidator(_unicode)]
"""A string that any tokenizer takes."""


def _document(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Let a description of `model` tell of the fields that it refuses."""
    assert issubclass(model, Body)
    properties = schema.setdefault("properties", {})
    for name, refusal in model.refused.items():
        properties[name] = {
            "enum": [*refusal.neutral, None],
            "description": f"Not supported: {refusal.why}.",
        }


class Body(BaseModel):
    """An object of a request. An error names the field by its path, as the client wrote it."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        json_schema_extra=_document,
    )
    refused: ClassVar[Mapping[str, Refusal]] = {}

    @model_validator(mode="before")
    @classmethod
    def _heed_all(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        asked = {}
        for name, value in given.items():
            if name in cls.model_fields:
                asked[name] = value
            elif name not in cls.refused:
                raise _unknown(name, tuple(cls.model_fields))
            elif value is not None and not cls.refused[name].allows(value):
                raise _refused(name, value, cls.refused[name])
        return {name: value for name, value in asked.items() if value is not None}


def tag(name: str) -> str:
    """The name of a union's member in a place of pydantic's, which is no field's."""
    return f"<{name}>"


def is_tag(step: object) -> bool:
    """Whether a part of such a place is a `tag`."""
    return isinstance(step, str) and step.startswith("<")


def shown(value: object) -> str:
    """`value` as an error shows it: short, and in ASCII where it would be no valid Unicode."""
    return safe(_SHORT.repr(value))


def safe(text: str) -> str:
    """`text` as any encoder of JSON takes it, half characters written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def nearest(name: str, known: Iterable[str]) -> str:
    """What to do about a name that is not known."""
    names = sorted(known)
    near = difflib.get_close_matches(name[:100], names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def _unknown(name: str, known: Iterable[str]) -> PydanticCustomError:
    field = _short_name(name)
    return PydanticCustomError(
        UNKNOWN, "unknown field", {"field": field, "told": "is no field here", "hint": nearest(name, known)}
    )


def _refused(name: str, value: object, refusal: Refusal) -> PydanticCustomError:
    told = f"{shown(value)} is not supported: {refusal.why}"
    taken = [json.dumps(each) for each in refusal.neutral]
    hint = " or give ".join(["leave it out", *taken])
    return PydanticCustomError(REFUSED, "refused field", {"field": name, "told": told, "hint": hint})


def _short_name(name: str) -> str:
    name = safe(name) or "''"
    return name if len(name) <= 100 else f"{name[:100]}…"
