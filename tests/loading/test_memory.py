"""How much memory loading takes at its peak, against loading in bfloat16, on a gigabyte of random weights."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests import tiny

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def gigabyte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape of Qwen2-0.5B with random weights: 494M parameters, embeddings tied."""
    folder = tmp_path_factory.mktemp("gigabyte") / "model"
    config = transformers.Qwen2Config(
        hidden_size=896,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
        vocab_size=151_936,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )
    with torch.device("meta"):
        model = transformers.Qwen2ForCausalLM(config)
    model.to_empty(device="cpu").to(torch.bfloat16)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.tie_weights()
    model.save_pretrained(folder, max_shard_size="400MB")
    tiny.tokenizer().save_pretrained(folder)
    return folder


def measured(folder: Path, *quantization: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.loading.measured", str(folder), *quantization]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_fewer_bits_take_less_memory_all_the_way_and_start_in_time(gigabyte: Path) -> None:
    dense = measured(gigabyte)
    eight, four, nf4 = (measured(gigabyte, name) for name in ("int8", "int4", "nf4"))
    figures = {"bf16": dense, "int8": eight, "int4": four, "nf4": nf4}
    assert eight["peak"] <= 0.70 * dense["peak"], figures
    assert four["peak"] <= 0.60 * dense["peak"], figures
    # bitsandbytes itself takes 45 MB of it.
    assert nf4["peak"] <= 0.65 * dense["peak"], figures
    assert eight["first_token_s"] <= 2.5 * dense["first_token_s"], figures
