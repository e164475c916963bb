"""What of an extracted adapter peft cannot load upon its base, though llmctl merges it: told to the user."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from llmctl.artifacts.lora.found import Found, Kind
from llmctl.lora.places import Place
from llmctl.lora.vocabulary import vocabulary

_MAMBAS = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_NOT_IN_MAMBAS = ("out_proj", "conv1d")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_INSTEAD = "llmctl takes the adapter and merges it (llmctl lora merge)"


def unmerged(found: Found, model: Any, rank: int) -> Iterator[str]:
    """The notices; `model` is the base's class on the meta device."""
    yield from _grown(found, model)
    if getattr(model.config, "model_type", None) in _MAMBAS:
        modules = [each.module for each in found.of(Kind.LAYER)]
        if refused := [module for module in modules if module.endswith(_NOT_IN_MAMBAS)]:
            yield f"peft refuses matrices for {refused[0]} in models of this kind; {_INSTEAD}"
    for module in dict.fromkeys(each.module for each in found.of(Kind.WHOLE) if not each.is_bias):
        layer = model.get_submodule(module)
        parameters = dict(layer.named_parameters())
        if missing := [name for name in layer.state_dict() if name not in parameters]:
            yield f"peft does not load {module} without its {missing[0]}, which no adapter has; {_INSTEAD}"
    yield from _experts(found, str(getattr(model.config, "model_type", None)), rank)


def _grown(found: Found, model: Any) -> Iterator[str]:
    before = vocabulary(model)
    for each in found.of(Kind.WHOLE):
        if each.parameter in before and each.shape[0] != before[each.parameter]:
            yield (
                f"the vocabulary has {each.shape[0]} rows, {before[each.parameter]} in the base: peft loads "
                "the adapter upon a base that is resized first "
                f"(model.resize_token_embeddings({each.shape[0]}))"
            )
            return


def _experts(found: Found, kind: str, rank: int) -> Iterator[str]:
    """Of experts that the model joins, peft takes all of all layers, in one rank, in one kind of model."""
    joined = {tensor: own[0] for tensor, own in found.places.items() if _is_expert(own)}
    changed = {tensor: each for tensor, each in found.changes.items() if tensor in joined}
    if not changed:
        return
    first = next(iter(changed))
    if kind != "mixtral":
        yield f"peft does not load matrices for {first} right in models of the kind {kind}; {_INSTEAD}"
        return
    needed = {_kind(joined[tensor].parameter) for tensor in changed}
    # Without the other layer of each expert, peft does not find those that it joins to one.
    needed |= {
        _kind(place.parameter)
        for tensor in changed
        for place in joined.values()
        if _has_rows(joined[tensor]) and _module(place) == _module(joined[tensor])
    }
    missing = [
        name for name, place in joined.items() if _kind(place.parameter) in needed and name not in changed
    ]
    most = min(each.rank(rank) for each in changed.values())
    if missing:
        yield f"peft loads no matrices for {first} without such for {missing[0]}; {_INSTEAD}"
    elif most < rank:
        yield f"peft loads matrices for {first} up to --rank {most}; {_INSTEAD}"


def _is_expert(own: Sequence[Place]) -> bool:
    return len(own) == 1 and own[0].part is not None and own[0].part.expert is not None


def _has_rows(place: Place) -> bool:
    return place.part is not None and place.part.rows is not None


def _module(place: Place) -> str:
    return _kind(place.parameter.rpartition(".")[0] + ".")


def _kind(name: str) -> str:
    """The name for all layers."""
    return _NUMBER.sub("*", name)
