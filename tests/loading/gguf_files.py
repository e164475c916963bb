"""Real GGUF files: the tiny Llama and the tokenizer of `tests.tiny` as llama.cpp's own writer keeps them."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from tests import tiny

NUM_HEADS, NUM_KV_HEADS = 4, 2
QUANTISED = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_llama(path: Path, *, kind: str = "F32", architecture: str = "llama") -> Path:
    """Write the tiny Llama with its matrices as `kind` (F32, F16, BF16, Q8_0); the other tensors stay F32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    config = tiny.config("llama")
    writer.add_name("Tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(tiny.VOCABULARY_SIZE)
    _add_tokenizer(writer)
    for name, tensor in tiny.model("llama").state_dict().items():
        _add_tensor(writer, name, tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any) -> None:
    vocabulary = tiny.tokenizer().get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    types = [gguf.TokenType.CONTROL if token in tiny.SPECIALS else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # Without merges, which these tokens have none of, transformers derives them from the scores.
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_bos_token_id(tiny.BOS)
    writer.add_eos_token_id(tiny.EOS)
    writer.add_chat_template(tiny.CHATML)


def _add_tensor(writer: Any, name: str, tensor: torch.Tensor, kind: str) -> None:
    short = _short(name)
    values = tensor.numpy()
    if ".attn_q." in short:
        values = _interleaved(values, NUM_HEADS)
    if ".attn_k." in short:
        values = _interleaved(values, NUM_KV_HEADS)
    quantised = getattr(gguf.GGMLQuantizationType, kind)
    if kind == "F32" or not any(part in short for part in QUANTISED):
        writer.add_tensor(short, values)
    else:
        packed = gguf.quants.quantize(np.ascontiguousarray(values), quantised)
        writer.add_tensor(short, packed, raw_dtype=quantised)


def _interleaved(values: Any, num_heads: int) -> Any:
    """Rows of a head in llama.cpp's order: the two halves that are rotated together, one after the other."""
    rows = values.reshape(num_heads, 2, values.shape[0] // num_heads // 2, *values.shape[1:])
    return rows.swapaxes(1, 2).reshape(values.shape)


def _short(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    if stem.startswith("model.layers."):
        number, _, part = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{number}.{_NAMES[part]}.{suffix}"
    return f"{_NAMES[stem]}.{suffix}"
