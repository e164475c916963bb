"""Tiny random models of real architectures, and a tokenizer of bytes, as objects and as Hugging Face folders.

Weights are wide enough that greedy answers wander over the vocabulary instead of repeating one token.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
BOS, EOS, IM_START, IM_END = range(256, 260)
VOCABULARY_SIZE = 260
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_MODERN = {
    **_SHAPE,
    "intermediate_size": 64,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
_OLD = {**_SHAPE, "max_position_embeddings": 256, "initializer_range": 0.3}
_MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "initializer_range": 0.3}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llama": _MODERN,
    "qwen2": _MODERN,
    "qwen3": {**_MODERN, "head_dim": 8},
    "gemma": {**_MODERN, "head_dim": 8, "tie_word_embeddings": False},
    "gemma2": {
        **_MODERN,
        "tie_word_embeddings": False,
        "head_dim": 8,
        "sliding_window": 8,
        "query_pre_attn_scalar": 8,
    },
    "mistral": {**_MODERN, "sliding_window": 8},
    "phi": _MODERN,
    "phi3": _MODERN,
    "stablelm": _MODERN,
    "olmo2": _MODERN,
    "cohere": _MODERN,
    "granite": _MODERN,
    "mixtral": {**_MODERN, "num_local_experts": 4},
    "qwen2_moe": {
        **_MODERN,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "deepseek_v3": {
        **_MODERN,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.3},
    "gpt_neox": {**_OLD, "intermediate_size": 64},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "rotary_dim": 8},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.3},
    "opt": {**_OLD, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
    "bloom": {
        "hidden_size": 32,
        "n_layer": 2,
        "n_head": 4,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    },
    "falcon": {**_OLD, "new_decoder_architecture": False, "alibi": False},
    "glm": {**_MODERN, "head_dim": 8},
    "glm4": {**_MODERN, "head_dim": 8},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256, "tie_word_embeddings": False},
    "mamba": _MAMBA,
    "mamba2": {**_MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    "falcon_mamba": _MAMBA,
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 256},
    "recurrent_gemma": {
        **_SHAPE,
        "num_hidden_layers": 3,
        "intermediate_size": 64,
        "lru_width": 32,
        "attention_window_size": 8,
    },
    "jamba": {
        **_MODERN,
        "num_experts": 2,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
    },
    "falcon_h1": {
        **_MODERN,
        "mamba_d_ssm": 64,
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_chunk_size": 8,
    },
    "lfm2": {**_MODERN, "layer_types": ["conv", "full_attention"]},
    "qwen3_next": {
        **_MODERN,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
    },
}

_T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "initializer_factor": 6.0,
}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 256,
    "init_std": 0.6,
}
_GEMMA = {
    **_MODERN,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 8,
    "vocab_size": VOCABULARY_SIZE,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": 0,
}
_EYE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
PAIRS: Mapping[str, Mapping[str, Any]] = {
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "longt5": {**_T5, "local_radius": 4},
    "switch_transformers": {
        **_T5,
        "num_experts": 2,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
    },
    "t5gemma": {"encoder": _GEMMA, "decoder": _GEMMA},
    "t5gemma2": {"encoder": {"text_config": _GEMMA, "vision_config": _EYE}, "decoder": _GEMMA},
    "bart": _BART,
    "mbart": _BART,
    "pegasus": _BART,
    "pegasus_x": {**_BART, "block_size": 16, "num_global_tokens": 4},
    "bigbird_pegasus": {**_BART, "block_size": 8, "num_random_blocks": 1},
    "marian": _BART,
    "blenderbot": _BART,
    "m2m_100": _BART,
    "nllb-moe": {**_BART, "num_experts": 4},
    "led": {
        **_BART,
        "max_encoder_position_embeddings": 256,
        "max_decoder_position_embeddings": 64,
        "attention_window": [8, 8],
    },
    "fsmt": {
        **_BART,
        "src_vocab_size": VOCABULARY_SIZE,
        "tgt_vocab_size": VOCABULARY_SIZE,
        "langs": ["en", "de"],
    },
    "prophetnet": {
        "hidden_size": 32,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 256,
        "init_std": 0.6,
    },
}
"""Models with encoder and decoder."""


def config(kind: str = "llama", **changes: Any) -> Any:
    """The configuration of a tiny model of the architecture `kind`."""
    special: dict[str, Any] = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": None}
    if kind in PAIRS:
        special |= {"pad_token_id": 0, "decoder_start_token_id": BOS, "forced_eos_token_id": None}
        special |= {"tie_word_embeddings": False}
    # FSMT has one for each side, and takes no other.
    sizes = {} if kind == "fsmt" else {"vocab_size": VOCABULARY_SIZE}
    values = {**special, **{**CONFIGS, **PAIRS}[kind], **sizes, **changes}
    return transformers.AutoConfig.for_model(kind, **values)


def model(kind: str = "llama", *, seed: int = 0, **changes: Any) -> Any:
    """A tiny random model, in float32 and in evaluation mode."""
    pairs, causal = transformers.AutoModelForSeq2SeqLM, transformers.AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = (pairs if kind in PAIRS else causal).from_config(config(kind, **changes))
    return made.float().eval()


def tokenizer(chat_template: str | None = CHATML, *, form: str = "<s> $A") -> Any:
    """One token a byte and four special ones; `form` says what stands around a text, BOS before it."""
    spelling = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: token_id for token_id, token in enumerate(spelling)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIALS))
    backend.post_processor = processors.TemplateProcessing(
        single=form, special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", chat_template=chat_template
    )


def folder(
    path: Path,
    kind: str = "llama",
    *,
    dtype: torch.dtype = torch.float32,
    chat_template: str | None = CHATML,
    **changes: Any,
) -> Path:
    """Write a tiny model and its tokenizer to `path`, as `save_pretrained` does."""
    model(kind, **changes).to(dtype).save_pretrained(path)
    own = {"form": "$A </s>"} if kind in PAIRS else {}
    tokenizer(chat_template, **own).save_pretrained(path)
    return path


def edit_json(path: Path, **changes: Any) -> None:
    """Lay `changes` over a JSON file; None removes a key."""
    values = {**(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}), **changes}
    kept = {key: value for key, value in values.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Let `change` work on the tensors of a model folder's one weights file."""
    file = path / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


class Scripted:
    """Stands for a model: says the given ids whatever it hears, keeping its place where others keep a cache.

    Being asked for more than that is an `IndexError`.
    """

    device = torch.device("cpu")
    config = transformers.PretrainedConfig()

    def __init__(self, ids: Sequence[int], *, vocabulary_size: int = VOCABULARY_SIZE) -> None:
        self._ids = tuple(ids)
        self._vocabulary_size = vocabulary_size
        self.num_calls = 0

    def forward(
        self, input_ids: torch.Tensor, past_key_values: int = 0, **options: bool
    ) -> transformers.utils.ModelOutput:
        """The logits and the next place."""
        self.num_calls += 1
        logits = torch.full((*input_ids.shape, self._vocabulary_size), -torch.inf)
        logits[0, -1, self._ids[past_key_values]] = 0.0
        return transformers.utils.ModelOutput(logits=logits, past_key_values=past_key_values + 1)

    __call__ = forward
