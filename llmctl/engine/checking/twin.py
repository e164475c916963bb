"""A shrunken twin of a model: the same class and the same kinds of layers, a thousandth of the numbers.

Windows, chunks and temperature scales are so short that a sequence of 40 tokens crosses them.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch

from llmctl.engine.scheduling import policy

VOCABULARY_SIZE = 128
_HIDDEN, _HEADS, _HEAD = 64, 4, 16
_STATE_HEADS = 8
"""Of Mamba 2: its inner size is twice the hidden size."""
_INNER = 2 * _HIDDEN
_WINDOW, _CHUNK = 8, 16
_MAX_LAYERS = 12
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_INDEX_LISTS = ("attn_layer_indices", "full_attn_idxs", "mlp_only_layers", "hybrid_layer_ids", "moe_layers")
_SIZES: Mapping[str, int] = {
    **dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "block_dim", "conv_dim"), _HIDDEN
    ),
    **dict.fromkeys(("lru_width", "embedding_size", "conv_dim_out"), _HIDDEN),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), _HEADS),
    **dict.fromkeys(("head_dim", "kv_channels", "global_head_dim", "swa_head_dim"), _HEAD),
    **dict.fromkeys(("n_inner", "ffn_dim", "ffn_hidden_size", "block_ff_dim"), _HIDDEN),
    **dict.fromkeys(("intermediate_size_mlp", "expert_ffn_hidden_size", "shared_intermediate_size"), _HIDDEN),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY_SIZE),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    "qk_head_dim": 16,
    "attention_head_dim": _INNER // _HEADS,
    **dict.fromkeys(("index_topk", "index_top_k", "sparse_topk", "index_block_size"), 4),
    "index_topk_blocks": 2,
    **dict.fromkeys(("sliding_window", "window_size", "attention_window_size"), _WINDOW),
    "attention_chunk_size": _CHUNK,
    **dict.fromkeys(("floor_scale", "rotary_dim", "laurel_rank", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), _STATE_HEADS),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), _INNER // _STATE_HEADS),
    "mamba_d_ssm": _INNER,
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size"), 8),
    **dict.fromkeys(("mamba_dt_rank", "time_step_rank"), 4),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "block_size"), 8),
    "linear_num_key_heads": 2,
    "linear_num_heads": _HEADS,
    **dict.fromkeys(("linear_head_dim", "linear_key_head_dim", "linear_value_head_dim"), 8),
}
_LIMITS: Mapping[str, int] = {
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k"), 2),
    **dict.fromkeys(("n_group", "n_groups", "mamba_n_groups", "mamba_ngroups", "zero_expert_num"), 2),
    **dict.fromkeys(("topk_group", "first_k_dense_replace", "max_window_layers", "num_dense_layers"), 1),
    **dict.fromkeys(("moe_layer_start_index", "n_shared_experts", "num_mem_blocks"), 1),
    "linear_num_value_heads": 4,
    "kv_n_heads": 2,
}
_SPREADS = {"initializer_range": 0.1, "init_std": 0.1, "init_method_std": 0.1}
"""Wide enough that a wrong mask shows, narrow enough that rounding does not."""


def config(real: Any) -> Any:
    """The twin's configuration, of the part of `real` that writes text.

    Whatever the class of configuration does not like about it, it raises as it pleases.
    """
    text = real.get_text_config(decoder=True)
    values = shrunken(text.to_dict())
    return type(text).from_dict(values)


def model(real: Any) -> Any:
    """The twin itself, random, in float32, attending eagerly on the CPU; see `config`."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = transformers.AutoModelForCausalLM.from_config(
            config(real), dtype=torch.float32, attn_implementation="eager"
        )
    return made.eval()


