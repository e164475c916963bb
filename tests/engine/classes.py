"""Tiny models of many more causal classes than `tests.tiny` has: one for each way to remember and to attend.

`KINDS` names all; `model(kind)` makes one in float32, its windows and chunks short enough to be crossed.
"""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests import tiny

_BASE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
_HEADS = {**_BASE, "head_dim": 8}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_ROUTED = {
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
_WINDOWS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}

_MORE: Mapping[str, Mapping[str, Any]] = {
    "llama4_text": {
        **_HEADS,
        "num_hidden_layers": 4,
        "intermediate_size_mlp": 64,
        "num_local_experts": 2,
        "interleave_moe_layer_step": 2,
        "attention_chunk_size": 16,
        "floor_scale": 8,
        "no_rope_layers": [1, 1, 1, 0],
    },
    "gemma3_text": {**_HEADS, **_WINDOWS, "query_pre_attn_scalar": 8, "tie_word_embeddings": False},
    "gemma3n_text": {
        **_HEADS,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 8,
        "vocab_size_per_layer_input": 260,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.0] * 4,
        "intermediate_size": [64] * 4,
    },
    "cohere2": {**_HEADS, **_WINDOWS},
    "gpt_oss": {**_HEADS, **_WINDOWS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "smollm3": {**_HEADS, "no_rope_layers": [1, 0]},
    "starcoder2": {**_BASE, "sliding_window": 8},
    "exaone4": {**_HEADS, **_WINDOWS},
    "ernie4_5": _HEADS,
    "ernie4_5_moe": {
        **_HEADS,
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_intermediate_size": 32,
        "moe_layer_start_index": 1,
        "moe_layer_end_index": 1,
    },
    "hunyuan_v1_dense": _HEADS,
    "hunyuan_v1_moe": {**_HEADS, "num_experts": 4, "moe_topk": 2},
    "minimax": {
        **_HEADS,
        "num_local_experts": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "block_size": 8,
    },
    "deepseek_v2": {**_BASE, **_ROUTED, **_LATENT, "topk_method": "greedy"},
    "glm4_moe": {**_HEADS, **_ROUTED},
    "olmo": _BASE,
    "olmo3": {**_BASE, **_WINDOWS},
    "olmoe": {**_BASE, "num_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {**_BASE, "num_local_experts": 4},
    "granitemoe": {**_BASE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoehybrid": {
        **_BASE,
        **_MAMBA2,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "shared_intermediate_size": 64,
        "mamba_n_groups": 1,
        "layer_types": ["mamba", "attention"],
    },
    "bamba": {**_BASE, **_MAMBA2, "attn_layer_indices": [1], "mamba_n_groups": 1},
    "qwen3_moe": {**_HEADS, **_MOE},
    # The delta rule amplifies what float32 rounds away: wide weights would hide real differences.
    "qwen3_5_text": {**_HEADS, **_DELTA, "initializer_range": 0.1},
    "qwen3_next": {**tiny.CONFIGS["qwen3_next"], "initializer_range": 0.1},
    # Wide weights make time steps so short that its code limits them, in prompts but not while decoding.
    "zamba2": {
        **_BASE,
        "initializer_range": 0.1,
        "num_key_value_heads": 4,
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "hybrid_layer_ids": [1, 3],
        "num_mem_blocks": 1,
        "n_mamba_heads": 8,
        "mamba_d_state": 8,
        "mamba_ngroups": 1,
        "chunk_size": 8,
        "attention_hidden_size": 64,
    },
    "nemotron": {**_HEADS},
    "nemotron_h": {
        **_HEADS,
        "initializer_range": 0.1,
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "attention", "mlp"],
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "persimmon": {**_BASE, "num_key_value_heads": 4},
    "codegen": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 256,
        "n_ctx": 256,
        "rotary_dim": 8,
        "initializer_range": 0.3,
    },
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": 256,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
        "initializer_range": 0.3,
    },
    "qwen2_window": {**_BASE, "sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1},
    "dbrx": {
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 256,
        "initializer_range": 0.3,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "xglm": {
        "d_model": 32,
        "num_layers": 2,
        "attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 256,
        "init_std": 0.3,
    },
    "biogpt": {**_BASE},
    "arcee": _HEADS,
    "seed_oss": _HEADS,
    "helium": _HEADS,
    "apertus": _BASE,
    "dots1": {**_HEADS, **_ROUTED, "n_shared_experts": 1},
    "lfm2_moe": {
        **_BASE,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "num_dense_layers": 1,
        "layer_types": ["conv", "full_attention"],
    },
    "jetmoe": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "kv_channels": 8,
        "intermediate_size": 64,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "initializer_range": 0.3,
    },
    "diffllama": _HEADS,
    "ministral": {**_HEADS, **_WINDOWS},
    "ministral3": _HEADS,
    "gpt_neox_japanese": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "vaultgemma": {**_HEADS, **_WINDOWS, "query_pre_attn_scalar": 8, "tie_word_embeddings": False},
    "bitnet": _BASE,
    "longcat_flash": {
        **_BASE,
        "head_dim": 8,
        **_LATENT,
        "num_layers": 2,
        "ffn_hidden_size": 64,
        "expert_ffn_hidden_size": 32,
        "n_routed_experts": 4,
        "moe_topk": 2,
        "zero_expert_num": 1,
    },
}
_MODEL_TYPES = {"qwen2_window": "qwen2"}

