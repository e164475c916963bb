"""Which tensor of the base each of the target's is compared with."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmctl.artifacts.delta import coding
from llmctl.artifacts.delta.manifest import Fate
from llmctl.artifacts.stream.source import Entry, Source
from llmctl.core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A tensor of the target and what the delta makes of it."""

    name: str
    fate: Fate
    target: Entry
    base: Entry | None
    """What the difference is taken from."""

    @property
    def width(self) -> int:
        """Bytes of a number."""
        return coding.width_of(self.target.dtype)

    def is_other(self, target: Source) -> bool:
        """Whether the tensor of that name in `target` is of another shape or type."""
        own = target.entry(self.name)
        return (own.dtype, own.shape) != (self.target.dtype, self.target.shape)


class Excluded:
    """Tensors that are to be taken as they are in the base."""

    def __init__(self, patterns: Sequence[str], names: Iterable[str]) -> None:
        """Regular expressions, and the names in which they are searched for. Raises `UsageError`."""
        found = {pattern: set(filter(_compiled(pattern).search, names)) for pattern in patterns}
        self.names = frozenset[str]().union(*found.values())
        self.notices = [
            f"--exclude {pattern!r} finds no tensor" for pattern, these in found.items() if not these
        ]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--exclude {pattern!r} is no regular expression: {error}",
            hint=r"it is searched for in the names of tensors, as lm_head or layers\.0\.",
        ) from error


def pairs_of(base: Source, target: Source, excluded: Excluded) -> tuple[list[Pair], tuple[str, ...]]:
    """What becomes of each tensor of the target, and the names of those that are left out of it."""
    pairs, left_out = [], []
    for name, entry in target.entries.items():
        own = base.entries.get(name)
        if name in excluded.names:
            if own is None:
                left_out.append(name)
            else:
                pairs.append(Pair(name=name, fate="excluded", target=own, base=own))
        else:
            pairs.append(_pair(name, entry, own))
    return pairs, tuple(left_out)


def _pair(name: str, target: Entry, base: Entry | None) -> Pair:
    fate: Fate = "new"
    if base is not None and base.dtype == target.dtype:
        if base.shape == target.shape:
            fate = "changed"
        elif (
            min(target.num_bytes, base.num_bytes)
            and target.shape
            and base.shape[1:] == target.shape[1:]
            and len(base.shape) == len(target.shape)
        ):
            fate = "resized"
    return Pair(name=name, fate=fate, target=target, base=base if fate != "new" else None)
