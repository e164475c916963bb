"""How a checkpoint makes one vector of a text: read from the files that sentence-transformers writes.

Without them it is what the family's row says, else the mean of all tokens. Plain data, no torch.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmctl.core.errors import BadFileError
from llmctl.loading import contents

Mode = Literal["cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last"]
"""The first token; the largest of each dimension; the mean; the sum over the root of the length; the mean
weighted by position, the last most; the last token."""
PartKind = Literal["dense", "layer_norm", "normalise"]

# As the files spell them, in the order in which several are put together.
_MODE_KEYS: Mapping[str, Mode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
_MODE_NAMES: Mapping[str, Mode] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
_PARTS: Mapping[str, PartKind] = {"Dense": "dense", "LayerNorm": "layer_norm", "Normalize": "normalise"}
_NOTHING = "Dropout"
_LENGTH_FILE = "sentence_*_config.json"
_PROMPTS_FILE = "config_sentence_transformers.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is done to a vector after pooling."""

    kind: PartKind
    folder: Path | None = None
    """Where its weights lie, for those that have some."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its `config.json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """From the last layer's output to a vector."""

    modes: tuple[Mode, ...]
    """Several are put one after another."""
    parts: tuple[Part, ...] = ()
    pools_prompt: bool = True
    """Whether the tokens of a prompt before the text count in the pooling."""
    max_tokens: int | None = None
    """A limit below what the model itself takes."""
    lowers: bool = False
    """Whether texts are lower-cased."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Texts to put before an input, by name."""
    default_prompt: str | None = None
    """The name of the prompt for inputs of which nothing is said."""
    reason: str = "asked for"
    """Where this is from, in a clause."""
    is_told: bool = True
    """Whether somebody said so; otherwise it is a guess."""

    @property
    def normalises(self) -> bool:
        """Whether vectors come out with the length 1."""
        return bool(self.parts) and self.parts[-1].kind == "normalise"

    def __str__(self) -> str:
        steps = [" + ".join(self.modes), *(part.kind for part in self.parts)]
        return f"{', then '.join(steps)} ({self.reason})"


NORMALISED = (Part(kind="normalise"),)
"""The parts of a recipe that says nothing else: what similarity by cosine or dot product wants."""
LAST_TOKEN = Recipe(modes=("last",), parts=NORMALISED)
"""For decoders: no other token has seen the whole text."""


def read_recipe(folder: Path, row: Mapping[str, Any]) -> Recipe:
    """The recipe of a model folder; `row` holds the loading keys of its family.

    Raises `BadFileError` for damaged or missing files and for modules that llmctl does not know.
    """
    told = {**_lengths(folder), **_prompts(folder)}
    if (folder / contents.MODULES).exists():
        return Recipe(**_modules(folder), **told, reason=contents.MODULES)
    if (own := row.get("pooling")) is not None:
        return Recipe(modes=(own,), parts=NORMALISED, **told, reason="its family's row")
    return Recipe(modes=("mean",), parts=NORMALISED, **told, reason="nothing says otherwise", is_told=False)


def _modules(folder: Path) -> dict[str, Any]:
    """Modes, parts and what else stands in the folders of the modules."""
    path, found = folder / contents.MODULES, {}
    parts: list[Part] = []
    for kind, place in _listed(path):
        if kind == "Transformer":
            if place:
                raise BadFileError(
                    f"{path} has the model itself in {place}/", hint=f"take the folder {folder / place}"
                )
        elif kind == "Pooling":
            found = _pooling(folder / place / contents.CONFIG)
        elif kind in _PARTS:
            settings = contents.read_json(folder / place / contents.CONFIG, optional=kind == "Normalize")
            parts.append(Part(kind=_PARTS[kind], folder=folder / place, settings=settings))
        elif kind != _NOTHING:
            known = ", ".join(sorted(("Transformer", "Pooling", _NOTHING, *_PARTS)))
            raise BadFileError(f"{path} names a module {kind!r}; llmctl knows {known}")
    if not found:
        raise BadFileError(f"{path} names no Pooling", hint="it is no model for vectors of whole texts")
    return {**found, "parts": tuple(parts)}


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    """Class and folder of each module, in order."""
    try:
        for each in json.loads(path.read_text(encoding="utf-8")):
            yield str(each["type"]).rpartition(".")[2], str(each["path"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadFileError(
            f"{path} is not a list of modules: {error}", hint="download or copy the file again"
        ) from error


def _pooling(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise BadFileError(f"{path} is missing", hint="download the model again: llmctl models pull")
    told = contents.read_json(path)
    named = told.get("pooling_mode")
    if named is not None:
        names = [named] if isinstance(named, str) else list(named)
    else:
        names = [key for key in _MODE_KEYS if told.get(key)]
    known = {**_MODE_NAMES, **_MODE_KEYS}
    if strange := [name for name in names if name not in known]:
        raise BadFileError(
            f"{path} has the pooling mode {strange[0]!r}; llmctl knows {', '.join(_MODE_NAMES)}"
        )
    if not names:
        raise BadFileError(f"{path} chooses no pooling mode")
    return {
        "modes": tuple(known[name] for name in names),
        "pools_prompt": told.get("include_prompt") is not False,
    }


def _lengths(folder: Path) -> dict[str, Any]:
    path = next(iter(sorted(folder.glob(_LENGTH_FILE))), None)
    told = contents.read_json(path) if path is not None else {}
    length = told.get("max_seq_length")
    return {
        "max_tokens": length if isinstance(length, int) and length > 0 else None,
        "lowers": told.get("do_lower_case") is True,
    }


def _prompts(folder: Path) -> dict[str, Any]:
    told = contents.read_json(folder / _PROMPTS_FILE, optional=True)
    prompts = told.get("prompts") or {}
    if not isinstance(prompts, Mapping) or not all(isinstance(text, str) for text in prompts.values()):
        raise BadFileError(f"the prompts in {folder / _PROMPTS_FILE} are not texts by name")
    default = told.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise BadFileError(f"{folder / _PROMPTS_FILE} has the default prompt {default!r} and no such prompt")
    return {"prompts": dict(prompts), "default_prompt": default}
