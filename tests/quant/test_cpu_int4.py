"""4-bit groups on torch's kernel for few rows and out of the same bytes for many."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core import native
from llmctl.quant import cpu_int4
from llmctl.quant.activations import Memo
from tests.quant.made import BF16_STEP, bfloat16_steps, distance, int_weight, reference


@given(
    st.integers(1, 70),
    st.integers(1, 140),
    st.sampled_from([(32, 32), (64, 64), (192, 64), (256, 256), (384, 128), (512, 512), (96, 96)]),
    st.booleans(),
    st.booleans(),
)
def test_few_rows_are_as_near_as_bfloat16_is(
    num_rows: int, num_outputs: int, columns: tuple[int, int], has_zero: bool, is_permuted: bool
) -> None:
    num_columns, group_size = columns
    weight = int_weight(
        4, num_outputs, num_columns, group_size=group_size, has_zero=has_zero, is_permuted=is_permuted
    )
    x, bias = torch.randn(num_rows, num_columns).bfloat16(), torch.randn(num_outputs).bfloat16()
    got = cpu_int4.Int4Kernel(weight, Memo())(x, bias)
    assert got.dtype == torch.bfloat16
    assert bfloat16_steps(got, weight, x, bias) < 2


@pytest.mark.parametrize("scratch", [1 << 12, 1 << 15, 1 << 20])
@pytest.mark.parametrize("num_outputs", [64, 100, 320])
@pytest.mark.parametrize("has_zero", [False, True])
def test_many_rows_are_as_near_with_scratch_of_every_size(
    scratch: int, num_outputs: int, has_zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_int4, "_SCRATCH_ELEMENTS", scratch)
    weight = int_weight(4, num_outputs, 192, group_size=64, has_zero=has_zero, is_permuted=has_zero)
    x = torch.randn(150, 192).bfloat16()
    kernel = cpu_int4.Int4Kernel(weight, Memo())
    assert distance(kernel(x), reference(weight, x)) < 1.5 * BF16_STEP
    assert distance(kernel(x[:3]), reference(weight, x[:3])) < 1.5 * BF16_STEP


@pytest.mark.parametrize("group_size", [8, 16, 48, 12])
def test_groups_that_no_size_of_torch_divides_are_left_to_other_paths(group_size: int) -> None:
    assert not cpu_int4.fits(int_weight(4, 8, 240 // group_size * group_size, group_size=group_size))


def test_there_is_one_copy_of_the_weight() -> None:
    weight = int_weight(4, 128, 256, group_size=64, has_zero=True)
    kernel = cpu_int4.Int4Kernel(weight, Memo())
    kernel(torch.randn(200, 256).bfloat16())
    held = sum(each.numel() * each.element_size() for each in vars(kernel).values() if torch.is_tensor(each))
    assert held == kernel.num_bytes == 128 * 128 + 4 * 128 * 5


def test_an_order_of_rows_that_is_not_known_leaves_all_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_int4, "block_rows", lambda: None)
    weight, x = int_weight(4, 100, 192, group_size=64), torch.randn(150, 192).bfloat16()
    kernel = cpu_int4.Int4Kernel(weight, Memo())
    assert distance(kernel(x), reference(weight, x)) < 1.5 * BF16_STEP
    assert torch.equal(kernel(x)[:9], kernel(x[:9]))


@pytest.mark.parametrize("has_zero", [False, True])
@pytest.mark.parametrize(("num_outputs", "scratch"), [(64, 1 << 20), (100, 1 << 13), (320, 1 << 15)])
def test_our_own_code_dequantises_to_the_same_bits(
    num_outputs: int, scratch: int, has_zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native.compiler() is None:
        pytest.skip("there is no C compiler")
    monkeypatch.setattr(cpu_int4, "_SCRATCH_ELEMENTS", scratch)
    weight = int_weight(4, num_outputs, 192, group_size=64, has_zero=has_zero)
    kernel, x = cpu_int4.Int4Kernel(weight, Memo()), torch.randn(150, 192).bfloat16()
    assert native.library(cpu_int4._SOURCE) is not None
    fast = kernel(x)
    monkeypatch.setattr(native, "library", lambda source: None)
    assert torch.equal(kernel(x), fast)
