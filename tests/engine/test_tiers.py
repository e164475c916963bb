"""Which class runs how, by the self-check; and the words in which it is told."""

import logging

import pytest
import torch
import transformers

from llmctl.engine import tiers
from llmctl.engine.checking import selfcheck
from tests import tiny
from tests.conftest import ROOT
from tests.engine import classes


@pytest.mark.parametrize("kind", classes.KINDS)
def test_the_self_check_finds_the_tier_of_the_class(kind: str) -> None:
    verdict = selfcheck.rehearse(classes.config(kind))
    assert (verdict.letter, verdict.in_pieces) == classes.tier(kind), verdict.reason


def test_the_table_has_every_class_once() -> None:
    rows = classes.table().splitlines()[2:]
    names = [name for row in rows for name in row.split("|")[2].strip().split(", ")]
    assert len(names) == len(set(names)) >= 45


def test_a_model_in_packed_rows_is_announced_quietly(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llmctl"):
        tier = tiers.choose(tiny.model("llama"))
    assert (tier.letter, tier.in_pieces, tier.max_running) == ("A", True, None)
    assert tier.has_prefixes
    assert [(record.levelname) for record in caplog.records if "LlamaForCausalLM" in record.message] == [
        "INFO"
    ]


def test_a_model_that_goes_down_a_tier_says_so_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "llmctl"):
        tier = tiers.choose(tiny.model("bloom"))
    assert (tier.letter, tier.max_running) == ("C", 1)
    assert "takes no position_ids" in caplog.text


def test_code_of_a_repository_runs_one_sequence_at_a_time() -> None:
    class Own(torch.nn.Module):
        config = tiny.config("llama")

    tier = tiers.choose(Own())
    assert tier.letter == "C"
    assert "repository" in tier.reason


def test_a_model_on_several_devices_runs_one_sequence_at_a_time() -> None:
    model = tiny.model("llama")
    model.hf_device_map = {"model.layers.0": 0, "model.layers.1": "cpu"}
    tier = tiers.choose(model)
    assert (tier.letter, tier.reason) == ("C", "it is spread over 0, cpu")
    model.hf_device_map = {"": "cpu"}
    assert tiers.choose(model).letter == "A"


LONG = {
    "original_max_position_embeddings": 64,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
    },
}


@pytest.mark.parametrize(("context_length", "letter"), [(64, "A"), (65, "C"), (None, "C")])
def test_rotary_positions_that_change_with_length_are_packed_only_below_the_change(
    context_length: int | None, letter: str
) -> None:
    model = tiny.model("phi3", **LONG)
    tier = tiers.choose(model, context_length=context_length)
    assert tier.letter == letter
    assert letter == "A" or "beyond 64" in tier.reason


def test_the_description_names_tier_reason_and_layers() -> None:
    rows = dict(tiers.describe(classes.config("llama4_text")))
    assert rows["tier"].startswith("A")
    assert rows["prefix cache"] == "yes"
    assert rows["layers"] == "3 in chunks of 16, 1 full"


def test_the_description_of_recurrent_layers_says_that_nothing_is_shared() -> None:
    rows = dict(tiers.describe(classes.config("jamba")))
    assert rows["tier"].startswith("B")
    assert rows["prompts"] == "in one step each"
    assert rows["prefix cache"].startswith("no")
    assert rows["layers"] == "1 recurrent, 1 full"


def test_an_encoder_decoder_is_described_without_a_check() -> None:
    rows = dict(tiers.describe(tiny.config("t5")))
    assert rows == {"tier": "C, one sequence at a time", "because": "it has an encoder"}


def test_the_description_of_a_large_model_loads_nothing_large() -> None:
    config = transformers.LlamaConfig(hidden_size=16384, num_hidden_layers=126, num_attention_heads=128)
    assert dict(tiers.describe(config))["layers"] == "126 full"


def test_readme_has_the_table() -> None:
    assert classes.table() in (ROOT / "README.md").read_text(encoding="utf-8")
