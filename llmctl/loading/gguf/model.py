"""What the head of a GGUF file says, in the words of `config.json` and of a tokenizer's configuration.

Only what llmctl asks before a model is loaded; transformers' own reader makes the model and the tokenizer.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmctl.adapters.facts import Facts, read_facts
from llmctl.core.errors import BadFileError
from llmctl.loading.gguf.head import GgufHead, read_gguf
from llmctl.loading.gguf.names import find_gguf

# llama.cpp's names of the architectures that transformers reads, with its own names for them.
_SAME_NAME = """
    llama mistral qwen2 qwen3 falcon phi3 bloom stablelm gpt2 starcoder2 mamba nemotron gemma2 lfm2 t5 umt5
"""
MODEL_TYPES: Mapping[str, str] = {
    **{name: name for name in _SAME_NAME.split()},
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "gpt-oss": "gpt_oss",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "minimax-m2": "minimax_m2",
    "qwen35": "qwen3_5_text",
    "qwen35moe": "qwen3_5_moe_text",
}
_FREQUENCY = "rope.freq_base"
_MAX_COUNT, _MAX_FREQUENCY = 10**9, 10**15
"""Far above those of any model."""
# Behind the architecture's name in the file: the key of config.json.
_KEYS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    _FREQUENCY: "rope_theta",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "ssm.state_size": "state_size",
    "ssm.conv_kernel": "conv_kernel",
    "vocab_size": "vocab_size",
}
_TOKENS, _TOKEN_TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_SPECIAL_TYPES = (3, 4)
"""Control tokens and those that a user has defined, as llama.cpp numbers them."""


def check_architecture(path: Path, head: GgufHead) -> None:
    """Raise `BadFileError` for an architecture that transformers' reader does not take."""
    if head.architecture not in MODEL_TYPES:
        raise BadFileError(
            f"{path} is a GGUF file of the architecture {head.architecture!r}, "
            "which transformers does not read from GGUF",
            hint=f"take the model's *.safetensors; from GGUF it reads {', '.join(sorted(MODEL_TYPES))}",
        )


def config_of(head: GgufHead) -> dict[str, Any]:
    """The configuration that stands in the file, of any architecture.

    Raises `BadFileError` for a measure that no model can have.
    """
    name = head.architecture
    told = {key: _measure(head, f"{name}.{gguf_key}") for gguf_key, key in _KEYS.items()}
    config = {key: value for key, value in told.items() if value is not None}
    ids = {key: head.metadata.get(f"tokenizer.ggml.{key}") for key in ("bos_token_id", "eos_token_id")}
    config |= {key: value for key, value in ids.items() if isinstance(value, int)}
    config.setdefault("vocab_size", _length(head.metadata.get(_TOKENS)))
    layers, ahead = config.get("num_hidden_layers"), _measure(head, f"{name}.nextn_predict_layers")
    if isinstance(layers, int) and isinstance(ahead, int):
        # Those that predict ahead are counted in the file, and not by transformers.
        config["num_hidden_layers"] = layers - ahead
    return {
        "model_type": MODEL_TYPES.get(name, name),
        **config,
        "tie_word_embeddings": "output.weight" not in head.tensors,
        **({"is_encoder_decoder": True} if name in ("t5", "umt5") else {}),
    }


def facts_of(path: Path, *, find_base: Callable[[str], Path | None] | None = None) -> Facts:
    """The facts of a model's folder or GGUF file, as `adapters.facts.read_facts` gives them for a folder.

    Raises what that raises, `AmbiguousError` for a folder of several GGUF files, and `BadFileError` for a
    damaged one.
    """
    file = find_gguf(path)
    if file is None:
        return read_facts(path, find_base=find_base)
    head = read_gguf(file, keep=(_TOKENS, _TOKEN_TYPES))
    tokens, types = head.metadata.get(_TOKENS), head.metadata.get(_TOKEN_TYPES)
    spelled = tokens if isinstance(tokens, list) else []
    kinds = types if isinstance(types, list) else []
    special = _special_tokens(head, spelled)
    template = head.metadata.get("tokenizer.chat_template")
    return Facts(
        config=config_of(head),
        tokens=frozenset(special.values())
        | {token for token, kind in zip(spelled, kinds, strict=False) if kind in _SPECIAL_TYPES},
        special_tokens=special,
        chat_template=template if isinstance(template, str) else None,
    )


def _special_tokens(head: GgufHead, tokens: list[str]) -> dict[str, str]:
    ids = {role: head.metadata.get(f"tokenizer.ggml.{key}") for role, key in _ROLES.items()}
    return {
        role: tokens[index]
        for role, index in ids.items()
        if isinstance(index, int) and 0 <= index < len(tokens)
    }


def _measure(head: GgufHead, key: str) -> int | float | None:
    """A size or count of the model, of a key for each layer the largest; None where the file says nothing."""
    value = head.metadata.get(key)
    if value is None:
        return None
    is_count = not key.endswith(_FREQUENCY)
    limit = _MAX_COUNT if is_count else _MAX_FREQUENCY
    found = value if isinstance(value, list) else [value]
    is_sane = all(type(each) in ((int,) if is_count else (int, float)) for each in found)
    if not is_sane or not all(0 <= each <= limit for each in found):
        what = "a whole number" if is_count else "a number"
        told = f"{' '.join(key.split())} is {str(value)[:80]!r}"
        raise BadFileError(
            f"{head.path} is damaged: {told}, not {what} from 0 to {limit}",
            hint="download or copy the file again",
        )
    return max(found, default=0)


def _length(tokens: Any) -> int:
    return len(tokens) if isinstance(tokens, list) else int(tokens or 0)