IN_SLOTS = (
    *("mamba2", "falcon_h1", "lfm2", "lfm2_moe", "qwen3_next", "qwen3_5_text", "granitemoehybrid", "bamba"),
    *("zamba2", "nemotron_h"),
)
"""Tier B: recurrent layers."""
IN_SLOTS_WHOLE = ("mamba", "falcon_mamba", "jamba")
"""Tier B with whole prompts only."""
ONE_BY_ONE = (
    *("bloom", "falcon", "mpt", "rwkv", "recurrent_gemma", "minimax", "gpt_neo", "xglm", "diffllama"),
    "gpt_neox_japanese",
)
"""Tier C."""

KINDS: tuple[str, ...] = tuple(dict.fromkeys((*tiny.CONFIGS, *_MORE)))


def config(kind: str, **changes: Any) -> Any:
    """The configuration of a tiny model of `kind`."""
    if kind not in _MORE:
        return tiny.config(kind, **changes)
    special = {"bos_token_id": tiny.BOS, "eos_token_id": tiny.EOS, "pad_token_id": None}
    values = {"vocab_size": tiny.VOCABULARY_SIZE, **special, **_MORE[kind], **changes}
    return transformers.AutoConfig.for_model(_MODEL_TYPES.get(kind, kind), **values)


def model(kind: str, *, seed: int = 0, **changes: Any) -> Any:
    """A tiny random causal model of `kind`, in float32 and in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = transformers.AutoModelForCausalLM.from_config(config(kind, **changes))
    return made.float().eval()


def tier(kind: str) -> tuple[str, bool]:
    """The tier in which `kind` runs, and whether its prompts may come in pieces."""
    if kind in ONE_BY_ONE:
        return "C", False
    if kind in IN_SLOTS or kind in IN_SLOTS_WHOLE:
        return "B", kind in IN_SLOTS
    return "A", True


def table() -> str:
    """The classes by tier, in markdown; `test_tiers` holds it to be true."""
    rows = {
        "A": [kind for kind in KINDS if tier(kind)[0] == "A"],
        "B": list(IN_SLOTS),
        "B, whole prompts": list(IN_SLOTS_WHOLE),
        "C": list(ONE_BY_ONE),
    }
    lines = ["| tier | classes |", "|---|---|"]
    for name, kinds in rows.items():
        classes = {_class_name(kind) for kind in kinds}
        lines.append(f"| {name} | {', '.join(sorted(classes, key=str.lower))} |")
    return "\n".join(lines) + "\n"


def _class_name(kind: str) -> str:
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[_MODEL_TYPES.get(kind, kind)]
    return name.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
