"""What compression saves, told from shapes alone."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from llmctl.artifacts.compress.request import CompressRequest
from llmctl.artifacts.compress.run import compress
from llmctl.core.progress import SilentProgress
from tests import tiny

QWEN2_05B = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def hollow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of that shape in bfloat16 whose file is one hole."""
    folder = tmp_path_factory.mktemp("hollow")
    config = transformers.AutoConfig.for_model("qwen2", dtype="bfloat16", **QWEN2_05B)
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    entries, end = {}, 0
    for name, parameter in model.named_parameters():
        span = [end, end := end + 2 * parameter.numel()]
        entries[name] = {"dtype": "BF16", "shape": list(parameter.shape), "data_offsets": span}
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return folder


@pytest.mark.parametrize(("method", "most"), [("int8", 0.70), ("fp8", 0.70), ("int4", 0.50), ("nf4", 0.50)])
def test_a_model_of_half_a_billion_shrinks_as_promised(
    hollow: Path, tmp_path: Path, method: str, most: float
) -> None:
    request = CompressRequest(model=str(hollow), target=tmp_path / "out", method=method, is_dry=True)
    told = compress(request, SilentProgress())
    assert told.bytes_before == 988_065_536
    assert told.bytes_after < most * told.bytes_before
