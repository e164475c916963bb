"""The training command's parts: a tiny stage runs and writes a loadable model, step sizes, the optimiser."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmctl.demo import MODELS
from llmctl.demo import train as training
from llmctl.demo.muon import Muon, orthogonal
from llmctl.demo.train import AVERAGED, MEAN, STAGES, Stage, average, train


def test_stages_follow_one_another() -> None:
    """Each stage starts from what the one before wrote."""
    stages = list(STAGES.values())
    assert stages[0].source == ""
    assert all(later.source in (earlier.target, MEAN) for earlier, later in pairwise(stages))
    assert {stage.target for stage in stages} >= {*AVERAGED, "demo"}
    assert "demo-base" in {stage.target for stage in stages}


def test_step_sizes_rise_and_fall() -> None:
    """Warm-up, flat, down to the final share."""
    stage = Stage("chat", "", "", 100, 100, warm=10, flat=0.5, final=0.1)
    factors = [stage.factor(number) for number in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == factors[50] == 1.0
    assert factors[99] == pytest.approx(0.118)


def test_a_tiny_stage_writes_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small steps from demo-base change every matrix and leave a folder like the shipped one."""
    monkeypatch.setattr(training, "ROWS", 4)
    shutil.copytree(MODELS["demo-base"], tmp_path / "demo-base")
    train(Stage("copy", "demo-base", "demo", 2, 2, warm=1, long_share=0.5), tmp_path, 1, compiled=False)
    new, old = (load_file(tmp_path / name / "model.safetensors") for name in ("demo", "demo-base"))
    assert all(not torch.equal(new[key], old[key]) for key in old if old[key].ndim == 2)
    settings = json.loads((tmp_path / "demo" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_stages_are_averaged(tmp_path: Path) -> None:
    """The mean of three stages is written with the tokenizer beside it."""
    for number, name in enumerate(AVERAGED):
        shutil.copytree(MODELS["demo-base"], tmp_path / name)
        value = torch.full((2, 2), float(number), dtype=torch.bfloat16)
        save_file({"weight": value}, tmp_path / name / "model.safetensors")
    average(tmp_path)
    mean = load_file(tmp_path / MEAN / "model.safetensors")["weight"]
    assert torch.equal(mean, torch.ones(2, 2, dtype=torch.bfloat16))
    assert (tmp_path / MEAN / "tokenizer.json").is_file()


def test_muon_steps_are_orthogonal() -> None:
    """The step of a matrix has singular values near one, and the optimiser moves every matrix."""
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(2, 64, 128)))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    param = torch.nn.Parameter(torch.zeros(64, 32))
    param.grad = torch.randn(64, 32)
    Muon([param]).step(0.1)
    assert param.grad is None
    assert float(param.detach().norm()) > 0.1
