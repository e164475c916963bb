"""Weights in few bits are as near to what they were as their bits allow."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.artifacts.compress.compensate import round_compensated
from llmctl.artifacts.compress.rounding import best_steps, round_fp8, round_int4, round_int8, rounded

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def random(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def dense(numbers: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    groups = numbers.float().view(len(numbers), scale.shape[1], -1)
    return (groups * scale.float()[..., None]).view(numbers.shape)


def plain_int4(weight: torch.Tensor, size: int) -> torch.Tensor:
    """By the largest number of each group, which is what a tool without a search does."""
    groups = weight.view(-1, size)
    step = groups.abs().amax(-1, keepdim=True) / 7
    return (rounded(groups, step) * step).view(weight.shape)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 70),
    power=st.integers(-20, 10),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_eight_bits_are_off_by_half_a_step_at_most(
    rows: int, columns: int, power: int, dtype: torch.dtype, seed: int
) -> None:
    weight = random(rows, columns, seed) * 2.0**power
    numbers, scale = round_int8(weight, dtype)
    assert numbers.dtype == torch.int8
    assert scale.dtype == dtype
    # The largest number is beyond 127 steps by as much as the type shortened the step, or a step grew by.
    slack = 127 * torch.finfo(dtype).eps + (0.5 if power < -10 and dtype == torch.float16 else 0)
    assert bool(((dense(numbers, scale) - weight).abs() <= scale.float() * (0.5 + slack)).all())


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9), columns=st.integers(1, 70), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99)
)
def test_floats_of_eight_bits_keep_four_digits_of_two(
    rows: int, columns: int, dtype: torch.dtype, seed: int
) -> None:
    weight = random(rows, columns, seed)
    codes, scale = round_fp8(weight, dtype)
    error = (codes.float() * scale.float() - weight).abs()
    assert bool((error <= weight.abs() / 16 + scale.float() * 2**-9).all())


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 6),
    groups=st.integers(1, 4),
    size=st.sampled_from([32, 64, 128]),
    has_extremes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_searched_ranges_are_never_worse_than_the_widest(
    rows: int, groups: int, size: int, has_extremes: bool, seed: int
) -> None:
    weight = random(rows, groups * size, seed)
    if has_extremes:
        weight[:, ::size] *= 8
    numbers, scale = round_int4(weight, size, torch.float32)
    assert int(numbers.min()) >= -8
    assert int(numbers.max()) <= 7
    found = (dense(numbers, scale) - weight).square().view(-1, size).sum(-1)
    plain = (plain_int4(weight, size) - weight).square().view(-1, size).sum(-1)
    assert bool((found <= plain * (1 + 1e-5)).all())


def test_searched_ranges_are_a_good_deal_better_on_the_whole() -> None:
    weight = random(64, 512)
    numbers, scale = round_int4(weight, 64, torch.bfloat16)
    assert float((dense(numbers, scale) - weight).norm()) < 0.93 * float(
        (plain_int4(weight, 64) - weight).norm()
    )


def test_what_matters_more_is_met_better() -> None:
    groups = random(200, 32)
    importance = torch.ones(200, 32)
    importance[:, :4] = 100

    def error(step: torch.Tensor) -> float:
        return float((rounded(groups, step) * step - groups)[:, :4].square().sum())

    assert error(best_steps(groups, torch.float32, importance)) < error(best_steps(groups, torch.float32))


@pytest.mark.parametrize("round_weight", [round_int8, round_fp8, lambda w, d: round_int4(w, 32, d)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_stay_zeros(round_weight: object, dtype: torch.dtype) -> None:
    numbers, scale = round_weight(torch.zeros(3, 64), dtype)  # type: ignore[operator]
    assert not bool(numbers.float().any())
    assert bool((scale > 0).all())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("round_weight", [round_int8, round_fp8, lambda w, d: round_int4(w, 32, d)])
def test_numbers_that_are_none_are_refused(round_weight: object, wrong: float) -> None:
    weight = random(3, 64)
    weight[1, 5] = wrong
    with pytest.raises(ValueError, match="not a finite number"):
        round_weight(weight, torch.float32)  # type: ignore[operator]


def test_groups_that_do_not_divide_a_row_are_refused() -> None:
    with pytest.raises(ValueError, match="groups of 64 do not divide rows of 96"):
        round_int4(random(2, 96), 64, torch.float32)


def inputs(num: int, columns: int, seed: int = 1) -> torch.Tensor:
    """Rows whose columns go together, as those of a layer do."""
    return (
        random(num, columns // 4, seed) @ random(columns // 4, columns, seed + 1)
        + random(num, columns, seed + 2) / 4
    )


def test_errors_that_are_made_up_for_cost_less_in_what_the_layer_gives() -> None:
    weight, x = random(48, 256), inputs(600, 256)
    numbers, scale = round_compensated(weight, x.T @ x, 64, torch.bfloat16)
    plain = dense(*round_int4(weight, 64, torch.bfloat16))
    lost = (x @ (dense(numbers, scale) - weight).T).norm()
    assert float(lost) < 0.6 * float((x @ (plain - weight).T).norm())


def test_columns_far_apart_in_their_use_keep_their_places() -> None:
    weight, x = random(8, 64), random(300, 64) * torch.logspace(-2, 2, 64)[torch.randperm(64)]
    numbers, scale = round_compensated(weight, x.T @ x, 32, torch.float32)
    assert float((dense(numbers, scale) - weight).abs().max()) < 2
    assert float((x @ (dense(numbers, scale) - weight).T).norm()) < 0.2 * float((x @ weight.T).norm())


@pytest.mark.parametrize("num_inputs", [0, 1])
def test_inputs_that_say_little_do_no_harm(num_inputs: int) -> None:
    weight, x = random(8, 64), random(1, 64)[:num_inputs]
    products = x.T @ x
    products[:, :5] = products[:5] = 0
    numbers, scale = round_compensated(weight, products, 32, torch.float32)
    assert float((dense(numbers, scale) - weight).norm()) < 0.5 * float(weight.norm())


def test_neither_weights_nor_inputs_may_be_infinite() -> None:
    weight, products = random(4, 32), torch.eye(32)
    for wrong in (weight, products):
        kept, wrong[0, 0] = wrong[0, 0].clone(), torch.inf
        with pytest.raises(ValueError, match="not a finite number"):
            round_compensated(weight, products, 32, torch.float32)
        wrong[0, 0] = kept
