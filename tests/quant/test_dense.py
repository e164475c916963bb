"""Dense weights in oneDNN's order, against nn.Linear."""

from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import linear

from llmctl.quant import dense
from llmctl.quant.activations import Memo
from llmctl.quant.dense import DenseKernel
from tests.quant.made import distance

DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if dense.fits(dtype)]
MOST = {torch.float32: 2e-6, torch.bfloat16: 4e-3}
INPUTS: Mapping[str, Callable[[torch.dtype], Tensor]] = {
    "a transposed one": lambda dtype: torch.randn(40, 9).to(dtype).t(),
    "every second column": lambda dtype: torch.randn(9, 80).to(dtype)[:, ::2],
    "part of wider rows": lambda dtype: torch.randn(3, 5, 100).to(dtype)[..., 30:70],
    "one number for all": lambda dtype: torch.randn(1, 1).to(dtype).expand(9, 40),
    "no leading dimension": lambda dtype: torch.randn(40).to(dtype),
}


def exact(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return linear(x.double(), weight.double(), None if bias is None else bias.double())


def test_the_types_of_a_checkpoint_fit_here() -> None:
    assert dense.fits(torch.float32)
    assert not dense.fits(torch.float64)
    assert not dense.fits(torch.int8)


@settings(deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 100),
    st.integers(1, 100),
    st.sampled_from(DTYPES),
    st.booleans(),
)
def test_it_gives_what_the_plain_layer_gives(
    num_rows: int, num_outputs: int, num_columns: int, dtype: torch.dtype, has_bias: bool
) -> None:
    x, weight = torch.randn(num_rows, num_columns).to(dtype), torch.randn(num_outputs, num_columns).to(dtype)
    bias = torch.randn(num_outputs).to(dtype) if has_bias else None
    got = DenseKernel(weight, Memo())(x, bias)
    assert (got.dtype, got.shape) == (dtype, (num_rows, num_outputs))
    assert distance(got, exact(x, weight, bias)) < MOST[dtype]


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_takes_an_input_however_it_lies_in_memory(name: str, dtype: torch.dtype) -> None:
    x, weight, bias = INPUTS[name](dtype), torch.randn(33, 40).to(dtype), torch.randn(33).to(dtype)
    got = DenseKernel(weight, Memo())(x, bias)
    assert got.shape == (*x.shape[:-1], 33)
    assert distance(got, exact(x, weight, bias)) < MOST[dtype]


def test_a_weight_that_lies_across_is_packed_right() -> None:
    weight, x = torch.randn(40, 33).t(), torch.randn(2, 40)
    assert distance(DenseKernel(weight, Memo())(x), exact(x, weight)) < MOST[torch.float32]


@pytest.mark.parametrize("shape", [(0, 40), (2, 0, 40)])
def test_no_rows_give_no_rows(shape: tuple[int, ...]) -> None:
    assert DenseKernel(torch.randn(33, 40), Memo())(torch.randn(shape)).shape == (*shape[:-1], 33)


def test_the_bias_is_added_before_the_result_is_rounded() -> None:
    weight, x = torch.full((1, 4), 0.25).bfloat16(), torch.full((1, 4), 1.0078125).bfloat16()
    bias = torch.tensor([256.0]).bfloat16()
    assert float(DenseKernel(weight, Memo())(x, bias)) == float(linear(x, weight, bias))


def test_an_activation_of_another_type_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"torch\.float32 meets a weight of torch\.bfloat16"):
        DenseKernel(torch.randn(8, 8).bfloat16(), Memo())(torch.randn(2, 8))


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same(num_threads: int) -> None:
    weight, x = torch.randn(200, 300).bfloat16(), torch.randn(17, 300).bfloat16()
    kernel, before = DenseKernel(weight, Memo()), torch.get_num_threads()
    wanted = kernel(x)
    try:
        torch.set_num_threads(num_threads)
        assert torch.equal(kernel(x), wanted)
    finally:
        torch.set_num_threads(before)


def test_it_has_no_gradient_and_tells_its_bytes() -> None:
    kernel = DenseKernel(torch.randn(16, 8, requires_grad=True), Memo())
    bias = torch.nn.Parameter(torch.randn(16))
    assert not kernel(torch.randn(2, 8, requires_grad=True), bias).requires_grad
    assert kernel.num_bytes == 16 * 8 * 4
