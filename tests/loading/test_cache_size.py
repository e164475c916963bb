"""The estimated cache against the one that transformers really fills, and configs of every dialect."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.loading.facts.cache_size import CacheSize, cache_size
from llmctl.loading.facts.layers import LayerKind, layer_kinds
from llmctl.loading.facts.shape import shape_of, text_config
from tests import tiny

FLOAT32 = 4
NUM_TOKENS = 24
# These two keep their state inside of the model, where no cache object shows it.
HIDDEN_STATE = {"rwkv", "recurrent_gemma"}
MEASURED = sorted(set(tiny.CONFIGS) - HIDDEN_STATE)
KV_ONLY = {"keys", "values"}


def kept_bytes(kind: str) -> int:
    """Bytes of all tensors in the cache after `NUM_TOKENS` tokens."""
    ids = torch.arange(NUM_TOKENS)[None]
    with torch.no_grad():
        cache = tiny.model(kind)(input_ids=ids, use_cache=True).past_key_values
    found: list[torch.Tensor] = []
    for value in (value for layer in cache.layers for value in vars(layer).values()):
        values = value.values() if isinstance(value, dict) else [value]
        found += [each for each in values if isinstance(each, torch.Tensor) and each.dim() > 0]
    return sum(each.nbytes for each in found)


@pytest.mark.parametrize("kind", MEASURED)
def test_the_estimate_is_what_transformers_keeps(kind: str) -> None:
    size = cache_size(tiny.config(kind).to_dict(), bytes_per_number=FLOAT32)
    assert size is not None
    # transformers keeps one token less than the window, since the new one is at hand.
    missing = size.window_bytes_per_token if size.window else 0
    assert size.bytes_for(NUM_TOKENS) - missing == kept_bytes(kind)


@pytest.mark.parametrize("kind", sorted(HIDDEN_STATE))
def test_a_recurrent_model_grows_no_further_than_its_window(kind: str) -> None:
    size = cache_size(tiny.config(kind).to_dict(), bytes_per_number=FLOAT32)
    assert size is not None
    assert size.bytes_for(1_000) == size.bytes_for(1_000_000)


@pytest.mark.parametrize(
    ("config", "kib_per_1k"),
    [
        # Llama 3.1 8B: 32 layers x 8 heads x 128 x 2 x 2 bytes = 128 KiB a token.
        (
            {
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "hidden_size": 4096,
            },
            131072,
        ),
        # Falcon 7B counts 71 heads and keeps one.
        (
            {"num_hidden_layers": 32, "num_attention_heads": 71, "hidden_size": 4544, "multi_query": True},
            8192,
        ),
        # ChatGLM2's two groups.
        (
            {
                "num_layers": 28,
                "num_attention_heads": 32,
                "hidden_size": 4096,
                "kv_channels": 128,
                "multi_query_attention": True,
                "multi_query_group_num": 2,
            },
            28672,
        ),
        # DeepSeek V3: 512 + 64 numbers a layer.
        (
            {
                "num_hidden_layers": 61,
                "num_attention_heads": 128,
                "hidden_size": 7168,
                "kv_lora_rank": 512,
                "qk_rope_head_dim": 64,
            },
            70272,
        ),
        # The part that writes text decides, wherever it stands.
        (
            {
                "hidden_size": 8,
                "text_config": {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 1024},
            },
            8192,
        ),
        # T5: 2 x 6 layers of the decoder, for the answer and for the input.
        (
            {
                "is_encoder_decoder": True,
                "num_layers": 12,
                "num_decoder_layers": 6,
                "num_heads": 8,
                "d_kv": 64,
                "d_model": 512,
            },
            24576,
        ),
    ],
)
def test_well_known_configs_give_the_known_numbers(config: dict[str, Any], kib_per_1k: int) -> None:
    size = cache_size(config, bytes_per_number=2)
    assert size is not None
    assert size.bytes_for(1024) // 1024 == kib_per_1k


FULL, SLIDING, RECURRENT = LayerKind.FULL, LayerKind.SLIDING, LayerKind.RECURRENT


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        ({}, [FULL] * 4),
        ({"layer_types": ["full_attention", "sliding_attention", "linear_attention", "moe"]},
         [FULL, SLIDING, RECURRENT, LayerKind.NONE]),
        ({"layers_block_type": ["mamba", "hybrid", "mamba", "mamba"]},
         [RECURRENT, LayerKind.BOTH, RECURRENT, RECURRENT]),
        ({"block_types": ["recurrent", "attention"], "attention_window_size": 8}, [RECURRENT, SLIDING] * 2),
        ({"hybrid_override_pattern": "M*-E"}, [RECURRENT, FULL, LayerKind.NONE, LayerKind.NONE]),
        ({"attn_type_list": [0, 0, 0, 1]}, [RECURRENT] * 3 + [FULL]),
        ({"attn_layer_indices": [2]}, [RECURRENT, RECURRENT, FULL, RECURRENT]),
        ({"attn_layer_period": 2, "attn_layer_offset": 1}, [RECURRENT, FULL] * 2),
        ({"full_attention_interval": 4}, [RECURRENT] * 3 + [FULL]),
        ({"model_type": "gemma2", "sliding_window": 8}, [SLIDING, FULL] * 2),
        ({"model_type": "falcon_mamba"}, [RECURRENT] * 4),
        ({"attention_chunk_size": 8}, [SLIDING] * 3 + [FULL]),
        ({"attention_chunk_size": 8, "no_rope_layers": [1, 0, 1, 1]}, [SLIDING, FULL, SLIDING, SLIDING]),
        ({"sliding_window": 8}, [SLIDING] * 4),
        ({"sliding_window": None}, [FULL] * 4),
        ({"sliding_window": 8, "use_sliding_window": False}, [FULL] * 4),
        ({"sliding_window": 8, "sliding_window_pattern": 2}, [SLIDING, FULL] * 2),
        ({"sliding_window": 8, "max_window_layers": 3}, [FULL] * 3 + [SLIDING]),
        ({"num_kv_shared_layers": 2}, [FULL, FULL, LayerKind.NONE, LayerKind.NONE]),
    ],
)  # fmt: skip
def test_every_dialect_tells_the_layers_apart(config: dict[str, Any], kinds: list[LayerKind]) -> None:
    whole = {"num_hidden_layers": 4, **config}
    assert layer_kinds(text_config(whole), shape_of(whole))[0] == kinds


@pytest.mark.parametrize(
    "config", [{}, {"num_hidden_layers": 2}, {"hidden_size": 8, "num_attention_heads": 2}]
)
def test_a_config_that_names_too_little_gives_no_estimate(config: dict[str, Any]) -> None:
    assert cache_size(config, bytes_per_number=2) is None


@pytest.mark.parametrize("size", [
    CacheSize(bytes_per_token=7, state_bytes=3),
    CacheSize(bytes_per_token=7, window_bytes_per_token=5, window=10, state_bytes=3),
    CacheSize(bytes_per_token=0, window_bytes_per_token=5, window=10),
    CacheSize(bytes_per_token=0, state_bytes=9),
])  # fmt: skip
@pytest.mark.parametrize("num_bytes", [0, 2, 3, 9, 49, 50, 122, 123, 124, 1000])
def test_so_many_tokens_fit_and_not_one_more(size: CacheSize, num_bytes: int) -> None:
    most = size.tokens_in(num_bytes)
    if most is None:
        assert size.bytes_for(10**9) <= num_bytes
    elif most:
        assert size.bytes_for(most) <= num_bytes < size.bytes_for(most + 1)
    else:
        assert size.bytes_for(1) > num_bytes


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim"),
    *("layer_types", "block_types", "hybrid_override_pattern", "attn_type_list", "attn_layer_indices"),
    *("attn_layer_period", "attn_layer_offset", "full_attention_interval", "model_type", "no_rope_layers"),
    *("attention_chunk_size", "sliding_window", "sliding_window_pattern", "max_window_layers"),
    *("text_config", "attn_config", "kv_lora_rank", "mamba_d_state", "linear_num_key_heads"),
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), json_values | st.integers(1, 9), max_size=12))
def test_no_config_makes_the_estimate_fail(config: dict[str, Any]) -> None:
    size = cache_size(config, bytes_per_number=2)
    assert size is None or size.bytes_for(1024) >= 0
