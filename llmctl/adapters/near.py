"""Which known names look like one that no family fits: the did-you-mean of matching."""

import difflib
import functools
from collections import Counter
from collections.abc import Sequence

from llmctl.adapters.names import deciding_part
from llmctl.adapters.spec import Family

MAX_SHOWN = 3
MAX_LENGTH = 100
"""Characters of a name that are compared; comparing takes the square of them."""
_NUM_COMPARED = 16
_CUTOFF = 0.6


def near(part: str, families: Sequence[Family]) -> tuple[str, ...]:
    """Up to `MAX_SHOWN` names that resemble a name's deciding part, nearest first, one of each family."""
    part = part[:MAX_LENGTH]
    known, parts_by_pair = _index(tuple(families))
    shared = Counter(other for pair in _pairs(part) for other in parts_by_pair.get(pair, ()))
    # Sorted, so that the order of rows cannot show.
    likely = sorted(shared, key=lambda other: (-shared[other], abs(len(other) - len(part)), other))
    found = difflib.get_close_matches(part, likely[:_NUM_COMPARED], n=_NUM_COMPARED, cutoff=_CUTOFF)
    by_family: dict[str, str] = {}
    for other in found:
        name, family_id = known[other]
        by_family.setdefault(family_id, name)
    return tuple(by_family.values())[:MAX_SHOWN]


@functools.lru_cache(maxsize=2)
def _index(families: tuple[Family, ...]) -> tuple[dict[str, tuple[str, str]], dict[str, list[str]]]:
    """For each known part the name to show and its family; the parts that hold each pair of characters."""
    known: dict[str, tuple[str, str]] = {}
    for family in families:
        for name in (family.id, *family.examples):
            part, entry = deciding_part(name)[:MAX_LENGTH], (name, family.id)
            known[part] = min(entry, known.get(part, entry))
    by_pair: dict[str, list[str]] = {}
    for part in known:
        for pair in _pairs(part):
            by_pair.setdefault(pair, []).append(part)
    return known, by_pair


def _pairs(part: str) -> set[str]:
    # With its ends: short names that share no pair still begin and end alike.
    text = f" {part} "
    return {text[index : index + 2] for index in range(len(text) - 1)}
