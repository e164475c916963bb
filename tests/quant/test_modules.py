"""The layers themselves: shapes, types, devices, and what they are before a weight has come."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llmctl.quant import modules
from llmctl.quant.kernels import Kernel, Memo, build
from llmctl.quant.modules import Factor, QuantEmbedding, QuantLinear
from llmctl.quant.rounding import round_to
from llmctl.quant.weights import IntWeight, pack4
from tests.quant.rounded import difference

CPU = torch.device("cpu")


def linear(num_columns: int = 64, num_rows: int = 48, *, dtype: torch.dtype = torch.float32) -> QuantLinear:
    """A layer with 4-bit weights."""
    layer = QuantLinear(torch.empty(num_rows, num_columns, device="meta"))
    packed = round_to(torch.randn(num_rows, num_columns), "int4")
    layer.hold(build(packed, dtype=dtype, memo=Memo()), dtype, CPU)
    return layer


def table_of(bits: int) -> IntWeight:
    """A table of 11 rows of 32 numbers, in groups of 8, with zero points and an order of its own."""
    values = torch.randint(0, 16, (11, 32)) if bits == 4 else torch.randint(-128, 128, (11, 32))
    return IntWeight(
        bits=bits,
        values=pack4(values) if bits == 4 else values.to(torch.int8),
        scale=torch.rand(11, 4) + 0.1,
        zero=torch.randint(0, 9, (11, 4), dtype=torch.int16),
        permutation=torch.randperm(32),
    )


@pytest.mark.parametrize("shape", [(64,), (3, 64), (2, 5, 64), (0, 64)])
def test_a_linear_layer_keeps_leading_dimensions(shape: tuple[int, ...]) -> None:
    assert linear()(torch.randn(shape)).shape == (*shape[:-1], 48)


@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_layer_tells_its_features(is_transposed: bool) -> None:
    weight = torch.empty(3, 5, device="meta")
    layer = QuantLinear(weight, is_transposed=is_transposed)
    assert (layer.out_features, layer.in_features) == ((5, 3) if is_transposed else (3, 5))
    assert layer.weight.shape == (3, 5)
    assert layer.weight.is_meta


def test_a_layer_adds_its_bias() -> None:
    layer, x = linear(), torch.randn(2, 64)
    without = layer(x)
    layer.bias = nn.Parameter(torch.arange(48.0))
    assert torch.allclose(layer(x), without + torch.arange(48.0), atol=1e-5)


@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_weight_that_came_dense_is_used_as_it_is(is_transposed: bool) -> None:
    weight, x = torch.randn(6, 6), torch.randn(2, 6)
    layer = QuantLinear(weight, is_transposed=is_transposed)
    modules.hold_dense(layer, "weight", weight)
    assert torch.equal(layer(x), nn.functional.linear(x, weight.T if is_transposed else weight))


def test_a_packed_weight_tells_type_and_device_and_nothing_can_be_read_of_it() -> None:
    layer = linear(dtype=torch.bfloat16)
    assert (layer.weight.dtype, layer.weight.device) == (torch.bfloat16, CPU)
    with pytest.raises(RuntimeError):
        nn.functional.linear(torch.randn(2, 64, dtype=torch.bfloat16), layer.weight)


def test_moving_a_model_keeps_what_it_computes() -> None:
    model, x = nn.Sequential(linear(), nn.ReLU()), torch.randn(2, 64)
    wanted = model(x)
    assert torch.equal(model.to("cpu")(x), wanted)
    assert torch.equal(model.eval()(x), wanted)


def test_another_type_is_computed_in_that_type() -> None:
    layer, x = linear(), torch.randn(2, 64)
    wanted = layer(x)
    found = layer.to(torch.bfloat16)(x.bfloat16())
    assert layer.weight.dtype == found.dtype == torch.bfloat16
    assert difference(found, wanted) < 0.02


def test_packed_weights_stay_where_they_are_and_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(linear(), linear())
    with caplog.at_level(logging.WARNING):
        model.to("meta")
    assert [record.getMessage() for record in caplog.records] == [
        "weights are packed for cpu and stay there; load the model anew to have it on meta"
    ]


def test_what_comes_from_another_device_goes_back_to_it() -> None:
    class Elsewhere:
        """Stands for a kernel on another device."""

        title = "elsewhere"
        num_bytes = 0

        def __call__(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
            assert x.is_meta
            assert bias is not None
            assert bias.is_meta
            return x

    kernel: Kernel = Elsewhere()
    with pytest.raises(NotImplementedError, match="meta"):
        # Nothing comes back from meta; that it was tried is the point.
        modules.run(kernel, torch.device("meta"), torch.ones(2), torch.ones(2))


def test_printing_a_layer_tells_how_it_computes() -> None:
    assert "no kernel" in repr(QuantLinear(torch.empty(2, 2, device="meta")))
    assert "in_features=64, out_features=48, " in repr(linear())
    assert "11, 32, no table" in repr(QuantEmbedding(torch.empty(11, 32, device="meta")))


@pytest.mark.parametrize("bits", [4, 8])
@given(ids=st.lists(st.integers(0, 10), max_size=7))
def test_a_table_gives_the_rows_that_it_stands_for(bits: int, ids: list[int]) -> None:
    table = table_of(bits)
    layer = QuantEmbedding(torch.empty(11, 32, device="meta"))
    layer.hold(table, torch.float32)
    asked = torch.tensor([ids], dtype=torch.long)
    assert torch.equal(layer(asked), table.dequantize()[asked])


def test_a_table_gives_the_type_of_the_model_and_follows_it() -> None:
    layer = QuantEmbedding(torch.empty(11, 32, device="meta"))
    layer.hold(table_of(8), torch.bfloat16)
    assert layer(torch.tensor([1])).dtype == torch.bfloat16
    before = layer.table
    assert layer.float()(torch.tensor([1])).dtype == torch.float32
    assert before is not None
    assert layer.table is not None
    assert torch.equal(layer.table.scale, before.scale)


@pytest.mark.parametrize(
    ("factor", "wanted"),
    [(None, 1.0), (Factor(0.3, is_rounded=False), 0.3), (Factor(0.3, is_rounded=True), 0.30078125)],
)
def test_a_factor_is_rounded_where_its_model_does_so(factor: Factor | None, wanted: float) -> None:
    layer = QuantEmbedding(torch.empty(11, 32), factor=factor)
    modules.hold_dense(layer, "weight", torch.ones(11, 32, dtype=torch.bfloat16))
    found = layer(torch.tensor([3]))
    assert torch.equal(found, torch.full((1, 32), wanted, dtype=torch.bfloat16))


def test_transformers_gives_no_random_numbers_to_what_is_packed() -> None:
    assert getattr(linear().weight, "_is_hf_initialized", False)
