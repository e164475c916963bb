"""Which licence a model's folder names: the model card's word, else what LICENSE begins with."""

import re
from pathlib import Path

_CARD, _MAX_CHARS = "README.md", 20_000
_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENSE.MD", "USE_POLICY.md")
_FRONT_MATTER = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"^(license|license_name):[ \t]*['\"]?([^'\"#\n]+?)['\"]?[ \t]*(?:#.*)?$", re.MULTILINE)
# What the texts of the common ones say, by the identifier that hubs use.
_TEXTS = {
    "apache-2.0": re.compile(r"apache license\s+version 2\.0", re.IGNORECASE),
    "mit": re.compile(r"\bmit license\b|permission is hereby granted, free of charge", re.IGNORECASE),
    "gpl-3.0": re.compile(r"gnu general public license\s+version 3", re.IGNORECASE),
    "bsd-3-clause": re.compile(r"\bbsd 3-clause\b", re.IGNORECASE),
}
_MAX_TITLE = 80


def licence_of(folder: Path) -> str | None:
    """The identifier of a known licence, or the first words of an unknown one; None when none is named."""
    return _from_card(folder / _CARD) or next(
        filter(None, (_from_text(folder / name) for name in _FILES)), None
    )


def _from_card(path: Path) -> str | None:
    """`license` of the card's front matter; where it is "other" the maker's own name for it."""
    front = _FRONT_MATTER.match(_read(path))
    fields = dict(_FIELD.findall(front[1])) if front else {}
    licence = fields.get("license")
    return fields.get("license_name", licence) if licence == "other" else licence


def _from_text(path: Path) -> str | None:
    text = _read(path)
    known = next((name for name, words in _TEXTS.items() if words.search(text)), None)
    title = next((line.strip(" #*") for line in text.splitlines() if line.strip(" #*")), "")
    return known or title[:_MAX_TITLE] or None


def _read(path: Path) -> str:
    """The beginning of a file; nothing where there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_CHARS)
    except OSError:
        return ""
