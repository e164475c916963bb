"""The shipped demo models: files, sizes, shapes, number format and chat template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from llmctl.demo import MODELS

FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "README.md",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """The chat model's tokenizer, loaded without a network."""
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(MODELS["demo"], local_files_only=True)
    return loaded


@pytest.mark.parametrize("name", sorted(MODELS))
def test_files_are_there_and_small(name: str) -> None:
    """Every file is there and the weights take at most 6 MB."""
    for file in FILES:
        assert (MODELS[name] / file).is_file(), file
    assert (MODELS[name] / "model.safetensors").stat().st_size <= 6_000_000


@pytest.mark.parametrize("name", sorted(MODELS))
def test_config_widths(name: str) -> None:
    """Llama architecture, every width a multiple of 64, a context of at least 1,024."""
    config = json.loads((MODELS[name] / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    for key in ("hidden_size", "intermediate_size", "head_dim", "vocab_size"):
        assert config[key] % 64 == 0, key
    assert config["num_key_value_heads"] * config["head_dim"] % 64 == 0
    assert config["max_position_embeddings"] >= 1024
    assert config["dtype"] == "bfloat16"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_weights_are_bfloat16_and_load(name: str) -> None:
    """All tensors are bfloat16, finite, and transformers loads them."""
    weights = load_file(MODELS[name] / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    model = AutoModelForCausalLM.from_pretrained(MODELS[name], dtype=torch.float32, local_files_only=True)
    assert model.num_parameters() <= 3_000_000


def test_base_has_the_same_shapes_and_other_weights() -> None:
    """demo-base is the same network with other weights and the same tokenizer."""
    chat, base = (load_file(MODELS[name] / "model.safetensors") for name in ("demo", "demo-base"))
    assert {key: value.shape for key, value in chat.items()} == {
        key: value.shape for key, value in base.items()
    }
    assert not any(torch.equal(chat[key], base[key]) for key in chat if value_is_matrix(chat[key]))
    texts = [(MODELS[name] / "tokenizer.json").read_text(encoding="utf-8") for name in ("demo", "demo-base")]
    assert texts[0] == texts[1]


def value_is_matrix(value: torch.Tensor) -> bool:
    """Whether a tensor is a weight matrix rather than a norm."""
    return value.ndim == 2


def test_template_renders_every_role(tokenizer: PreTrainedTokenizerBase) -> None:
    """System, user, assistant and tool turns, nothing in front, the assistant's turn opened at the end."""
    messages = [
        {"role": role, "content": f"text of {role}"}
        for role in ("system", "user", "assistant", "user", "tool")
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    assert text == turns + "<|im_start|>assistant\n"


def test_template_renders_tools_and_calls(tokenizer: PreTrainedTokenizerBase) -> None:
    """Tools are listed in the system turn, a call is written into the assistant's turn."""
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}],
        },
    ]
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    assert text.count("<|im_start|>system") == 1
    assert "Be brief." in text
    assert text.index("weather") < text.index("<|im_start|>user")
    assert "Oslo" in text.split("<|im_start|>assistant\n")[1]


def test_special_tokens_are_single_ids(tokenizer: PreTrainedTokenizerBase) -> None:
    """The marks of the template are one id each, and the stop is <|im_end|>."""
    for mark in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        assert len(tokenizer.encode(mark, add_special_tokens=False)) == 1
    settings = json.loads((MODELS["demo"] / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert settings["do_sample"] is False


def test_tokenizer_keeps_text(tokenizer: PreTrainedTokenizerBase) -> None:
    """Any text survives encoding and decoding; nothing is put in front; digits are single tokens."""
    for text in ("Grüße an Zoë!", "a  b\n\tc", "12 + 345", "日本 🙂"):
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text
    assert len(tokenizer.encode("345")) == 3


def test_the_model_folders_are_inside_the_package() -> None:
    """They ship in the wheel."""
    import llmctl.demo

    root = Path(llmctl.demo.__file__).parent
    assert all(root in path.parents for path in MODELS.values())
