"""Whole models made fast, against what they were; which norms and gates are known."""

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llmctl.engine.fast import elementwise, gates, norms, own
from llmctl.engine.fast.gates import FastGate
from llmctl.engine.fast.norms import FastNorm
from llmctl.quant.modules import QuantLinear
from tests import tiny
from tests.engine import classes

IDS = torch.arange(24).view(2, 12) * 7 % 250
needs_compiler = pytest.mark.skipif(elementwise.library() is None, reason="there is no C compiler")


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS).logits.float()
    return found


def roughen(model: nn.Module) -> None:
    """Give norms weights that tell the formulas apart."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)


def counts(model: nn.Module) -> tuple[int, int]:
    kinds = [type(module) for module in model.modules()]
    return sum(issubclass(kind, FastNorm) for kind in kinds), sum(
        issubclass(kind, FastGate) for kind in kinds
    )


@pytest.mark.parametrize("kind", classes.KINDS)
def test_every_class_gives_the_logits_that_it_gave(kind: str) -> None:
    model = classes.model(kind)
    roughen(model)
    wanted = logits(model)
    own.quicken(model)
    assert any(isinstance(module, QuantLinear) for module in model.modules())
    distance = (logits(model) - wanted).abs().max() / wanted.abs().max()
    assert float(distance) < 1e-5


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma", "olmo2", "qwen3", "phi3", "mixtral", "gpt2"])
def test_in_bfloat16_it_is_no_further_from_float32_than_it_was(kind: str) -> None:
    model = tiny.model(kind)
    roughen(model)
    model.bfloat16()
    exact, plain = logits(copy.deepcopy(model).float()), logits(model)
    own.quicken(model)
    assert float((logits(model) - exact).norm()) < 1.5 * float((plain - exact).norm())


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "form", "num_norms", "num_gates"),
    [
        ("llama", "after", 5, 2),
        ("qwen3", "after", 9, 2),
        ("gemma", "one more", 5, 2),
        ("olmo2", "before", 9, 2),
        ("lfm2", "after", 7, 2),
        ("phi", None, 0, 0),
        ("gpt2", None, 0, 0),
    ],
)
def test_norms_and_gates_are_known_by_what_they_do(
    kind: str, form: str | None, num_norms: int, num_gates: int, dtype: torch.dtype
) -> None:
    model = tiny.model(kind)
    roughen(model)
    model.to(dtype)
    assert (norms.quicken(model), gates.quicken(model)) == (num_norms, num_gates)
    assert counts(model) == (num_norms, num_gates)
    found = {module.form for module in model.modules() if isinstance(module, FastNorm)}
    # In float32 multiplying after rounding is multiplying before it.
    expected = "after" if form == "before" and dtype == torch.float32 else form
    assert found == ({expected} if form else set())
    assert (norms.quicken(model), gates.quicken(model)) == (0, 0)


class OddRMSNorm(nn.Module):
    """One that leaves out what others do."""

    def __init__(self, size: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.rand(size) + 0.5), eps

    def forward(self, x: Tensor) -> Tensor:
        """Without the epsilon that it claims."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)))


class CenteredRMSNorm(OddRMSNorm):
    """One whose name says something else."""

    def forward(self, x: Tensor) -> Tensor:
        """A layer norm."""
        return nn.functional.layer_norm(x, x.shape[-1:], self.weight, eps=self.eps)


class PairRMSNorm(OddRMSNorm):
    """One that wants two tensors."""

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Refuses to do without a gate."""
        if gate is None:
            raise TypeError("a gate is missing")
        return x * gate


@needs_compiler
@pytest.mark.parametrize("kind", [OddRMSNorm, CenteredRMSNorm, PairRMSNorm])
def test_a_norm_that_does_otherwise_is_left_alone(kind: type[OddRMSNorm]) -> None:
    module = kind(32)
    assert norms.quicken(module) == 0
    assert type(module) is kind


class PlainGate(nn.Module):
    """The common form."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
        self.act_fn = activation

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        found: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return found


class DoubledGate(PlainGate):
    """Nearly the common form."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice the product."""
        found: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x) * 2)
        return found


class CrossedGate(PlainGate):
    """The common form on two inputs."""

    def forward(self, x: Tensor) -> Tensor:
        """The second is not what came in."""
        y = x * 2
        found: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(y))
        return found


@needs_compiler
@pytest.mark.parametrize("module", [DoubledGate(nn.SiLU()), CrossedGate(nn.SiLU()), PlainGate(nn.ReLU())])
def test_a_gate_that_does_otherwise_is_left_alone(module: nn.Module) -> None:
    assert gates.quicken(module) == 0


@needs_compiler
def test_a_gate_hears_what_its_layers_have_become() -> None:
    model = tiny.model("llama")
    gates.quicken(model)
    mlp = model.model.layers[0].mlp
    x = torch.randn(2, 3, 32)
    with torch.no_grad():
        before = mlp(x)
        mlp.up_proj.register_forward_hook(lambda module, given, result: result * 3)
        assert torch.allclose(mlp(x), 3 * before, rtol=1e-4, atol=1e-4)


@needs_compiler
def test_gradients_flow_as_ever_through_norms_and_gates() -> None:
    model, plain = tiny.model("llama"), tiny.model("llama")
    norms.quicken(model)
    gates.quicken(model)
    for each in (model, plain):
        each(input_ids=IDS).logits.sum().backward()
    ours, theirs = (each.model.layers[0].input_layernorm.weight.grad for each in (model, plain))
    assert torch.allclose(ours, theirs)


@needs_compiler
def test_a_copy_computes_with_weights_of_its_own() -> None:
    model = tiny.model("llama")
    own.quicken(model)
    wanted, made = logits(model), copy.deepcopy(model)
    made.model.norm.weight.data.mul_(2)
    assert torch.allclose(logits(made), 2 * wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(model), wanted)


def test_without_a_compiler_layers_alone_get_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "library", lambda: None)
    model = tiny.model("llama")
    wanted = logits(model)
    own.quicken(model)
    assert counts(model) == (0, 0)
    assert torch.allclose(logits(model), wanted, rtol=1e-4, atol=1e-4)


def test_the_log_says_what_was_done(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="llmctl.engine.fast"):
        own.quicken(tiny.model("llama", tie_word_embeddings=True))
    assert "15 dense layers" in caplog.text
    assert "a copy of the table" in caplog.text


def test_a_model_on_another_device_is_left_alone() -> None:
    model = tiny.model("llama").to("meta")
    own.quicken(model)
    assert not any(isinstance(module, QuantLinear) for module in model.modules())


def test_a_norm_that_cannot_be_tried_is_left_alone() -> None:
    class GatedRMSNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(8))
            self.variance_epsilon = 1e-6

        def forward(self, x: torch.Tensor, gate: Any = None) -> torch.Tensor:
            return x * gate.to(torch.float32)

    module = GatedRMSNorm()
    assert norms.quicken(module) == 0
    assert type(module) is GatedRMSNorm
