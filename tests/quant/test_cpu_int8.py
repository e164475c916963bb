"""8-bit weights and activations on oneDNN, and what the activation goes through for that."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.quant import cpu_int8, rows8
from llmctl.quant.activations import Memo, quantise
from llmctl.quant.weights import IntWeight
from tests.quant.made import distance, int_weight, reference

FLOATS = [torch.bfloat16, torch.float16, torch.float32]


# The first example may compile.
@settings(deadline=None)
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


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By our own code, or without a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(rows8, "library", lambda: None)
    elif rows8.library() is None:
        pytest.skip("there is no C compiler")


@pytest.mark.usefixtures("way")
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


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_row_of_zeros_gives_the_bias_and_one_with_nan_shows(dtype: torch.dtype) -> None:
    weight, bias = int_weight(8, 6, 40), torch.randn(6).to(dtype)
    x = torch.randn(3, 40).to(dtype)
    x[0], x[1, 3] = 0, float("nan")
    got = cpu_int8.Int8Kernel(weight, Memo())(x, bias)
    assert torch.equal(got[0], bias)
    assert bool(got[1].isnan().all())
    assert bool(got[2].isfinite().all())


@pytest.mark.parametrize("is_narrow", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (5, 64), (64, 1000)])
def test_our_own_code_quantises_as_torch_does(
    shape: tuple[int, int], dtype: torch.dtype, is_narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rows8.library() is None:
        pytest.skip("there is no C compiler")
    # Rows of other sizes, which lie further apart than they are long.
    x = (torch.randn(shape) * torch.logspace(-3, 3, shape[0])[:, None]).to(dtype)
    x = torch.cat((x, x), 1)[:, : shape[1]]
    got = quantise(x, is_narrow=is_narrow)
    monkeypatch.setattr(rows8, "library", lambda: None)
    wanted = quantise(x, is_narrow=is_narrow)
    assert torch.equal(got.scale, wanted.scale)
    assert got.zero == wanted.zero
    # Where a number lies in the middle of two, one rounding less may decide.
    apart = (got.numbers.int() - wanted.numbers.int()).abs()
    assert int(apart.amax()) <= 1
    assert float(apart.float().mean()) < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("has_bias", [False, True])
def test_scale_and_bias_are_rounded_once(dtype: torch.dtype, has_bias: bool) -> None:
    if rows8.library() is None:
        pytest.skip("there is no C compiler")
    rows, scales = torch.randn(70, 530).to(dtype), torch.randn(70, 1).to(dtype)
    bias = torch.randn(1060).to(dtype)[::2] if has_bias else None
    exact = rows.double() * scales.double() + (0 if bias is None else bias.double())
    rows8.scale(rows, scales, bias)
    assert torch.allclose(rows.double(), exact, rtol=torch.finfo(dtype).eps / 1.9, atol=1e-6)


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
