"""A head that shares its weight with the table of tokens in one of two checkpoints, and not in the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from llmctl.artifacts.lora.equal import is_equal
from llmctl.artifacts.stream.source import Source
from llmctl.lora.places import Names, Place
from llmctl.lora.updates import WHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class LoneHead:
    """The head's, which one checkpoint has alone, or both with a meaning in one."""

    tensor: str
    parameter: str
    """Its name in the model."""
    source: str | None
    """The tensor of the target that its head is; None: the merged model has that anyway."""


def lone_head(
    base: Source, target: Source, model: Any, ours: Mapping[str, Sequence[Place]]
) -> LoneHead | None:
    """None where the head is a weight of its own in both, or in none.

    `model` is the base's class on the meta device, `ours` says what of it the base's tensors are.
    """
    table_name = _weight(model, model.get_input_embeddings())
    head_name = _weight(model, model.get_output_embeddings())
    if table_name is None or head_name is None:
        return None
    theirs = Names(model).places(target.names)
    head, their_head = _stored(ours, head_name), _stored(theirs, head_name)
    their_table = _stored(theirs, table_name)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if their_table is None:
        return None
    if parameters[table_name] is not parameters[head_name]:
        if head is None or their_head is not None:
            return None
        is_same = is_equal(base, head, target, their_table)
        return LoneHead(tensor=head, parameter=head_name, source=None if is_same else their_table)
    # Files may have a copy of a shared weight: only one that is none is a head.
    tensor = their_head or head
    if tensor is None:
        return None
    is_same = their_head is None or is_equal(target, their_table, target, their_head)
    return LoneHead(tensor=tensor, parameter=head_name, source=None if is_same else their_head)


def _weight(model: Any, module: nn.Module | None) -> str | None:
    found = (path for path, each in model.named_modules() if each is module)
    path = next(found, None) if module is not None else None
    has_weight = path is not None and hasattr(module, "weight")
    return f"{path}.weight" if has_weight else None


def _stored(places: Mapping[str, Sequence[Place]], parameter: str) -> str | None:
    """The tensor that holds a parameter and nothing else."""
    for tensor, own in places.items():
        if len(own) == 1 and own[0].parameter == parameter:
            return tensor if own[0].part == WHOLE and own[0].rows is None else None
    return None
