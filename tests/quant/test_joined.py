"""Layers joined in one kernel, against each by itself: whoever calls, in whatever order, with whatever."""

import threading
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from llmctl.quant.activations import Memo
from llmctl.quant.dense import DenseKernel
from llmctl.quant.joined import Joined, PartKernel
from llmctl.quant.kernels import Kernel, build
from llmctl.quant.rounding import round_to
from llmctl.quant.weights import join

SIZES = (48, 16, 33)
FORMS = ("dense", "int8", "int4", "nf4")


class Counted:
    """A kernel that tells how often it ran."""

    title = "counted"
    num_bytes = 97

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.num_runs = kernel, 0

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Run it."""
        self.num_runs += 1
        return self.kernel(x, bias)


def weights() -> list[Tensor]:
    return [torch.randn(size, 64).bfloat16() for size in SIZES]


def joined_of(dense: Sequence[Tensor], form: str = "dense") -> tuple[Joined, Counted]:
    memo = Memo()
    if form == "dense":
        kernel: Kernel = DenseKernel(torch.cat(list(dense)), memo)
    else:
        together = join([round_to(each, form) for each in dense], 0, is_new=False)
        assert together is not None
        kernel = build(together, dtype=torch.bfloat16, memo=memo)
    counted = Counted(kernel)
    return Joined(counted, SIZES, memo), counted


def alone(weight: Tensor, form: str = "dense") -> Kernel:
    if form == "dense":
        return DenseKernel(weight, Memo())
    return build(round_to(weight, form), dtype=torch.bfloat16, memo=Memo())


def close(got: Tensor, wanted: Tensor) -> bool:
    return got.shape == wanted.shape and float((got - wanted).norm()) <= 4e-3 * float(wanted.norm())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_rows", [1, 5, 140])
def test_each_part_is_what_the_layer_gives_by_itself(form: str, num_rows: int) -> None:
    dense, x = weights(), torch.randn(1, num_rows, 64).bfloat16()
    joined, counted = joined_of(dense, form)
    for part, weight in zip(joined.parts(), dense, strict=True):
        assert close(part(x), alone(weight, form)(x))
    assert counted.num_runs == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=12))
def test_no_order_of_calls_inputs_and_changes_makes_a_part_wrong(calls: list[tuple[int, int, bool]]) -> None:
    dense, xs = weights(), [torch.randn(3, 64).bfloat16() for _ in range(3)]
    joined, _ = joined_of(dense)
    parts = joined.parts()
    for index, which, is_changed in calls:
        if is_changed:
            xs[which].mul_(-1)
        got = parts[index](xs[which])
        assert close(got, xs[which] @ dense[index].T)
        # What a layer gave is the caller's, who may write into it.
        got.fill_(float("nan"))


def test_a_layer_called_twice_on_the_same_input_computes_again() -> None:
    dense, x = weights(), torch.randn(3, 64).bfloat16()
    joined, counted = joined_of(dense)
    first, second = joined.parts()[0](x), joined.parts()[0](x)
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert counted.num_runs == 2


def test_equal_numbers_in_another_tensor_are_another_input() -> None:
    dense, x = weights(), torch.randn(3, 64).bfloat16()
    joined, counted = joined_of(dense)
    parts = joined.parts()
    assert torch.equal(parts[0](x)[:, :16], parts[0](x.clone())[:, :16])
    parts[1](x)
    assert counted.num_runs == 3


def biased(joined: Joined, dtype: torch.dtype = torch.bfloat16) -> list[nn.Parameter | None]:
    """Biases that the kernel adds, of all layers but the second."""
    own = [nn.Parameter(torch.randn(size).to(dtype)) for size in SIZES]
    given_ones = [own[0], None, own[2]]
    for bias, taken in zip(given_ones, joined.take_biases(given_ones), strict=True):
        assert (bias is None) == (taken is None)
        if bias is not None and taken is not None:
            assert torch.equal(bias, taken)
            bias.data = taken
    return given_ones


@pytest.mark.parametrize("form", FORMS)
def test_biases_are_added_in_the_one_run(form: str) -> None:
    dense, x = weights(), torch.randn(5, 64).bfloat16()
    joined, counted = joined_of(dense, form)
    biases = biased(joined)
    with torch.no_grad():
        for part, weight, bias in zip(joined.parts(), dense, biases, strict=True):
            assert close(part(x, bias), alone(weight, form)(x, bias))
    assert counted.num_runs == 1


def in_place(bias: nn.Parameter) -> None:
    with torch.no_grad():
        bias.mul_(-3)


def elsewhere(bias: nn.Parameter) -> None:
    bias.data = bias.data * -3


@pytest.mark.parametrize("change", [in_place, elsewhere])
def test_a_bias_that_changed_later_is_added_as_it_is_now(change: Callable[[nn.Parameter], None]) -> None:
    dense, x = weights(), torch.randn(5, 64).bfloat16()
    joined, _ = joined_of(dense)
    biases = biased(joined)
    assert biases[0] is not None
    change(biases[0])
    with torch.no_grad():
        for part, weight, bias in zip(joined.parts(), dense, biases, strict=True):
            assert close(part(x, bias), alone(weight)(x, bias))
            assert close(part(x, torch.ones_like(weight[:, 0])), alone(weight)(x, torch.ones(len(weight))))


def test_biases_of_two_types_stay_with_their_layers() -> None:
    joined, _ = joined_of(weights())
    own = [torch.randn(SIZES[0]), torch.randn(SIZES[1]).bfloat16(), None]
    assert all(a is b for a, b in zip(own, joined.take_biases(own), strict=True))
    assert joined.bias is None


def test_inference_mode_gradients_and_threads_make_no_difference() -> None:
    dense, x = weights(), torch.randn(5, 64).bfloat16()
    joined, _ = joined_of(dense)
    found: list[Tensor] = []

    def run() -> None:
        found.extend(part(x) for part in joined.parts())

    with torch.inference_mode():
        wanted = [part(x.clone()) for part in joined.parts()]
    got = [part(x.clone().requires_grad_()) for part in joined.parts()]
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, each in enumerate([*got, *found]):
        assert torch.equal(each, wanted[index % 3])
        assert not each.requires_grad
    assert len(found) == 9


def test_no_rows_give_no_rows() -> None:
    joined, _ = joined_of(weights())
    assert [part(torch.randn(0, 64).bfloat16()).shape for part in joined.parts()] == [(0, n) for n in SIZES]


def test_parts_tell_their_share_of_the_bytes() -> None:
    joined, _ = joined_of(weights())
    parts: list[PartKernel] = joined.parts()
    assert [part.num_bytes for part in parts] == list(SIZES)
    assert parts[0].title == "counted, one of 3 joined"
