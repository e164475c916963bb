"""What fewer bits cost a trained model: the demo's held-out score, and the perplexity of stories260K."""

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # its name in every torch program
from transformers import AutoTokenizer

from llmctl.core.progress import SilentProgress
from llmctl.demo.evaluate import answerer
from llmctl.demo.heldout import score_many
from llmctl.loading.loader import LoadedModel, LoadRequest, load
from llmctl.loading.planning.plan import PlanRequest


def loaded(model: str, quantization: str | None, dtype: str = "auto") -> LoadedModel:
    plan = PlanRequest(device="cpu", dtype=dtype, quantization=quantization)
    return load(LoadRequest(model=model, plan=plan), SilentProgress())


@cache
def demo_score(quantization: str | None) -> float:
    model = loaded("demo", quantization)
    return 100 * score_many(answerer(model.model, model.tokenizer))["all"]


@pytest.mark.parametrize(("quantization", "points"), [("int8", 1.0), ("int4", 8.0), ("nf4", 8.0)])
def test_the_demo_model_keeps_its_skills(quantization: str, points: float) -> None:
    assert demo_score(quantization) >= demo_score(None) - points


def perplexity(model: LoadedModel, texts: list[str], tokenizer: AutoTokenizer) -> float:
    losses, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.no_grad():
            logits = model.model(ids).logits[0, :-1].float()
        losses += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return math.exp(losses / count)


def test_eight_bits_cost_stories260k_at_most_a_hundredth_of_its_perplexity(shared: Path) -> None:
    folder = shared / "assets" / "stories260K"
    cases = json.loads((shared / "assets" / "golden" / "stories260K.run_c.json").read_text())["cases"]
    texts = [case["text"] for case in cases]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dense = perplexity(loaded(str(folder), None), texts, tokenizer)
    for dtype in ("auto", "bfloat16"):
        eight = perplexity(loaded(str(folder), "int8", dtype), texts, tokenizer)
        assert eight <= 1.01 * dense
