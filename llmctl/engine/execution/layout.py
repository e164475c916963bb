"""What a loaded model keeps of its sequences, and the handler that runs it over that.

In between the engine allocates: `layout` says how much a token and a sequence take, `storage.allocate` makes
the blocks, `handler` takes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llmctl.engine.attention import interface
from llmctl.engine.attention.interface import KVLayer
from llmctl.engine.execution import recurrent
from llmctl.engine.execution.drive import UndrivableError
from llmctl.engine.execution.handler import Handler, StepHandler, kv_shapes
from llmctl.engine.execution.own_cache import OwnCacheHandler
from llmctl.engine.execution.recurrent import RecurrentHandler
from llmctl.engine.execution.storage import KVShape
from llmctl.engine.scheduling import policy
from llmctl.engine.scheduling.policy import Group, LayerPolicy

Letter = Literal["A", "B", "C"]
"""A: layers that attend, all tokens of a step in one row. B: recurrent layers too, states in slots.
C: one sequence after another through the model's own cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a model keeps. Tier C keeps nothing that the engine knows of."""

    letter: Letter
    groups: Sequence[Group] = ()
    """Layers with one policy, as `Step.groups` counts them."""
    shapes: Mapping[int, KVShape] = field(default_factory=dict)
    """Of the layers that keep keys and values of their own, by number."""
    sources: Mapping[int, int] = field(default_factory=dict)
    """Layers that read the keys and values of an earlier one: which."""
    state_bytes: int = 0
    """Of one sequence, however long."""


def layout(model: Any, letter: Letter) -> Layout:
    """What `model` keeps in tier `letter`, found by running one token through it.

    Raises `UndrivableError` where the model does otherwise than its config says.
    """
    if letter == "C":
        return Layout(letter=letter)
    if letter == "B":
        kept = recurrent.kept(model)
        shapes, state_bytes = kept.shapes, kept.state_bytes
    else:
        shapes, state_bytes = kv_shapes(model), 0
    found = layer_policies(model.config)
    # LongCat has two attentions in a layer, and its config counts layers.
    found += [LayerPolicy("full")] * (max(shapes, default=-1) + 1 - len(found))
    sources = {
        number: each.source
        for number, each in enumerate(found)
        if each.kind == "shared" and each.source is not None
    }
    own = {number: shape for number, shape in shapes.items() if number not in sources}
    groups = policy.groups(found)
    grouped = {number for group in groups for number in group.layers}
    if strange := sorted(set(own) - grouped):
        raise UndrivableError(f"layer {strange[0]} attends, which the config does not say")
    return Layout(letter=letter, groups=groups, shapes=own, sources=sources, state_bytes=state_bytes)


def layer_policies(config: Any) -> list[LayerPolicy]:
    """What each layer remembers, by the loaded config."""
    return list(policy.policies(config.get_text_config(decoder=True).to_dict()))


def handler(model: Any, layout: Layout, layers: Mapping[int, KVLayer], num_slots: int) -> StepHandler:
    """What runs `model`; `layers` is what `storage.allocate` made of the layout. Raises `UndrivableError`."""
    if layout.letter == "C":
        return OwnCacheHandler(model)
    backend = interface.choose(model.device, model.dtype)
    if layout.letter == "A":
        return Handler(model, backend, layers, layout.sources)
    return RecurrentHandler(model, backend, layers, num_slots)
