"""The self-check sees what goes wrong, on twins small enough to wait for, and remembers what it saw."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from llmctl.core.errors import BadFileError, DoesNotFitError
from llmctl.engine import tiers
from llmctl.engine.checking import selfcheck, twin
from llmctl.engine.checking.rehearsal import (
    BLOCK_SIZE,
    LENGTHS,
    NUM_BLOCKS,
    TOLERANCE,
    Move,
    Reference,
    script,
)
from llmctl.engine.execution import layout, storage
from llmctl.engine.execution.handler import Handler
from llmctl.engine.execution.layout import Layout
from llmctl.engine.scheduling.policy import LayerPolicy
from tests.engine import classes

FULL = LayerPolicy("full")


def twin_and_reference(kind: str) -> tuple[Any, Reference]:
    """A twin, and what it says by its own code."""
    model = twin.model(classes.config(kind))
    return model, Reference.of(model, twin.VOCABULARY_SIZE)


def difference(model: Any, kept: Layout, reference: Reference, *, is_mended: bool = True) -> float:
    """From the eager model in packed rows."""
    counts = [NUM_BLOCKS] * len(kept.groups)
    layers = storage.allocate(
        kept.groups, kept.shapes, counts, BLOCK_SIZE, torch.float32, torch.device("cpu")
    )
    handler = layout.handler(model, kept, layers, len(LENGTHS))
    assert isinstance(handler, Handler)
    if not is_mended:
        for module in handler._driven.temperatures:
            module.attn_temperature_tuning = True
        handler._driven.temperatures = {}
    try:
        return reference.difference(handler, kept.groups, in_pieces=True)
    finally:
        handler.release()


@pytest.mark.parametrize("kind", ["gemma3_text", "mistral", "gpt_oss", "llama4_text", "qwen2_window"])
def test_a_layer_that_sees_too_far_is_found_out(kind: str) -> None:
    model, reference = twin_and_reference(kind)
    kept = layout.layout(model, "A")
    assert difference(model, kept, reference) <= TOLERANCE
    far = replace(kept, groups=[replace(group, policy=FULL) for group in kept.groups])
    assert difference(model, far, reference) > 100 * TOLERANCE


def test_a_temperature_that_counts_rows_instead_of_positions_is_found_out() -> None:
    model, reference = twin_and_reference("llama4_text")
    assert difference(model, layout.layout(model, "A"), reference, is_mended=False) > TOLERANCE


def test_a_state_that_is_forgotten_is_found_out() -> None:
    model, reference = twin_and_reference("mamba")
    assert selfcheck.fault_of("B", model, reference, in_pieces=False) is None
    fault = selfcheck.fault_of("B", model, reference, in_pieces=True)
    assert fault is not None
    assert fault.differs


@pytest.mark.parametrize("in_pieces", [True, False])
def test_the_play_ends_every_sequence_and_brings_thrown_out_ones_back(in_pieces: bool) -> None:
    done = dict.fromkeys(range(len(LENGTHS)), 0)
    restarted = set()
    for moves in script(in_pieces=in_pieces):
        for move in moves:
            if move.restarts:
                restarted.add(move.sequence)
                done[move.sequence] = 0
            assert in_pieces or move.count == 1 or done[move.sequence] == 0
            done[move.sequence] += move.count
    assert tuple(done.values()) == LENGTHS
    assert restarted == {1, 3}
    assert any(len(moves) > 1 and isinstance(moves[0], Move) for moves in script(in_pieces=in_pieces))


LARGE = {
    "llama": transformers.LlamaConfig(
        hidden_size=8192, num_attention_heads=64, num_key_value_heads=8, num_hidden_layers=80
    ),
    "qwen3": transformers.Qwen3Config(num_hidden_layers=64, num_key_value_heads=8),
    "gemma3": transformers.Gemma3TextConfig(num_hidden_layers=62),
    "llama4": transformers.Llama4Config(),
    "qwen3_next": transformers.Qwen3NextConfig(),
    "deepseek_v3": transformers.DeepseekV3Config(),
    "gpt_oss": transformers.GptOssConfig(),
    "gemma3n": transformers.Gemma3nTextConfig(),
    "falcon_h1": transformers.FalconH1Config(),
}


@pytest.mark.parametrize("kind", LARGE)
def test_large_models_are_checked_on_small_twins(kind: str) -> None:
    model = twin.model(LARGE[kind])
    assert sum(weights.numel() for weights in model.parameters()) < 2_000_000
    assert selfcheck.rehearse(LARGE[kind]).letter == ("B" if kind in classes.IN_SLOTS else "A")


LATE_WINDOWS = transformers.Qwen2Config(
    use_sliding_window=True, sliding_window=4096, max_window_layers=21, num_hidden_layers=28
)


@pytest.mark.parametrize("real", [*LARGE.values(), LATE_WINDOWS], ids=[*LARGE, "late windows"])
def test_a_twin_has_every_kind_of_layer_of_its_model(real: Any) -> None:
    kinds = [{each.kind for each in layout.layer_policies(config)} for config in (real, twin.config(real))]
    assert kinds[0] == kinds[1]


def test_a_class_without_a_twin_runs_one_sequence_at_a_time() -> None:
    verdict = selfcheck.rehearse(transformers.WhisperConfig())
    assert verdict.letter == "C"
    assert "no small twin" in verdict.reason


def test_a_class_that_its_own_cache_answers_for_wrongly_is_refused() -> None:
    config = transformers.XLNetConfig(vocab_size=1000, d_model=64, n_layer=2, n_head=4, d_inner=128)
    verdict = selfcheck.rehearse(config)
    assert (verdict.letter, verdict.is_right) == ("C", False)
    with pytest.raises(BadFileError, match=r"^a model of the class XLNet would .* tier C differs"):
        tiers.choose(transformers.XLNetLMHeadModel(config))
    with pytest.raises(BadFileError, match="XLNet"):
        tiers.describe(config)


def test_layers_that_choose_their_keys_are_not_packed_though_a_short_play_shows_nothing() -> None:
    config = transformers.DeepseekV32Config()
    verdict = selfcheck.rehearse(config)
    assert verdict.letter == "C"
    assert "choose which keys" in verdict.reason


def test_a_verdict_is_remembered_by_class_configuration_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    config = classes.config("llama")
    first = selfcheck.check(config)
    asked: list[Any] = []
    monkeypatch.setattr(selfcheck, "rehearse", lambda config: asked.append(config) or first)
    assert selfcheck.check(classes.config("llama")) == first
    assert not asked
    selfcheck.check(classes.config("llama", rms_norm_eps=1e-5, hidden_act="gelu"))
    monkeypatch.setattr("llmctl.engine.checking.selfcheck.transformers.__version__", "9.9.9")
    selfcheck.check(config)
    assert len(asked) == 2


def test_lack_of_memory_says_nothing_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    config = classes.config("llama")

    def fail(_: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(twin, "model", fail)
        with pytest.raises(DoesNotFitError, match="while the model was checked"):
            selfcheck.check(config)
    assert selfcheck.check(config).letter == "A"


def test_a_broken_memory_is_made_anew() -> None:
    config = classes.config("llama")
    verdict = selfcheck.check(config)
    path = selfcheck._path(config)
    path.write_text('{"letter": 1', encoding="utf-8")
    assert selfcheck.check(config) == verdict
    assert selfcheck._read(path) == verdict
