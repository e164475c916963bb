"""What a plan counts for weights is what the loaded model holds."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl.core.progress import SilentProgress
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.planning.plan import PlanRequest
from tests import tiny

# Wide enough that the scales of a row, which are estimated for real widths, weigh little.
WIDE = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 4096}
T5 = {"d_model": 256, "d_ff": 512, "d_kv": 64, "vocab_size": 4096}
BART = {"d_model": 256, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "vocab_size": 4096}


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("llama", WIDE), ("gpt2", {"n_embd": 256, "vocab_size": 4096}), ("t5", T5), ("bart", BART)],
)
def test_a_plan_counts_the_weights_that_are_held(
    tmp_path: Path, kind: str, sizes: dict[str, Any], is_tied: bool
) -> None:
    folder = tiny.folder(tmp_path / "m", kind, dtype=torch.bfloat16, **sizes, tie_word_embeddings=is_tied)
    for quantization in (None, "int8", "int4"):
        wishes = PlanRequest(device="cpu", dtype="bfloat16", quantization=quantization)
        loaded = load(LoadRequest(model=str(folder), plan=wishes), SilentProgress())
        held = loaded.model.get_memory_footprint(return_buffers=False)
        assert loaded.plan.weight_bytes == pytest.approx(held, rel=0.04), quantization
