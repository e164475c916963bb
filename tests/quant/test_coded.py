"""nf4 and fp4 through bitsandbytes' native functions."""

import copy
import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmctl.quant import coded, tiles
from llmctl.quant.activations import Memo
from llmctl.quant.weights import CodedWeight
from tests.quant.made import BF16_STEP, bfloat16_steps, coded_weight, distance, reference

needs_native = pytest.mark.skipif(not coded.is_native(), reason="bitsandbytes has no native library here")
needs_packed = pytest.mark.skipif(not coded.has_packed(), reason="this CPU has no AVX-512 for bfloat16")


@needs_packed
@given(
    st.integers(1, 70),
    st.integers(1, 100),
    st.sampled_from([(64, 64), (128, 64), (320, 64), (128, 128), (64, 32)]),
    st.sampled_from(["nf4", "fp4"]),
)
def test_packed_codes_are_as_near_as_bfloat16_is(
    num_rows: int, num_outputs: int, columns: tuple[int, int], kind: str
) -> None:
    weight = coded_weight(num_outputs, columns[0], kind=kind, block_size=columns[1])
    x, bias = torch.randn(num_rows, columns[0]).bfloat16(), torch.randn(num_outputs).bfloat16()
    got = coded.PackedKernel(weight, Memo())(x, bias)
    assert got.shape == (num_rows, num_outputs)
    # The scales, the codes' numbers and the sum are each rounded once.
    assert bfloat16_steps(got, weight, x, bias) < 2


@needs_native
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("tile", [1, 1000, 1 << 20])
def test_native_dequantising_gives_what_the_dense_weight_gives(
    kind: str, dtype: torch.dtype, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE_ELEMENTS", tile)
    weight = coded_weight(37, 128, kind=kind)
    x = torch.randn(2, 5, 128).to(dtype)
    got = coded.CodedKernel(weight, Memo())(x)
    error = {torch.bfloat16: BF16_STEP, torch.float16: BF16_STEP / 8, torch.float32: 1e-6}[dtype]
    assert got.dtype == dtype
    assert distance(got, reference(weight, x)) < error


@needs_native
def test_the_packed_order_is_that_of_bitsandbytes() -> None:
    functional = coded._library("bitsandbytes.functional")
    codes, state = functional.quantize_4bit(torch.randn(96, 128), blocksize=64, quant_type="nf4")
    packed, packed_state = functional._convert_weight_packed_for_cpu(codes.clone(), copy.copy(state))
    assert torch.equal(coded.pack(codes.view(96, 64)), packed)
    weight = coded_weight(96, 128)
    kernel = coded.PackedKernel(weight, Memo())
    assert kernel.absmax.shape == packed_state.absmax.shape


@needs_packed
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("num_outputs", [32, 50, 128])
@pytest.mark.parametrize("scratch", [1 << 12, 1 << 20])
def test_many_rows_are_as_near_out_of_the_same_bytes(
    kind: str, num_outputs: int, scratch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coded, "_SCRATCH_ELEMENTS", scratch)
    weight = coded_weight(num_outputs, 192, kind=kind)
    x, bias = torch.randn(300, 192).bfloat16(), torch.randn(num_outputs).bfloat16()
    kernel = coded.PackedKernel(weight, Memo())
    assert bfloat16_steps(kernel(x, bias), weight, x, bias) < 2
    assert bfloat16_steps(kernel(x[:2], bias), weight, x[:2], bias) < 2


@given(st.sampled_from([32, 64, 160]), st.integers(1, 40))
def test_unpacking_is_the_inverse_of_packing(num_rows: int, width: int) -> None:
    codes = torch.randint(0, 256, (num_rows, width)).to(torch.uint8)
    scratch, back = torch.empty(codes.numel() * 3 // 2, dtype=torch.int16), torch.empty_like(codes)
    coded.unpack(coded.pack(codes), scratch, back)
    assert torch.equal(back, codes)


@needs_packed
def test_a_call_changes_nothing_of_the_weight() -> None:
    weight = coded_weight(64, 128)
    before = weight.dequantize()
    kernel = coded.PackedKernel(weight, Memo())
    x = torch.randn(4, 128).bfloat16()
    first = kernel(x)
    assert torch.equal(kernel(x), first)
    assert torch.equal(weight.dequantize(), before)


@pytest.mark.parametrize(
    "weight",
    [
        coded_weight(8, 96, block_size=64),
        coded_weight(8, 64, table=torch.linspace(-1, 1, 16)),
        coded_weight(2, 4096, block_size=4096),
    ],
    ids=["blocks over rows", "a table of its own", "long blocks"],
)
def test_what_the_native_code_would_get_wrong_is_left_to_other_paths(weight: CodedWeight) -> None:
    assert not coded.fits(weight)
    assert not coded.fits_packed(weight)


def test_importing_bitsandbytes_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    with caplog.at_level(logging.WARNING):
        coded._library("bitsandbytes.functional")
    assert caplog.records == []
    assert log.level == level


def test_a_library_that_does_not_import_is_none() -> None:
    assert coded._library("bitsandbytes.no_such_module") is None
