"""Whether two checkpoints are of one shape, but for the size of their vocabularies."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import BadFileError
from llmctl.lora.places import Place

_LAYER = re.compile(r"(.*?)\.\d+(?=\.)")


def check_shapes(
    base: Source, target: Source, places: Mapping[str, Sequence[Place]], vocabulary: Collection[str]
) -> None:
    """Raise `BadFileError` for a tensor of another shape, and for a layer that one of both has alone.

    `places` says what of the model the base's tensors are; what is none of it does not matter. Parameters of
    the `vocabulary` may have another number of rows.
    """
    for name in places:
        if name not in target.entries:
            continue
        one, other = base.entry(name).shape, target.entry(name).shape
        has_rows = all(place.parameter in vocabulary for place in places[name])
        if one != other and not (has_rows and one[1:] == other[1:]):
            raise _differ(base, target, f"{name} is {list(one)} and {list(other)}")
    ours, known, theirs = _layers(base.names), _layers(places), _layers(target.names)
    lists = set(known.values())
    for layer in known:
        if layer not in theirs:
            raise _differ(base, target, f"{target.name} has no {layer}")
    for layer, of in theirs.items():
        if layer not in ours and of in lists:
            raise _differ(base, target, f"{base.name} has no {layer}")


def _layers(names: Iterable[str]) -> dict[str, str]:
    """The layers that tensors are of, and the list that each is in."""
    found = (_LAYER.match(name) for name in names)
    return {each[0]: each[1] for each in found if each is not None}


def _differ(base: Source, target: Source, how: str) -> BadFileError:
    return BadFileError(
        f"{base.name} and {target.name} have different shapes: {how}; an adapter cannot hold that",
        hint="name one model before its training as --base, and after it as --target",
    )
