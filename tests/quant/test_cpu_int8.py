"""8-bit weights and activations on oneDNN, and what the activation goes through for that."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmctl.quant import cpu_int8
from llmctl.quant.activations import Memo, quantise
from llmctl.quant.weights import IntWeight
from tests.quant.made import distance, int_weight, reference

FLOATS = [torch.bfloat16, torch.float16, torch.float32]


@given(
    st.sampled_from([1, 2, 5, 16, 33, 64, 70]),
    st.integers(1, 70),
    st.integers(1, 130),
    st.sampled_from(FLOATS),
    st.booleans(),
)
def test_the_result_is_off_by_what_rounding_the_activation_costs(
    num_rows: int, num_outputs: int, num_columns: int, dtype: torch.dtype, is_narrow: bool
) -> None:
    weight = int_weight(8, num_outputs, num_columns, is_permuted=num_columns % 2 == 0)
    x, bias = torch.randn(num_rows, num_columns).to(dtype), torch.randn(num_outputs).to(dtype)
    got = cpu_int8.Int8Kernel(weight, Memo(), is_narrow=is_narrow)(x, bias)
    assert got.dtype == dtype
    # What rounding may add to each output: half a step of each input, in the same direction.
    step = x.double().abs().amax(-1, keepdim=True) / (62 if is_narrow else 126)
    bound = 0.51 * step * weight.dequantize().double().abs().sum(-1)
    exact = reference(weight, x, bias)
    bound += 2**-7 * (exact.abs() + bias.double().abs() + bound)
    assert bool(((got.double() - exact).abs() <= bound).all())


@pytest.mark.parametrize(("is_narrow", "most"), [(False, 0.012), (True, 0.024)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_on_normal_activations_it_is_off_by_about_a_percent(
    is_narrow: bool, most: float, dtype: torch.dtype
) -> None:
    weight = int_weight(8, 64, 512)
    x = torch.randn(32, 512).to(dtype)
    error = distance(cpu_int8.Int8Kernel(weight, Memo(), is_narrow=is_narrow)(x), reference(weight, x))
    assert most / 5 < error < most


@pytest.mark.parametrize("is_narrow", [False, True])
def test_integers_that_fit_are_multiplied_exactly(is_narrow: bool) -> None:
    largest = 63 if is_narrow else 127
    weight = int_weight(8, 40, 300)
    weight = IntWeight(bits=8, values=weight.values, scale=torch.ones(40, 1))
    x = torch.randint(-largest, largest + 1, (9, 300)).float()
    x[:, 0] = largest
    got = cpu_int8.Int8Kernel(weight, Memo(), is_narrow=is_narrow)(x)
    assert distance(got, reference(weight, x)) < 1e-6


def test_every_bfloat16_lands_inside_the_8_bits() -> None:
    x = torch.arange(0x80, 0x7F80, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)[:, None]
    for rows, most in ((x, 255), (-x, 1)):
        made = quantise(rows)
        # A scale that is denormal itself is too coarse to say anything.
        is_normal = made.scale[:, 0].float() > 2e-38
        numbers = made.numbers[is_normal].int()
        assert bool(((numbers - most).abs() <= 1).all())
        back = (numbers - made.zero) * made.scale[is_normal].float()
        assert bool(((back - rows[is_normal].float()).abs() <= 0.51 * made.scale[is_normal].float()).all())


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_row_of_zeros_gives_the_bias_and_one_with_nan_shows(dtype: torch.dtype) -> None:
    weight, bias = int_weight(8, 6, 40), torch.randn(6).to(dtype)
    x = torch.randn(3, 40).to(dtype)
    x[0], x[1, 3] = 0, float("nan")
    got = cpu_int8.Int8Kernel(weight, Memo())(x, bias)
    assert torch.equal(got[0], bias)
    assert bool(got[1].isnan().all())
    assert bool(got[2].isfinite().all())


def test_a_zero_point_that_values_have_room_for_is_folded_into_them() -> None:
    weight = int_weight(8, 8, 32, has_zero=True)
    roomy = IntWeight(bits=8, values=weight.values // 2, scale=weight.scale, zero=weight.zero)
    plain = cpu_int8.symmetric(roomy)
    assert plain is not None
    assert plain.zero is None
    assert torch.equal(plain.dequantize(), roomy.dequantize())


@pytest.mark.parametrize(
    "weight",
    [
        int_weight(8, 8, 256, has_zero=True),
        int_weight(8, 8, 64, group_size=32),
        int_weight(4, 8, 64),
    ],
    ids=["zero points without room", "groups", "4 bits"],
)
def test_other_weights_are_left_to_other_paths(weight: IntWeight) -> None:
    if weight.zero is not None:
        weight.values[0, :2] = torch.tensor([-128, 127])
        weight.zero[0] = 3
    assert cpu_int8.symmetric(weight) is None
