"""How much memory a model keeps for the tokens it has seen, estimated from `config.json` alone.

With E bytes a number (2 in bfloat16), a layer of each kind keeps

    full attention     2 x kv heads x head size x E           for each token (keys and values)
    latent attention   (kv_lora_rank + qk_rope_head_dim) x E  for each token (DeepSeek's MLA)
    sliding window     as full attention, for no more tokens than the window holds
    recurrent          a state of fixed size, whatever was read (Mamba, linear attention, convolutions)

and an encoder-decoder keeps a second cache of full attention for its input. No torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmctl.loading.facts.layers import LayerKind, layer_kinds
from llmctl.loading.facts.shape import Shape, number, shape_of, text_config

_WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size", "window_size")
_STATE_BYTES = 4
"""Recurrent states are summed up in float32 whatever the weights are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSize:
    """The memory of one conversation."""

    bytes_per_token: int
    """Layers that keep every token."""
    window_bytes_per_token: int = 0
    """Layers that keep the last `window` tokens."""
    window: int = 0
    state_bytes: int = 0
    """Layers whose memory does not grow."""
    notes: tuple[str, ...] = ()
    """What was assumed where the config is silent, as sentences without a full stop."""

    def bytes_for(self, num_tokens: int) -> int:
        """For so many tokens, prompt and answer together."""
        return (
            self.bytes_per_token * num_tokens
            + self.window_bytes_per_token * min(num_tokens, self.window)
            + self.state_bytes
        )

    def tokens_in(self, num_bytes: int) -> int | None:
        """The most tokens that take no more than `num_bytes`; None when any number does."""
        left = num_bytes - self.state_bytes
        if left < 0:
            return 0
        per_token = self.bytes_per_token + self.window_bytes_per_token
        if not per_token:
            return None
        if left < per_token * self.window:
            return left // per_token
        left -= self.window_bytes_per_token * self.window
        return left // self.bytes_per_token if self.bytes_per_token else None


def cache_size(config: Mapping[str, Any], *, bytes_per_number: int) -> CacheSize | None:
    """Estimate the cache of the model with this `config.json`; None when it names no layers or heads."""
    shape = shape_of(config)
    config = text_config(config)
    kinds, notes = layer_kinds(config, shape)
    attending = [kind for kind in kinds if kind in (LayerKind.FULL, LayerKind.SLIDING, LayerKind.BOTH)]
    per_layer = _bytes_per_layer(config, shape, bytes_per_number, notes)
    if not kinds or (attending and per_layer is None):
        return None
    window = number(config, _WINDOWS) or 0
    num_sliding = kinds.count(LayerKind.SLIDING) if window else 0
    if shape.is_encoder_decoder:
        notes.append("an encoder-decoder: input and answer are each counted with this many tokens")
    return CacheSize(
        bytes_per_token=(len(attending) - num_sliding) * (per_layer or 0) * (1 + shape.is_encoder_decoder),
        window_bytes_per_token=num_sliding * (per_layer or 0),
        window=window if num_sliding else 0,
        state_bytes=_state_bytes(config, shape, kinds, notes),
        notes=tuple(notes),
    )


def _bytes_per_layer(
    config: Mapping[str, Any], shape: Shape, bytes_per_number: int, notes: list[str]
) -> int | None:
    """For one token in one layer that attends."""
    latent = number(config, ("kv_lora_rank",))
    if latent is not None:
        rope = number(config, ("qk_rope_head_dim",)) or 0
        notes.append("latent attention (MLA): keys and values are kept compressed")
        return (latent + rope) * bytes_per_number
    if shape.num_kv_heads is None or shape.head_size is None:
        return None
    value_size = number(config, ("v_head_dim",)) or shape.head_size
    return shape.num_kv_heads * (shape.head_size + value_size) * bytes_per_number


def _state_bytes(config: Mapping[str, Any], shape: Shape, kinds: list[LayerKind], notes: list[str]) -> int:
    num_layers = kinds.count(LayerKind.RECURRENT) + kinds.count(LayerKind.BOTH)
    if not num_layers:
        return 0
    numbers = _numbers_per_state(config, shape)
    if numbers is None:
        notes.append(f"{num_layers} recurrent layers: their states, of fixed size, are not counted")
        return 0
    notes.append(f"{num_layers} recurrent layers keep a state of fixed size")
    return num_layers * numbers * _STATE_BYTES


def _numbers_per_state(config: Mapping[str, Any], shape: Shape) -> int | None:
    """Numbers that one recurrent layer keeps: the convolution's last inputs and the state itself."""
    hidden = shape.hidden_size or 0
    key_heads, value_heads = _two(config, "linear_num_key_heads", "linear_num_value_heads")
    key_size, value_size = _two(config, "linear_key_head_dim", "linear_value_head_dim")
    if key_heads and value_heads and key_size and value_size:
        channels = 2 * key_heads * key_size + value_heads * value_size
        kernel = number(config, ("linear_conv_kernel_dim",)) or 4
        return channels * kernel + value_heads * key_size * value_size
    state = number(config, ("mamba_d_state", "ssm_state_size", "state_size"))
    if state is not None and hidden:
        kernel = number(config, ("mamba_d_conv", "conv_kernel")) or 4
        expand = number(config, ("mamba_expand", "expand")) or 2
        inner = number(config, ("mamba_d_ssm", "intermediate_size_ssm")) or expand * hidden
        groups = number(config, ("mamba_n_groups", "n_groups")) or 0
        # The first Mamba has no groups and convolves the input alone.
        return (inner + 2 * groups * state) * kernel + inner * state
    length = number(config, ("conv_L_cache",))
    return hidden * length if length and hidden else None


def _two(config: Mapping[str, Any], first: str, second: str) -> tuple[int | None, int | None]:
    return number(config, (first,)), number(config, (second,))
