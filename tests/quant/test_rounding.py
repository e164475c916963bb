"""Dense weights rounded to each method: how near, how steady, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmctl.quant.methods import METHODS
from llmctl.quant.rounding import round_to
from llmctl.quant.weights import CodedWeight, IntWeight
from tests.quant.made import distance

# Relative errors on normal weights: 8 bits of a row's range, 4 bits of a group's.
ERROR = {"int8": 0.009, "int4": 0.09, "nf4": 0.097, "fp4": 0.14}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_normal_weights_are_rounded_as_near_as_the_bits_allow(method: str, dtype: torch.dtype) -> None:
    weight = torch.randn(300, 256, generator=torch.Generator().manual_seed(1)).to(dtype)
    rounded = round_to(weight, method)
    assert rounded.shape == (300, 256)
    error = distance(rounded.dequantize(), weight.double())
    assert ERROR[method] / 3 < error < ERROR[method]


@pytest.mark.parametrize("method", METHODS)
def test_experts_are_rounded_as_if_each_came_alone(method: str) -> None:
    weight = torch.randn(3, 5, 128)
    rounded = round_to(weight, method)
    assert rounded.shape == weight.shape
    for index in range(3):
        alone = round_to(weight[index], method)
        assert torch.equal(rounded.expert(index).dequantize(), alone.dequantize())


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_of_many_blocks_is_rounded_row_by_row(method: str) -> None:
    weight = torch.randn(9, 1 << 16)
    assert torch.equal(round_to(weight, method).dequantize()[7:8], round_to(weight[7:8], method).dequantize())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_finite_number_is_refused(method: str, value: float) -> None:
    weight = torch.randn(70, 1 << 12)
    weight[69, 5] = value
    with pytest.raises(ValueError, match="finite"):
        round_to(weight, method)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_stay_zeros(method: str) -> None:
    weight = torch.randn(4, 128)
    weight[1] = 0
    rounded = round_to(weight, method).dequantize()
    assert torch.count_nonzero(rounded[1]) == 0
    assert torch.isfinite(rounded).all()


@pytest.mark.parametrize(("method", "num_columns"), [("int4", 48), ("nf4", 96), ("fp4", 1)])
def test_rows_that_no_group_divides_are_refused_with_both_numbers(method: str, num_columns: int) -> None:
    with pytest.raises(ValueError, match=rf"{method}.*64.*{num_columns}"):
        round_to(torch.zeros(2, num_columns), method)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'int3'.*int8, int4, nf4, fp4"):
        round_to(torch.zeros(2, 64), "int3")


@given(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 3, 64, 100]), st.integers(0, 1 << 30))
def test_8_bits_are_off_by_half_a_step_at_most(num_rows: int, num_columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(num_rows, num_columns, generator=generator)
    rounded = round_to(weight, "int8")
    assert isinstance(rounded, IntWeight)
    assert int(rounded.values.abs().amax()) == 127
    assert bool(((rounded.dequantize() - weight).abs() <= rounded.scale * 0.5001).all())


def test_4_bits_are_no_worse_than_the_plain_range_of_each_group() -> None:
    weight = torch.distributions.StudentT(4.0).sample((64, 256))
    groups = weight.view(64, 4, 64)
    step = groups.abs().amax(-1, keepdim=True) / 7.5
    plain = ((groups / step).round().clamp(-8, 7) * step - groups).square().sum(-1)
    searched = (round_to(weight, "int4").dequantize() - weight).view(64, 4, 64).square().sum(-1)
    assert float(searched.sum()) < 0.85 * float(plain.sum())


def test_4_bit_scales_are_what_the_kernels_hold() -> None:
    rounded = round_to(torch.randn(8, 128), "int4")
    assert isinstance(rounded, IntWeight)
    assert torch.equal(rounded.scale, rounded.scale.bfloat16().float())


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_codes_are_those_of_bitsandbytes(kind: str) -> None:
    from llmctl.quant.coded import _library

    functional = _library("bitsandbytes.functional")
    weight = torch.randn(70, 192)
    codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type=kind)
    rounded = round_to(weight, kind)
    assert isinstance(rounded, CodedWeight)
    assert torch.equal(rounded.absmax, state.absmax)
    assert torch.equal(rounded.table, state.code)
    assert torch.equal(rounded.dequantize(), functional.dequantize_4bit(codes, state))


def test_rounding_leaves_the_weight_as_it_was_and_builds_no_graph() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 64))
    before = weight.detach().clone()
    rounded = [round_to(weight, method) for method in METHODS]
    assert torch.equal(weight, before)
    assert not any(each.dequantize().requires_grad for each in rounded)
