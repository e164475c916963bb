"""Every architecture of `tests.tiny` runs on packed weights, and says what its dense twin says."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from llmctl.quant import prepare
from llmctl.quant.kernels import Memo
from llmctl.quant.methods import Scheme
from tests import tiny
from tests.quant.rounded import difference, logits, twins

INT8 = Scheme(body="int8")
EXACT = Scheme(body="int4", head=None, embedding="int8")
# As wild as the tiny models are, 8-bit activations move the logits of these by more than a bound could tell.
TAME: Mapping[str, float] = {"initializer_range": 0.1, "init_std": 0.1, "initializer_factor": 1.0}


def tame(kind: str) -> dict[str, Any]:
    """Changes that give a model weights as small as those of a trained one."""
    return {key: value for key, value in TAME.items() if key in {**tiny.CONFIGS, **tiny.PAIRS}[kind]}


@pytest.mark.parametrize("kind", [*tiny.CONFIGS, *tiny.PAIRS])
def test_every_architecture_says_the_same_with_packed_weights(kind: str) -> None:
    dense, packed, selection = twins(kind, EXACT)
    assert selection.places
    assert difference(logits(packed), logits(dense)) < 1e-5


@pytest.mark.parametrize("kind", [*tiny.CONFIGS, *tiny.PAIRS])
def test_every_architecture_runs_in_8_bits(kind: str) -> None:
    model = tiny.model(kind, **tame(kind))
    wanted = logits(model)
    selection = prepare.quantise(model, INT8, dtype=torch.float32, memo=Memo())
    found = logits(model)
    assert selection.places[selection.head].method == "int8" if kind != "fsmt" else True
    assert found.isfinite().all()
    assert difference(found, wanted) < 0.1


def test_a_head_in_8_bits_rounds_what_it_is_asked_and_nothing_else() -> None:
    dense, packed, selection = twins("qwen2", Scheme(body="int4"))
    assert selection.places["lm_head"].method == "int8"
    assert 1e-4 < difference(logits(packed), logits(dense)) < 0.01
