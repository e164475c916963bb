"""The table of paths, and what holds for every kernel: shapes, sharing, modes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from llmctl.quant import coded, cpu_int4, cpu_int8
from llmctl.quant.activations import Memo, RowKernel
from llmctl.quant.kernels import PATHS, build
from llmctl.quant.tiles import TileKernel
from llmctl.quant.weights import QuantWeight
from tests.quant.made import coded_weight, distance, int_weight, reference

WEIGHTS: dict[str, QuantWeight] = {
    "int8": int_weight(8, 40, 192),
    "int8, act-order": int_weight(8, 40, 192, is_permuted=True),
    "int8 in groups": int_weight(8, 40, 192, group_size=64),
    "int4": int_weight(4, 40, 192, group_size=64, has_zero=True),
    "int4, act-order": int_weight(4, 40, 192, group_size=64, is_permuted=True),
    "int4, odd groups": int_weight(4, 40, 192, group_size=48),
    "nf4": coded_weight(40, 192),
    "fp4": coded_weight(40, 192, kind="fp4"),
    "own codes": coded_weight(40, 192, table=torch.linspace(-1, 1, 16)),
}
FLOATS = [torch.bfloat16, torch.float16, torch.float32]


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (0,), (2, 0), (1, 1, 70), (130,)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_every_kernel_takes_activations_of_every_shape(
    name: str, dtype: torch.dtype, shape: tuple[int, ...], has_bias: bool
) -> None:
    weight = WEIGHTS[name]
    x = torch.randn(*shape, 192).to(dtype)
    bias = torch.randn(40).to(dtype) if has_bias else None
    got = build(weight, dtype=dtype, memo=Memo())(x, bias)
    assert got.shape == (*shape, 40)
    assert got.dtype == dtype
    assert got.is_contiguous()
    assert distance(got, reference(weight, x, bias)) < 0.04


@pytest.mark.parametrize("name", WEIGHTS)
def test_activations_need_not_be_contiguous(name: str) -> None:
    kernel = build(WEIGHTS[name], dtype=torch.bfloat16, memo=Memo())
    x = torch.randn(3, 7, 400).bfloat16()[..., 8:392:2].transpose(0, 1)
    assert torch.equal(kernel(x), kernel(x.contiguous()))


KINDS: list[tuple[str, torch.dtype, type[RowKernel]]] = [
    ("int8", torch.bfloat16, cpu_int8.Int8Kernel),
    ("int8, act-order", torch.float32, cpu_int8.Int8Kernel),
    ("int8 in groups", torch.bfloat16, TileKernel),
    ("int4", torch.bfloat16, cpu_int4.Int4Kernel),
    ("int4", torch.float32, TileKernel),
    ("int4, odd groups", torch.bfloat16, TileKernel),
    ("own codes", torch.bfloat16, TileKernel),
    ("nf4", torch.float32, coded.CodedKernel),
]


@pytest.mark.parametrize(("name", "dtype", "kind"), KINDS)
def test_a_weight_gets_the_fastest_path_that_takes_it(
    name: str, dtype: torch.dtype, kind: type[RowKernel]
) -> None:
    if kind is coded.CodedKernel and not coded.is_native():
        pytest.skip("bitsandbytes has no native library here")
    if kind is cpu_int8.Int8Kernel and cpu_int8.way() is None:
        pytest.skip("oneDNN has no integers here")
    assert type(build(WEIGHTS[name], dtype=dtype, memo=Memo())) is kind


@pytest.mark.skipif(not coded.has_packed(), reason="this CPU has no AVX-512 for bfloat16")
def test_codes_are_packed_where_the_cpu_multiplies_them() -> None:
    assert type(build(WEIGHTS["nf4"], dtype=torch.bfloat16, memo=Memo())) is coded.PackedKernel


def test_without_onednn_8_bit_weights_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_int8, "way", lambda: None)
    assert type(build(WEIGHTS["int8"], dtype=torch.bfloat16, memo=Memo())) is TileKernel


def test_the_last_path_takes_anything_anywhere() -> None:
    assert PATHS[-1].device is None
    assert PATHS[-1].dtypes >= set(FLOATS)


def test_a_stack_of_experts_and_an_integer_activation_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3, 8\]"):
        build(
            coded_weight(6, 8, block_size=8).__class__(
                kind="nf4",
                codes=torch.zeros(24, dtype=torch.uint8),
                absmax=torch.ones(6),
                table=torch.zeros(16),
                block_size=8,
                shape=(2, 3, 8),
            ),
            dtype=torch.float32,
            memo=Memo(),
        )
    with pytest.raises(ValueError, match="int32"):
        build(WEIGHTS["int8"], dtype=torch.int32, memo=Memo())


@pytest.mark.parametrize("name", WEIGHTS)
def test_inference_mode_no_grad_and_grad_give_the_same_in_any_order(name: str) -> None:
    kernel = build(WEIGHTS[name], dtype=torch.bfloat16, memo=Memo())
    x, bias = torch.randn(140, 192).bfloat16(), torch.nn.Parameter(torch.randn(40).bfloat16())
    with torch.inference_mode():
        inside = kernel(x.clone(), bias)
    with torch.no_grad():
        wanted = kernel(x, bias)
    outside = kernel(x.clone().requires_grad_(), bias)
    assert torch.equal(inside, wanted)
    assert torch.equal(outside, wanted)
    assert not outside.requires_grad


@pytest.mark.parametrize("name", WEIGHTS)
def test_bytes_are_about_those_of_the_weight(name: str) -> None:
    weight = WEIGHTS[name]
    kernel = build(weight, dtype=torch.bfloat16, memo=Memo())
    # 40 rows are filled up to 64 for the blocks of some kernels.
    assert 0.5 * weight.num_bytes < kernel.num_bytes < 1.7 * weight.num_bytes
    assert kernel.title


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="these are its settings"
)
def test_an_older_cpu_is_found_out_and_served_right() -> None:
    program = """
