"""The templates that go by a name: `data/templates.toml`, read once and when first asked for.

A row is fields and the name of the Jinja text that writes them. No template here is anybody's default.
"""

import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadFileError, NotFoundError

_DATA = Path(__file__).parent / "data"
_FIELDS: dict[str, str | bool | int] = {
    "system": "",
    "takes_system": True,
    "trims": False,
    "first_round": 0,
    "before_system": "",
    "after_system": "",
    "no_system": "",
    "user": "",
    "after_user": "",
    "between": "",
    "assistant": "",
    "after_assistant": "",
}
"""What the Jinja texts read, and what it is where a row does not say.

`system` is the message where none is given, `no_system` what stands in its block's place when it is empty;
`trims` takes white space off what is said; `first_round` counts rounds, `between` parts joined turns.
"""
_ALIKE = {"first_user": "user", "open": "assistant"}
"""Fields that are another's where a row does not say: before the first question and the answer to come."""
_OTHER_KEYS = {"name", "text", "roles", "stop", "stop_token_ids", "seed", "source"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """A template by name. It leaves BOS and the like to the tokenizer, unless its own text has them."""

    name: str
    text: str
    """Jinja, over `messages`, `add_generation_prompt` and `variables()`."""
    roles: tuple[str, ...]
    """What user and assistant are called, FastChat's `roles`."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these strings."""
    stop_token_ids: tuple[int, ...] = ()
    """Beside the model's own end tokens."""
    default_system: str = ""
    """Stands where the conversation brings no system message."""
    source: str
    """Where its texts are from."""
    fields: tuple[tuple[str, str | bool | int], ...] = ()
    seed: tuple[str, ...] = ()
    """Turns of user and assistant, by turns, that the prompt begins with."""

    def variables(self) -> dict[str, Any]:
        """What the Jinja text reads beside the conversation."""
        roles = ("user", "assistant")
        seed = [{"role": roles[place % 2], "content": said} for place, said in enumerate(self.seed)]
        return {**dict(self.fields), "seed": seed, "roles": list(self.roles)}


def names() -> tuple[str, ...]:
    """The names of all templates, in the order of the file."""
    return tuple(_library())


def find(name: str) -> PromptTemplate:
    """The template called `name`; the case counts only where two differ by nothing else.

    Raises `NotFoundError` with the nearest names.
    """
    library = _library()
    if name in library:
        return library[name]
    alike = [known for known in library if known.casefold() == name.casefold()]
    if len(alike) == 1:
        return library[alike[0]]
    near = difflib.get_close_matches(name, library, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "there are FastChat's names, such as vicuna_v1.1"
    raise NotFoundError(f"no template is called {name!r}", hint=hint)


@functools.lru_cache(maxsize=1)
def _library() -> dict[str, PromptTemplate]:
    path = _DATA / "templates.toml"
    return read_rows(path.read_text(encoding="utf-8"), where=path.name)


def read_rows(text: str, *, where: str) -> dict[str, PromptTemplate]:
    """The templates of a TOML text by name. Raises `BadFileError` naming file, row and key."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadFileError(f"{where} is not valid TOML: {error}") from error
    library: dict[str, PromptTemplate] = {}
    for row in values["template"]:
        template = _template(row, where=where, source=values["source"])
        if template.name in library:
            raise BadFileError(f"{where}: two templates are called {template.name!r}")
        library[template.name] = template
    return library


def _template(row: Mapping[str, Any], *, where: str, source: str) -> PromptTemplate:
    fields = {key: row.get(key, default) for key, default in _FIELDS.items()}
    fields |= {key: row.get(key, fields[other]) for key, other in _ALIKE.items()}
    for key, value in row.items():
        if key not in fields and key not in _OTHER_KEYS:
            raise BadFileError(f"{where}, template {row.get('name')!r}: unknown key {key!r}")
        if key in fields and type(value) is not type(_FIELDS.get(key, "")):
            raise BadFileError(f"{where}, template {row.get('name')!r}: {key} has the wrong type: {value!r}")
    return PromptTemplate(
        name=row["name"],
        text=_text(row.get("text", "turns")),
        roles=tuple(row["roles"]),
        stop=tuple(row.get("stop", ())),
        stop_token_ids=tuple(row.get("stop_token_ids", ())),
        default_system=str(fields["system"]),
        source=row.get("source", source),
        fields=tuple(fields.items()),
        seed=tuple(row.get("seed", ())),
    )


@functools.lru_cache(maxsize=8)
def _text(name: str) -> str:
    parts = [(_DATA / f"{part}.jinja").read_text(encoding="utf-8") for part in ("head", name, "tail")]
    return "".join(parts)
