"""4-bit groups on torch's kernel for few rows and out of the same bytes for many."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core import native
from llmctl.quant import cpu_int4, int4_rows
from llmctl.quant.activations import Memo
from tests.quant.made import BF16_STEP, bfloat16_steps, distance, int_weight, reference


# The first example may compile.
@settings(deadline=None)
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
    monkeypatch.setattr(int4_rows, "compiled", lambda: None)
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
    monkeypatch.setattr(int4_rows, "compiled", lambda: None)
    weight = int_weight(4, num_outputs, 192, group_size=64, has_zero=has_zero)
    kernel, x = cpu_int4.Int4Kernel(weight, Memo()), torch.randn(150, 192).bfloat16()
    assert native.library(cpu_int4._SOURCE) is not None
    fast = kernel(x)
    monkeypatch.setattr(native, "library", lambda source: None)
    assert torch.equal(kernel(x), fast)


@pytest.fixture
def product() -> int4_rows.Product:
    found = int4_rows.compiled()
    if found is None:
        pytest.skip("there is no C compiler, or no instruction for bfloat16")
    return found


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("num_rows", [5, 6, 7, 48, 96, 97, 200, 1100])
@pytest.mark.parametrize("columns", [(64, 32), (512, 128), (544, 32), (768, 256)])
@pytest.mark.parametrize("has_zero", [False, True])
def test_our_own_products_are_right_for_any_number_of_rows(
    num_rows: int, columns: tuple[int, int], has_zero: bool
) -> None:
    num_columns, group_size = columns
    weight = int_weight(4, 130, num_columns, group_size=group_size, has_zero=has_zero)
    x, bias = torch.randn(num_rows, num_columns).bfloat16(), torch.randn(130).bfloat16()
    got = cpu_int4.Int4Kernel(weight, Memo())(x, bias)
    assert bfloat16_steps(got, weight, x, bias) < 1.5


@pytest.mark.usefixtures("product")
def test_our_own_products_give_a_row_the_same_bits_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = cpu_int4.Int4Kernel(int_weight(4, 200, 320, group_size=64), Memo())
    x = torch.randn(300, 640).bfloat16()[:, ::2]
    got = kernel(x)
    assert torch.equal(kernel(x[:5]), got[:5])
    for num_threads in (2, 7):
        monkeypatch.setattr(torch, "get_num_threads", lambda num_threads=num_threads: num_threads)
        assert torch.equal(kernel(x), got)


def test_a_cpu_without_instructions_for_bfloat16_keeps_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int4_rows, "compiled", lambda: None)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(cpu_int4, "multiply_tiles", None)
    weight, x = int_weight(4, 100, 192, group_size=64), torch.randn(150, 192).bfloat16()
    assert distance(cpu_int4.Int4Kernel(weight, Memo())(x), reference(weight, x)) < 1.5 * BF16_STEP
