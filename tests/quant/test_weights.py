"""The canonical forms themselves: what a weight stands for, number by number."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmctl.quant.weights import IntWeight, pack4, unpack4
from tests.quant.made import coded_weight, int_weight


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("has_zero", [False, True])
@pytest.mark.parametrize("is_permuted", [False, True])
def test_integers_stand_for_what_the_formula_says(bits: int, has_zero: bool, is_permuted: bool) -> None:
    weight = int_weight(bits, 5, 12, group_size=4, has_zero=has_zero, is_permuted=is_permuted)
    dense, numbers = weight.dequantize(), weight.numbers()
    for n in range(5):
        for k in range(12):
            zero = 8 if bits == 4 else 0
            if weight.zero is not None:
                zero = int(weight.zero[n, k // 4])
            column = k if weight.permutation is None else int(weight.permutation[k])
            scale = float(weight.scale[n, k // 4])
            assert math.isclose(float(dense[n, column]), (int(numbers[n, k]) - zero) * scale, rel_tol=1e-6)


def test_codes_stand_for_what_the_formula_says() -> None:
    weight = coded_weight(3, 20, block_size=16)
    dense = weight.dequantize().flatten()
    for i in range(60):
        code = int(weight.codes[i // 2]) >> 4 if i % 2 == 0 else int(weight.codes[i // 2]) & 15
        assert float(dense[i]) == float(weight.table[code] * weight.absmax[i // 16])


@given(st.lists(st.integers(0, 15), min_size=2, max_size=40).filter(lambda numbers: len(numbers) % 2 == 0))
def test_two_numbers_fit_into_a_byte_and_come_back(numbers: list[int]) -> None:
    packed = pack4(torch.tensor(numbers))
    assert len(packed) == len(numbers) // 2
    assert unpack4(packed).tolist() == numbers
    assert int(packed[0]) & 15 == numbers[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_is_rounded_once_from_float32(dtype: torch.dtype) -> None:
    for weight in (int_weight(4, 4, 64, group_size=32, has_zero=True), coded_weight(4, 64)):
        assert torch.equal(weight.dequantize(dtype), weight.dequantize().to(dtype))


def test_bytes_count_all_parts() -> None:
    weight = int_weight(4, 4, 64, group_size=32, has_zero=True, is_permuted=True)
    assert weight.num_bytes == 4 * 32 + 8 * 4 + 8 * 2 + 64 * 8
    assert coded_weight(4, 64).num_bytes == 128 + 4 * 4


def test_an_expert_is_a_slice_of_every_part() -> None:
    parts = [int_weight(8, 3, 8, group_size=4, has_zero=True, is_permuted=True) for _ in range(2)]
    zeros = [part.zero for part in parts if part.zero is not None]
    orders = [part.permutation for part in parts if part.permutation is not None]
    stack = IntWeight(
        bits=8,
        values=torch.stack([part.values for part in parts]),
        scale=torch.stack([part.scale for part in parts]),
        zero=torch.stack(zeros),
        permutation=torch.stack(orders),
    )
    assert stack.shape == (2, 3, 8)
    for index, part in enumerate(parts):
        assert torch.equal(stack.expert(index).dequantize(), part.dequantize())
        assert torch.equal(stack.dequantize()[index], part.dequantize())
