"""What each layer of a model remembers, by the many ways in which configs say it. No torch.

transformers' `layer_types` counts first; other configs have a rule of their own each, in `_RULES`.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from llmctl.loading.facts.shape import Shape, number


class LayerKind(Enum):
    """How a layer's memory grows."""

    FULL = "full"
    """With every token."""
    SLIDING = "sliding"
    """Up to a window."""
    RECURRENT = "recurrent"
    """Not at all."""
    BOTH = "both"
    """Attention and a recurrent state side by side."""
    NONE = "none"
    """It remembers nothing: feed-forward alone, or the keys and values of another layer."""


_LISTS = ("layer_types", "layers_block_type", "block_types", "attention_layers")
# The first word that the name of a kind holds decides: "linear_attention" is recurrent, not full.
_WORDS: tuple[tuple[LayerKind, tuple[str, ...]], ...] = (
    (LayerKind.BOTH, ("hybrid",)),
    (LayerKind.SLIDING, ("sliding", "chunked", "window", "local")),
    (LayerKind.RECURRENT, ("linear", "mamba", "conv", "recurrent", "delta", "rwkv", "ssm", "lightning")),
    (LayerKind.FULL, ("attention", "full", "global", "compressed", "indexed", "sparse")),
    (LayerKind.NONE, ("moe", "mlp", "ffn")),
)
_LETTERS = {"M": LayerKind.RECURRENT, "*": LayerKind.FULL, "-": LayerKind.NONE, "E": LayerKind.NONE}
_RECURRENT_MODELS = ("mamba", "rwkv", "xlstm")
_MAX_LAYERS = 10_000

Rule = Callable[[Mapping[str, Any], int], Sequence[LayerKind] | None]


def layer_kinds(config: Mapping[str, Any], shape: Shape) -> tuple[list[LayerKind], list[str]]:
    """The kind of every layer, and notes on what was assumed; no layers when the config counts none.

    `config` is that of the part that writes text (`shape.text_config`).
    """
    num_layers = shape.num_layers
    if num_layers is None or num_layers > _MAX_LAYERS:
        return [], []
    found = next((kinds for rule in _RULES if (kinds := rule(config, num_layers)) is not None), None)
    kinds = [LayerKind.FULL] * num_layers if found is None else list(found)[:num_layers]
    # Gemma 3n: the last layers read what an earlier one has kept.
    if shared := number(config, ("num_kv_shared_layers",)):
        kinds[max(0, num_layers - shared) :] = [LayerKind.NONE] * min(shared, num_layers)
    return kinds, _notes(kinds)


def _notes(kinds: Sequence[LayerKind]) -> list[str]:
    num_sliding = kinds.count(LayerKind.SLIDING)
    return [f"{num_sliding} of {len(kinds)} layers keep a sliding window only"] if num_sliding else []


def _listed(config: Mapping[str, Any], num_layers: int) -> Sequence[LayerKind] | None:
    names = next((config[key] for key in _LISTS if isinstance(config.get(key), list) and config[key]), None)
    if names is None:
        return None
    # RecurrentGemma names one period of its pattern; in its attention there is a window.
    kinds = [_kind_of(str(names[index % len(names)])) for index in range(num_layers)]
    if "attention_window_size" in config:
        return [LayerKind.SLIDING if kind is LayerKind.FULL else kind for kind in kinds]
    return kinds


def _kind_of(name: str) -> LayerKind:
    return next(
        (kind for kind, words in _WORDS if any(word in name.lower() for word in words)), LayerKind.FULL
    )


def _lettered(config: Mapping[str, Any], num_layers: int) -> Sequence[LayerKind] | None:
    """Nemotron-H: a letter for each layer."""
    pattern = config.get("hybrid_override_pattern")
    if not isinstance(pattern, str) or not pattern:
        return None
    return [_LETTERS.get(letter, LayerKind.FULL) for letter in pattern[:num_layers]]


def _numbered(config: Mapping[str, Any], num_layers: int) -> Sequence[LayerKind] | None:
    """MiniMax: 1 for each layer of full attention, 0 for the linear ones."""
    numbers = config.get("attn_type_list")
    if not isinstance(numbers, list) or not numbers:
        return None
    return [LayerKind.FULL if each == 1 else LayerKind.RECURRENT for each in numbers[:num_layers]]


def _indexed(config: Mapping[str, Any], num_layers: int) -> Sequence[LayerKind] | None:
    """Bamba and LFM2: the places of the layers that attend."""
    places = config.get("attn_layer_indices", config.get("full_attn_idxs"))
    if not isinstance(places, list):
        return None
    return _every(num_layers, lambda index: index in places, LayerKind.RECURRENT)


def _periodic(config: Mapping[str, Any], num_layers: int) -> Sequence[LayerKind] | None:
    """Jamba by period and offset, Qwen3-Next by interval."""
    if period := number(config, ("attn_layer_period",)):
        offset = number(config, ("attn_layer_offset",)) or 0
        return _every(num_layers, lambda index: index % period == offset, LayerKind.RECURRENT)
    if interval := number(config, ("full_attention_interval",)):
        return _every(num_layers, lambda index: (index + 1) % interval == 0, LayerKind.RECURRENT)
    return None


def _by_model_type(config: Mapping[str, Any], num_layers: int) -> Sequence[LayerKind] | None:
    """Families that are recurrent throughout, and Gemma 2, whose layers take turns without saying so."""
    kind = str(config.get("model_type", ""))
    if kind == "falcon_h1":
        return [LayerKind.BOTH] * num_layers
    if kind == "gemma2":
        return _every(num_layers, lambda index: index % 2 == 1, LayerKind.SLIDING)
    if any(word in kind for word in _RECURRENT_MODELS):
        return [LayerKind.RECURRENT] * num_layers
    return None


def _chunked(config: Mapping[str, Any], num_layers: int) -> Sequence[LayerKind] | None:
    """Llama 4: chunks everywhere but in the layers without rotary positions, each fourth if not listed."""
    if number(config, ("attention_chunk_size",)) is None:
        return None
    rotary = config.get("no_rope_layers")
    if isinstance(rotary, list) and len(rotary) >= num_layers:
        return _every(num_layers, lambda index: not rotary[index], LayerKind.SLIDING)
    return _every(num_layers, lambda index: (index + 1) % 4 == 0, LayerKind.SLIDING)


def _windowed(config: Mapping[str, Any], num_layers: int) -> Sequence[LayerKind] | None:
    """A window in all layers, in all but each n-th (Gemma 3, Cohere 2), or from one on (Qwen 2)."""
    if number(config, ("sliding_window",)) is None or config.get("use_sliding_window") is False:
        return None
    if pattern := number(config, ("sliding_window_pattern",)):
        return _every(num_layers, lambda index: (index + 1) % pattern == 0, LayerKind.SLIDING)
    if "max_window_layers" in config:
        first = number(config, ("max_window_layers",)) or 0
        return _every(num_layers, lambda index: index < first, LayerKind.SLIDING)
    return [LayerKind.SLIDING] * num_layers


def _every(num_layers: int, is_full: Callable[[int], bool], other: LayerKind) -> Sequence[LayerKind]:
    return [LayerKind.FULL if is_full(index) else other for index in range(num_layers)]


_RULES: tuple[Rule, ...] = (
    _listed,
    _lettered,
    _numbered,
    _indexed,
    _periodic,
    _by_model_type,
    _chunked,
    _windowed,
)