def shrunken(values: Mapping[str, Any]) -> dict[str, Any]:
    """A `config.json` with all sizes made small, the same for all of its parts."""
    num_layers = next((values[name] for name in _LAYER_COUNTS if isinstance(values.get(name), int)), None)
    kept = _kept(values, num_layers) if num_layers else []
    found = {key: _small(key, value) for key, value in copy.deepcopy(dict(values)).items()}
    if num_layers:
        found = {key: _cut(key, value, num_layers, kept) for key, value in found.items()}
    found |= _heads(values)
    if "kv_lora_rank" in values and "head_dim" in values:
        found["head_dim"] = found["qk_rope_head_dim"]
    if isinstance(values.get("attention_hidden_size"), int) and values.get("hidden_size"):
        found["attention_hidden_size"] = _HIDDEN * (values["attention_hidden_size"] // values["hidden_size"])
    if "state_size" in values and "num_heads" in values:
        found |= {"num_heads": _STATE_HEADS, "head_dim": _INNER // _STATE_HEADS}
    if values.get("num_kv_shared_layers"):
        found["num_kv_shared_layers"] = len(kept) // 2
    for key in ("rope_parameters", "rope_scaling"):
        if isinstance(values.get(key), Mapping):
            found[key] = _rope(values[key], found)
    return found


def _small(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {inner: _small(str(inner), each) for inner, each in value.items()}
    if key.endswith("_token_id"):
        return None if value is None else 1
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, list) and key.endswith("intermediate_size"):
        return [_HIDDEN] * len(value)
    if not isinstance(value, int | float):
        return value
    if key in _SIZES:
        return _SIZES[key]
    if key in _LIMITS:
        return min(value, _LIMITS[key])
    if key.endswith("intermediate_size"):
        return _HIDDEN
    return _SPREADS.get(key, value)


def _heads(values: Mapping[str, Any]) -> dict[str, Any]:
    """As many heads of keys as fit the kind: one, all, or half."""
    found: dict[str, Any] = {}
    heads = next(
        (values[key] for key in ("num_attention_heads", "n_head", "n_heads") if values.get(key)), None
    )
    for key in ("num_key_value_heads", "num_kv_heads", "kv_n_heads"):
        if isinstance(values.get(key), int):
            given = values[key]
            found[key] = 1 if given == 1 else _HEADS if given == heads else _HEADS // 2
    return found


def _kept(values: Mapping[str, Any], num_layers: int) -> list[int]:
    """Layers of the twin: the first ones that show every kind, two at least."""
    kinds = [(each.kind, each.window, each.chunk) for each in policy.policies(values)]
    if values.get("num_kv_shared_layers"):
        kinds = [kind for kind in kinds if kind[0] != "shared"]
        return list(range(2 * max(kinds.index(kind) + 1 for kind in set(kinds))))
    firsts = sorted({kinds.index(kind) for kind in kinds})
    count = max(min(2, num_layers), max(firsts, default=1) + 1)
    # Qwen 2 has windows in its last layers only.
    return list(range(count)) if count <= _MAX_LAYERS else firsts


def _cut(key: str, value: Any, num_layers: int, kept: list[int]) -> Any:
    if key in _LAYER_COUNTS:
        return len(kept)
    if key == "hybrid_override_pattern" and isinstance(value, str):
        return "".join(value[index] for index in kept)
    if key == "per_layer_config" and isinstance(value, Mapping):
        return {place: value[old] for place, number in enumerate(kept) for old in value if int(old) == number}
    if not isinstance(value, list):
        return value
    if key in _INDEX_LISTS:
        return [place for place, index in enumerate(kept) if index in value]
    return [value[index] for index in kept] if len(value) == num_layers else value


def _rope(values: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings whose lists are as long as the twin's heads ask for."""
    if values and all(isinstance(each, Mapping) for each in values.values()):
        return {key: _rope(each, small) for key, each in values.items()}
    partial = values.get("partial_rotary_factor", small.get("partial_rotary_factor")) or 1.0
    head = small.get("qk_rope_head_dim") or small.get("head_dim") or _HEAD
    num_pairs = int(head * partial) // 2
    resized: Mapping[str, Callable[[Any], Any]] = {
        "short_factor": lambda factors: (factors * num_pairs)[:num_pairs],
        "long_factor": lambda factors: (factors * num_pairs)[:num_pairs],
        "mrope_section": lambda _: [num_pairs - 2 * (num_pairs // 3), num_pairs // 3, num_pairs // 3],
    }
    return {key: resized[key](each) if key in resized and each else each for key, each in values.items()}
