"""Which layers are joined, and that quantised ones are when the weights of all have come."""

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from llmctl.quant import siblings
from llmctl.quant.activations import Memo
from llmctl.quant.joined import PartKernel
from llmctl.quant.kernels import build
from llmctl.quant.modules import QuantLinear
from llmctl.quant.rounding import round_to
from llmctl.quant.siblings import Joint
from llmctl.quant.weights import QuantWeight
from tests.engine import classes

SIZES = (32, 8, 24)


def test_layers_of_one_module_with_names_that_belong_together_are_found() -> None:
    layers = ("a.0.q_proj", "a.0.v_proj", "a.0.k_proj", "a.1.q_proj", "a.1.out_proj", "w3", "w1", "w2")
    assert siblings.find(dict.fromkeys(layers, 8)) == [
        ("a.0.q_proj", "a.0.k_proj", "a.0.v_proj"),
        ("w1", "w3"),
    ]


def test_layers_of_other_widths_of_two_sequences_and_without_the_first_are_not() -> None:
    assert siblings.find({"a.q_proj": 8, "a.k_proj": 4}) == []
    assert siblings.find({"a.key": 8, "a.value": 8, "a.receptance": 8}) == []
    for name in ("crossattention", "encoder_attn", "EncDecAttention"):
        assert siblings.find({f"block.{name}.q_proj": 8, f"block.{name}.k_proj": 8}) == []


@pytest.mark.parametrize("kind", classes.KINDS)
def test_layers_that_are_joined_are_called_on_one_tensor(kind: str) -> None:
    model = classes.model(kind)
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    called: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in layers}

    def note(name: str) -> None:
        layers[name].register_forward_pre_hook(
            lambda _, given: called[name].append((given[0], given[0]._version))
        )

    for name in layers:
        note(name)
    with torch.no_grad():
        model(input_ids=torch.arange(7)[None])
    widths = {name: layer.in_features for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    for group in siblings.find(widths):
        first, *others = (called[name] for name in group)
        for other in others:
            assert len(first) == len(other)
            pairs = zip(first, other, strict=True)
            assert all(x is y and a == b for (x, a), (y, b) in pairs), group


def layers_of(sizes: tuple[int, ...] = SIZES) -> list[QuantLinear]:
    return [QuantLinear(torch.empty(size, 64, device="meta")) for size in sizes]


def fill(joint: Joint, index: int, weight: QuantWeight) -> None:
    joint.fill(joint.layers[index], weight, dtype=torch.bfloat16, memo=Memo())


def filled(joint: Joint) -> list[bool]:
    return [layer.kernel is not None for layer in joint.layers]


def by_itself(weight: QuantWeight, x: Tensor) -> Tensor:
    return build(weight, dtype=torch.bfloat16, memo=Memo())(x)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_weights_of_a_joint_come_in_any_order(order: tuple[int, ...]) -> None:
    joint, x = Joint(layers_of()), torch.randn(3, 64).bfloat16()
    weights = [round_to(torch.randn(size, 64), "int8") for size in SIZES]
    for index in order:
        assert not any(filled(joint))
        fill(joint, index, weights[index])
    assert not joint.arrived
    for layer, weight in zip(joint.layers, weights, strict=True):
        assert isinstance(layer.kernel, PartKernel)
        assert torch.equal(layer(x), by_itself(weight, x))


def test_weights_that_do_not_fit_together_go_each_by_itself() -> None:
    joint, x = Joint(layers_of()), torch.randn(3, 64).bfloat16()
    weights = [
        round_to(torch.randn(size, 64), method)
        for size, method in zip(SIZES, ("int8", "int4", "nf4"), strict=True)
    ]
    for index, weight in enumerate(weights):
        fill(joint, index, weight)
    for layer, weight in zip(joint.layers, weights, strict=True):
        assert layer.kernel is not None
        assert not isinstance(layer.kernel, PartKernel)
        assert torch.equal(layer(x), by_itself(weight, x))


def test_when_one_will_not_come_quantised_the_others_wait_no_longer() -> None:
    joint = Joint(layers_of())
    fill(joint, 0, round_to(torch.randn(SIZES[0], 64), "int8"))
    assert filled(joint) == [False, False, False]
    joint.part(dtype=torch.bfloat16, memo=Memo())
    assert filled(joint) == [True, False, False]
    fill(joint, 2, round_to(torch.randn(SIZES[2], 64), "int8"))
    assert filled(joint) == [True, False, True]