import torch
from llmctl.quant import cpu_int4, cpu_int8
from llmctl.quant.kernels import Memo, build
from tests.quant.made import distance, int_weight, reference

x = torch.rand(140, 256).bfloat16()
print(cpu_int4.block_rows(), cpu_int8.way())
for weight in (int_weight(4, 100, 256, group_size=64, has_zero=True), int_weight(8, 100, 256)):
    kernel = build(weight, dtype=x.dtype, memo=Memo())
    print(*(distance(kernel(part), reference(weight, part)) < 0.04 for part in (x, x[:2])))
"""
    # One without AVX-512, and without the instructions that add products of 8 bits in 32.
    older = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **older},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.stdout == "32 narrow\nTrue True\nTrue True\n", ended.stderr


# Sharing


class Counted(Memo):
    """Counts what is made, and what is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.num_made = 0

    def made(self, x: Tensor, key: object, make: object) -> object:
        def counted() -> object:
            self.num_made += 1
            return make()  # type: ignore[operator]

        return super().made(x, key, counted)


def test_kernels_of_one_activation_quantise_it_once() -> None:
    memo = Counted()
    kernels = [build(int_weight(8, 8, 64), dtype=torch.bfloat16, memo=memo) for _ in range(3)]
    x = torch.randn(4, 64).bfloat16()
    for kernel in kernels:
        kernel(x)
    assert memo.num_made == 1
    kernels[0](x.clone())
    assert memo.num_made == 2


def test_equal_orders_of_inputs_are_applied_once_and_others_again() -> None:
    memo = Counted()
    first = int_weight(8, 8, 64, is_permuted=True)
    other = int_weight(8, 8, 64, is_permuted=True)
    assert first.permutation is not None
    weights = [first, first.to(torch.device("cpu")), other]
    weights[1].values.neg_()
    same = int_weight(8, 8, 64)
    same = type(same)(bits=8, values=same.values, scale=same.scale, permutation=first.permutation.clone())
    x = torch.randn(4, 64).bfloat16()
    for weight, num_made in ((first, 2), (same, 2), (other, 4)):
        assert distance(build(weight, dtype=x.dtype, memo=memo)(x), reference(weight, x)) < 0.03
        assert memo.num_made == num_made


def test_an_activation_that_changed_in_place_is_quantised_again() -> None:
    kernel = build(WEIGHTS["int8"], dtype=torch.float32, memo=Memo())
    x = torch.randn(4, 192)
    before = kernel(x).clone()
    x.mul_(-1)
    # A number in the middle of two is rounded to the same side, whatever its sign.
    torch.testing.assert_close(kernel(x), -before, rtol=0, atol=0.01 * float(before.abs().max()))


def test_in_inference_mode_a_change_in_place_is_seen_too() -> None:
    kernel = build(WEIGHTS["int8"], dtype=torch.float32, memo=Memo())
    with torch.inference_mode():
        x = torch.randn(4, 192)
        before = kernel(x).clone()
        x.mul_(-1)
        torch.testing.assert_close(kernel(x), -before, rtol=0, atol=0.01 * float(before.abs().max()))


def scratch(memo: Memo) -> Tensor:
    return memo.scratch(8, torch.int32, torch.device("cpu")).zero_()


def test_threads_do_not_share_scratch_or_activations() -> None:
    memo = Memo()
    kernel = build(int_weight(4, 320, 256, group_size=64), dtype=torch.bfloat16, memo=memo)
    x = torch.randn(130, 256).bfloat16()
    found: list[Tensor] = []

    def work() -> None:
        found.extend((kernel(x), scratch(memo), memo.made(x, "key", lambda: torch.zeros(1))))

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for own, other in zip(found[:3], found[3:], strict=True):
        assert torch.equal(own, other)
        assert own.data_ptr() != other.data_ptr()
    assert scratch(memo).data_ptr() == found[1].data_ptr()
