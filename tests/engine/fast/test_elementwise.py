"""The C functions against the tensor operations that they stand for."""

from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import gelu, silu

from llmctl.engine.fast import elementwise
from llmctl.engine.fast.elementwise import Activation, Form

pytestmark = pytest.mark.skipif(elementwise.library() is None, reason="there is no C compiler")

DTYPES = [torch.float32, torch.bfloat16]
NORMS: Mapping[Form, Callable[[Tensor, Tensor], Tensor]] = {
    "after": lambda x, w: w * normed(x).to(x.dtype),
    "before": lambda x, w: (w * normed(x)).to(x.dtype),
    "one more": lambda x, w: (normed(x) * (1.0 + w.float())).to(x.dtype),
}
# In double, for torch's own in float32 lose what they subtract from one.
GATES: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: silu(x.double()).to(x.dtype),
    "gelu tanh": lambda x: gelu(x.double(), approximate="tanh").to(x.dtype),
}
EPS = 1e-6


def normed(x: Tensor) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)


def assert_same(got: Tensor, wanted: Tensor) -> None:
    """Equal but for what another order of adding up may do."""
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    if got.dtype == torch.float32:
        assert torch.allclose(got, wanted, rtol=5e-6, atol=1e-7)
        return
    assert torch.allclose(got.float(), wanted.float(), rtol=2**-6, atol=1e-7)
    is_other = (got.float() - wanted.float()).abs() > 1e-7
    assert int(is_other.sum()) <= 1 + 0.01 * got.numel()


@settings(deadline=None)
@given(
    st.sampled_from(list(NORMS)),
    st.sampled_from(DTYPES),
    st.tuples(st.integers(1, 40), st.integers(1, 150)),
    st.sampled_from([1e-4, 1.0, 300.0]),
)
def test_a_norm_is_what_tensors_give(
    form: Form, dtype: torch.dtype, shape: tuple[int, int], size: float
) -> None:
    x, weight = (torch.randn(shape) * size).to(dtype), torch.randn(shape[1]).to(dtype)
    assert_same(elementwise.rms_norm(x, weight, EPS, form), NORMS[form](x, weight))


@settings(deadline=None)
@given(
    st.sampled_from(list(GATES)),
    st.sampled_from(DTYPES),
    st.tuples(st.integers(1, 40), st.integers(1, 150)),
    st.sampled_from([0.1, 1.0, 30.0]),
)
def test_a_gate_is_what_tensors_give(
    name: Activation, dtype: torch.dtype, shape: tuple[int, int], size: float
) -> None:
    gate, up = (torch.randn(shape) * size).to(dtype), torch.randn(shape).to(dtype)
    got, wanted = elementwise.gated(gate, up, name), GATES[name](gate) * up
    assert_same(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(70, 5000), (1, 70000)])
def test_many_numbers_are_shared_out_to_threads(shape: tuple[int, int], dtype: torch.dtype) -> None:
    gate, up = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    assert_same(elementwise.gated(gate, up, "silu"), GATES["silu"](gate) * up)
    assert_same(elementwise.rms_norm(gate, up[0], EPS, "after"), NORMS["after"](gate, up[0]))


INPUTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "part of wider rows": lambda x: x[..., 20:60],
    "heads of wider rows": lambda x: x[..., :80].view(2, 3, 2, 40),
    "heads before rows": lambda x: x[..., :80].view(2, 3, 2, 40).transpose(1, 2),
    "heads before one row": lambda x: x[:1, :1].reshape(1, 1, 4, 25).transpose(1, 2),
    "heads before one wider row": lambda x: x[:1, :1, :80].view(1, 1, 2, 40).transpose(1, 2),
    "every second number": lambda x: x[..., ::2],
    "the other way round": lambda x: x.transpose(0, 2),
    "one row for all": lambda x: x[:1, :1].expand(4, 3, 100),
    "one row": lambda x: x[0, 0],
    "no row": lambda x: x[:0],
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_may_lie_anyhow_in_memory(name: str, dtype: torch.dtype) -> None:
    x, up = (INPUTS[name](torch.randn(2, 3, 100).to(dtype)) for _ in range(2))
    weight = torch.randn(2 * x.shape[-1]).to(dtype)[::2]
    assert_same(elementwise.rms_norm(x, weight, EPS, "before"), NORMS["before"](x, weight))
    assert_same(elementwise.gated(x, up, "silu"), GATES["silu"](x) * up)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_shows(dtype: torch.dtype) -> None:
    x, one = torch.randn(2, 40).to(dtype), torch.ones(40).to(dtype)
    x[1, 7] = float("nan")
    for got in (elementwise.rms_norm(x, one, EPS, "after"), elementwise.gated(x, one.expand(2, 40), "silu")):
        assert bool(got[0].isfinite().all())
        assert bool(got[1, 7].isnan())


def test_extremes_of_a_gate_neither_overflow_nor_lose_their_sign() -> None:
    x = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
    for name, wanted in GATES.items():
        got = elementwise.gated(x, torch.ones(7), name)
        assert torch.allclose(got, wanted(x), atol=1e-6)


def test_gradients_and_other_types_are_left_to_torch() -> None:
    x = torch.randn(2, 8)
    with torch.no_grad():
        assert elementwise.takes(x)
        assert not elementwise.takes(x.half())
        assert not elementwise.takes(x.to("meta"))
    assert not elementwise.takes(x)
