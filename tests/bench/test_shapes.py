"""Shapes are those of real models."""

import json

import pytest

from llmctl.bench.shapes import DEFAULT_SHAPE, SHAPES
from llmctl.quant.methods import METHODS, group_size
from tests.conftest import ROOT


def test_the_default_is_the_block_that_the_figures_are_about() -> None:
    assert SHAPES[DEFAULT_SHAPE].layers == {
        "q": (896, 896),
        "k": (896, 128),
        "v": (896, 128),
        "o": (896, 896),
        "gate": (896, 4864),
        "up": (896, 4864),
        "down": (4864, 896),
    }
    assert SHAPES[DEFAULT_SHAPE].num_weights == 14_909_440


def test_the_demo_has_the_shape_that_its_config_says() -> None:
    config = json.loads((ROOT / "llmctl/demo/models/demo/config.json").read_text())
    shape = SHAPES["demo"]
    found = (shape.hidden, shape.intermediate, shape.num_heads, shape.num_kv_heads, shape.head_size)
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    assert found == tuple(config[name] for name in names)


@pytest.mark.parametrize("name", SHAPES)
def test_every_method_divides_every_layer(name: str) -> None:
    for columns, _ in SHAPES[name].layers.values():
        assert all(group_size(method, columns) for method in METHODS)


def test_a_model_is_named_once() -> None:
    assert len({shape.source for shape in SHAPES.values()}) == len(SHAPES)
    sizes = [shape.num_weights for shape in SHAPES.values()]
    assert sizes == sorted(sizes)
