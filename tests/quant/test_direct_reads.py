"""Finding the weights that a model's own code reads, from the source of its classes."""

import pytest
import torch
from torch import Tensor, nn

from llmctl.quant import direct_reads


class Reading(nn.Module):
    """Reads the weights of some of its layers, in all the ways that models do."""

    def __init__(self, num_parts: int = 1) -> None:
        super().__init__()
        self.num_parts = num_parts
        self.multiplied, self.passed, self.named = (nn.Linear(4, 4) for _ in range(3))
        self.asked, self.called, self.aliased = (nn.Linear(4, 4) for _ in range(3))
        self.sliced, self.branched, self.trained = (nn.Linear(4, 4) for _ in range(3))
        self.initialised = nn.Linear(4, 4)
        self.initialised.weight.data.zero_()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.blocks = nn.ModuleList(Reading.Block() for _ in range(2))

    class Block(nn.Module):
        """Has its weight read by another."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.other = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Nothing that makes sense."""
        x = self.multiplied.weight @ x
        x = nn.functional.linear(x, self.passed.weight)
        x = x @ getattr(self.named, "weight")  # noqa: B009
        x = x.to(self.asked.weight.dtype).to(self.asked.weight.device)
        if isinstance(self.asked.weight, Tensor) and hasattr(self.asked.weight, "data"):
            x = self.called(x)
        layer = self.aliased
        x = x @ layer.weight
        if self.num_parts > 1 and x is not None:
            x = x @ self.sliced.weight[:2]
        x = x if self.num_parts == 1 else x @ self.branched.weight
        for each in self.layers:
            x = x @ each.weight  # type: ignore[operator]
        for block in self.blocks:
            x = x @ block.inner.weight  # type: ignore[operator, union-attr]
        if self.training:
            x = x @ self.trained.weight
        return x

    def _init_weights(self, module: nn.Module) -> None:
        nn.init.zeros_(self.initialised.weight)


@pytest.fixture
def found() -> set[str]:
    """What is read in a model that has such a part."""
    return set(direct_reads.find(nn.Sequential(nn.Linear(4, 4), Reading())))


def test_reads_are_found_however_they_are_written(found: set[str]) -> None:
    wanted = {
        "multiplied",
        "passed",
        "named",
        "aliased",
        "layers.0",
        "layers.1",
        "blocks.0.inner",
        "blocks.1.inner",
    }
    assert found == {f"1.{name}" for name in wanted}


def test_a_condition_that_the_model_does_not_meet_is_no_read() -> None:
    assert {"sliced", "branched"} <= set(direct_reads.find(Reading(num_parts=2)))


def test_the_reader_is_named() -> None:
    assert direct_reads.find(Reading())["passed"] == "Reading"


def test_attention_of_torch_reads_its_output_layer() -> None:
    model = nn.TransformerEncoderLayer(8, 2)
    assert dict(direct_reads.find(model)) == {"self_attn.out_proj": "MultiheadAttention"}


def test_a_model_without_source_is_no_error() -> None:
    kind = type("Unseen", (nn.Module,), {"__module__": "nowhere.to.be.seen"})
    model = kind()
    model.layer = nn.Linear(2, 2, device=torch.device("meta"))
    assert direct_reads.find(model) == {}
