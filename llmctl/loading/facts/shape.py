"""A model's measures in the one spelling that llmctl uses, read from any family's `config.json`.

Every number may be unknown: configs leave out what is their code's default. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Where a model of several parts keeps the one that writes text, outermost name first.
_TEXT_PARTS = ("thinker_config", "text_config", "llm_config", "language_config", "decoder")
_MAX_PARTS = 4
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_DECODER_LAYERS = ("num_decoder_layers", "decoder_layers", *_LAYERS)
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads")
_HEAD_SIZE = ("head_dim", "kv_channels", "d_kv")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "model_dim")
_VOCABULARY = ("vocab_size", "padded_vocab_size")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "top_k_experts", "moe_top_k")
_MAX_SANE = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a config says of the part that writes text; None where it says nothing."""

    num_layers: int | None
    hidden_size: int | None
    num_heads: int | None
    num_kv_heads: int | None
    """Heads of keys and values: fewer than `num_heads` with grouped queries, 1 with multi-query."""
    head_size: int | None
    vocabulary_size: int | None
    num_experts: int | None
    """Of one layer; None also for a model without experts."""
    num_active_experts: int | None
    is_encoder_decoder: bool


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the part that writes text laid over the whole, which has the rest."""
    for _ in range(_MAX_PARTS):
        part = next((config[name] for name in _TEXT_PARTS if isinstance(config.get(name), Mapping)), None)
        if part is None:
            break
        outer = {key: value for key, value in config.items() if key not in _TEXT_PARTS}
        config = {**outer, **part}
    inner = config.get("attn_config")
    return {**inner, **config} if isinstance(inner, Mapping) else config


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Read a `config.json`, whatever it holds; what has the wrong type counts as not said."""
    config = text_config(config)
    is_pair = config.get("is_encoder_decoder") is True
    num_heads, hidden_size = number(config, _HEADS), number(config, _HIDDEN)
    return Shape(
        num_layers=number(config, _DECODER_LAYERS if is_pair else _LAYERS),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=_num_kv_heads(config, num_heads),
        head_size=number(config, _HEAD_SIZE) or _quotient(hidden_size, num_heads),
        vocabulary_size=number(config, _VOCABULARY),
        num_experts=number(config, _EXPERTS),
        num_active_experts=number(config, _ACTIVE_EXPERTS),
        is_encoder_decoder=is_pair,
    )


def number(config: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    """The first of `keys` that holds a count above 0."""
    values = (config.get(key) for key in keys)
    return next((value for value in values if _is_count(value)), None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_SANE


def _num_kv_heads(config: Mapping[str, Any], num_heads: int | None) -> int | None:
    if config.get("multi_query_attention") is True:
        # ChatGLM's name for grouped queries.
        return number(config, ("multi_query_group_num",)) or 1
    if config.get("multi_query") is True and config.get("new_decoder_architecture") is not True:
        # Falcon's config counts all heads in num_kv_heads all the same.
        return 1
    return number(config, _KV_HEADS) or num_heads


def _quotient(whole: int | None, parts: int | None) -> int | None:
    return whole // parts if whole and parts else None
