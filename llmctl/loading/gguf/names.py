"""Which GGUF file is meant by a path, a folder, `FOLDER:Q4_K_M`, `owner/name:Q4_K_M` or
`owner/name/FILE.gguf`.

Looks at names alone.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from llmctl.core.errors import AmbiguousError, BadFileError, NotFoundError, UsageError
from llmctl.core.places import expanded
from llmctl.loading.gguf.head import BITS, SUFFIX

_FILE_OF_REPO = re.compile(r"([\w.-]+/[\w.-]+)/([^/]+\.gguf)")
_TAG_OF_REPO = re.compile(r"([\w.-]+/[\w.-]+):([\w.-]+)")
_TAG_OF_FOLDER = re.compile(r"(.+):([\w.-]+)")
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
# What lies beside a model: the eyes of one that sees, and statistics for whoever quantises.
_NO_MODELS = ("mmproj", "imatrix")
_MAX_NAMES_SHOWN = 24
_TYPE = re.compile(rf"(?:^|[-._])({'|'.join(sorted(BITS, key=len, reverse=True))})(?=[-._]|$)")
# What llama.cpp writes in the place of a type whose blocks do not divide the rows of a weight.
_WIDER: Mapping[str, str] = {
    **dict.fromkeys(("Q2_K", "Q3_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S"), "IQ4_NL"),
    **dict.fromkeys(("IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_BITS_OF_TABLES = 0.75
"""What larger types of the tables of tokens and of some layers add to those of most weights, at most."""


def split_name(model: str) -> tuple[str, str | None]:
    """A hub id and what is said of the file behind it: ("owner/name", "Q4_K_M"); None when nothing is."""
    found = _FILE_OF_REPO.fullmatch(model) or _TAG_OF_REPO.fullmatch(model)
    return (found[1], found[2]) if found else (model, None)


def models_among(names: Iterable[str]) -> list[str]:
    """The GGUF files among `names` that can be a model, in order."""
    return sorted(name for name in names if name.endswith(SUFFIX) and not name.startswith(_NO_MODELS))


def choose_gguf(model: str, names: Collection[str], wanted: str | None = None) -> str:
    """The file of `model` that `wanted` means, a file's name or the tag at its end; without it the only one.

    Raises `NotFoundError`, `AmbiguousError` naming what there is, and `BadFileError` for one part of several.
    """
    files = models_among(names)
    fitting = [name for name in files if wanted is None or _is_meant(name, wanted)]
    if not fitting:
        raise NotFoundError(
            f"{model} has no GGUF file {wanted!r}",
            hint=f"it has {_shown(files)}" if files else "it has no GGUF file at all",
        )
    parts = [name for name in fitting if _PART.search(name)]
    if parts:
        raise BadFileError(
            f"{parts[0]} of {model} is one part of a model that was split, which transformers does not read",
            hint="join the parts with `llama-gguf-split --merge` of llama.cpp, or take a file that is whole",
        )
    if len(fitting) > 1:
        raise AmbiguousError(
            f"{model} has {len(fitting)} GGUF files: {_shown(fitting)}",
            hint=f"name one: {model}/{fitting[0]}",
        )
    return fitting[0]


def bits_in_name(name: str) -> float | None:
    """At least the bits of a number in a GGUF file by the types in its name; None where it names none."""
    types = _TYPE.findall(name.removesuffix(SUFFIX).upper())
    return max((BITS[_WIDER.get(each, each)] + _BITS_OF_TABLES for each in types), default=None)


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the one in a folder without safetensors; None for others.

    Raises what `choose_gguf` raises for a folder with several, or with parts.
    """
    if path.suffix == SUFFIX and path.is_file():
        return path.with_name(choose_gguf(str(path.parent), [path.name], path.name))
    if not path.is_dir():
        return None
    names = names_in(path)
    if any(name.endswith(".safetensors") for name in names) or not models_among(names):
        return None
    return path / choose_gguf(str(path), names)


def find_tagged(model: str) -> Path | None:
    """The file that `FOLDER:Q4_K_M` means; None where there is no such folder, or one by the whole name.

    Raises what `choose_gguf` raises, and `UsageError` where a file stands in the folder's place.
    """
    parts = _TAG_OF_FOLDER.fullmatch(model)
    # Unlike Path, these take a name that no file can have for an absent one.
    if parts is None or os.path.exists(expanded(model)):  # noqa: PTH110
        return None
    if parts[1].endswith(SUFFIX) and os.path.isfile(expanded(parts[1])):  # noqa: PTH113
        raise UsageError(
            f"{parts[1]} is one file, and {model!r} asks for one of several", hint=f"leave out :{parts[2]}"
        )
    if not os.path.isdir(expanded(parts[1])):  # noqa: PTH112
        return None
    folder = expanded(parts[1])
    return folder / choose_gguf(parts[1], names_in(folder), parts[2])


def names_in(folder: Path) -> list[str]:
    """The names in a folder, but of links that lead nowhere. Raises `BadFileError`."""
    try:
        return [path.name for path in folder.iterdir() if path.exists()]
    except OSError as error:
        raise BadFileError(f"cannot read {folder}: {error.strerror}") from error


def _is_meant(name: str, wanted: str) -> bool:
    stem = _PART.sub("", name).removesuffix(SUFFIX).lower()
    return name == wanted or re.search(rf"(?:^|[-._]){re.escape(wanted.lower())}$", stem) is not None


def _shown(names: Collection[str]) -> str:
    more = len(names) - _MAX_NAMES_SHOWN
    return ", ".join(sorted(names)[:_MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
