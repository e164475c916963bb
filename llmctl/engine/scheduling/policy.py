"""What each layer keeps of a sequence, read from a model's config. Plain Python.

All keys and values, those of a window or of a chunk, a state of fixed size, or nothing of its own. Layers of
one policy share their block tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmctl.loading.facts.layers import LayerKind, layer_kinds
from llmctl.loading.facts.shape import number, shape_of, text_config

Kind = Literal["full", "sliding", "chunked", "shared", "recurrent", "none"]
_WINDOWS = ("sliding_window", "attention_window_size", "window_size")
_NAMES = ("layer_types", "layers_block_type", "attention_layers")


@dataclass(frozen=True, slots=True)
class LayerPolicy:
    """What a layer keeps. One that attends and has a recurrent state besides counts as attending."""

    kind: Kind
    window: int | None = None
    """Tokens that a sliding layer sees, the newest with it."""
    chunk: int | None = None
    """Tokens of a chunk; a token sees its own chunk only."""
    source: int | None = None
    """The layer whose keys and values a shared one reads."""

    @property
    def keeps_blocks(self) -> bool:
        """Whether the layer has keys and values of its own."""
        return self.kind in ("full", "sliding", "chunked")


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that keep the same tokens, so that one block table serves them all."""

    policy: LayerPolicy
    layers: tuple[int, ...]
    """Their numbers, ascending."""


def policies(config: Mapping[str, Any]) -> list[LayerPolicy]:
    """One for each layer of the model with this `config.json`; none where it does not count its layers."""
    config = text_config(config)
    if shape_of(config).num_layers is None:
        # Nemotron-H names its layers and does not count them.
        config = {**config, "num_hidden_layers": len(_listed(config))}
    num_shared = number(config, ("num_kv_shared_layers",)) or 0
    # Which layer is read depends on what the reader would keep if it kept anything.
    kinds, _ = layer_kinds({**config, "num_kv_shared_layers": 0}, shape_of(config))
    names = _names(config, kinds)
    found = [_policy(config, kind, name) for kind, name in zip(kinds, names, strict=True)]
    first_shared = max(0, len(found) - num_shared)
    for index in range(first_shared, len(found)):
        source = next((each for each in range(first_shared)[::-1] if names[each] == names[index]), None)
        if source is not None:
            found[index] = LayerPolicy("shared", source=source)
    return found


def groups(policies: Sequence[LayerPolicy]) -> list[Group]:
    """The layers that keep blocks by what they keep, in the order of their first ones."""
    by_policy: dict[LayerPolicy, list[int]] = {}
    for index, policy in enumerate(policies):
        if policy.keeps_blocks:
            by_policy.setdefault(policy, []).append(index)
    return [Group(policy, tuple(layers)) for policy, layers in by_policy.items()]


def first_needed(policy: LayerPolicy, num_tokens: int) -> int:
    """The first token whose keys and values a new one at position `num_tokens` sees."""
    if policy.window is not None:
        return max(0, num_tokens - policy.window + 1)
    if policy.chunk is not None:
        return num_tokens // policy.chunk * policy.chunk
    return 0


def most_blocks(policy: LayerPolicy, num_tokens: int, max_step: int, block_size: int) -> int:
    """Blocks that a sequence holds at most until it has `num_tokens`, computed `max_step` at a time."""
    whole = -(-num_tokens // block_size)
    reach = policy.window or policy.chunk
    if reach is None:
        return whole
    # That many tokens in a row, wherever they begin in a block.
    num_held = reach - 1 + max_step
    return min(whole, (num_held + block_size - 2) // block_size + 1)


def _names(config: Mapping[str, Any], kinds: Sequence[LayerKind]) -> list[str]:
    """What the config calls each layer; where it does not, what it was found to be."""
    listed = _listed(config)
    if len(listed) < len(kinds):
        return [kind.value for kind in kinds]
    return [str(name) for name in listed[: len(kinds)]]


def _listed(config: Mapping[str, Any]) -> list[Any]:
    return next((config[key] for key in _NAMES if isinstance(config.get(key), list)), [])


def _policy(config: Mapping[str, Any], kind: LayerKind, name: str) -> LayerPolicy:
    match kind:
        case LayerKind.RECURRENT:
            return LayerPolicy("recurrent")
        case LayerKind.NONE:
            return LayerPolicy("none")
        case LayerKind.SLIDING:
            return _local(config, name)
        case LayerKind.BOTH:
            return _local(config, name) if "sliding" in name else LayerPolicy("full")
        case LayerKind.FULL:
            return LayerPolicy("full")


def _local(config: Mapping[str, Any], name: str) -> LayerPolicy:
    """Of a layer that sees its surroundings only; a config that does not say how far means: everything."""
    window, chunk = number(config, _WINDOWS), number(config, ("attention_chunk_size",))
    if chunk is not None and (window is None or "chunk" in name):
        return LayerPolicy("chunked", chunk=chunk)
    if window is not None and "chunk" not in name:
        return LayerPolicy("sliding", window=window)
    return LayerPolicy("full")
