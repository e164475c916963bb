"""nf4 and fp4 on the CPU by bitsandbytes' native functions, on tensors of our own.

Its modules are not used: they repack a weight in place, and corrupt it when it is saved later.
"""

import functools
import importlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llmctl.quant.activations import Memo, RowKernel
from llmctl.quant.tiles import cut_codes, even_step, multiply_tiles, tile_rows
from llmctl.quant.weights import CodedWeight

# https://github.com/bitsandbytes-foundation/bitsandbytes: the codes' numbers, in the order of the codes.
TABLES: Mapping[str, tuple[float, ...]] = {
    "nf4": (
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ),
    "fp4": (
        0.0,
        0.0052083334885537624,
        0.6666666865348816,
        1.0,
        0.3333333432674408,
        0.5,
        0.1666666716337204,
        0.25,
        0.0,
        -0.0052083334885537624,
        -0.6666666865348816,
        -1.0,
        -0.3333333432674408,
        -0.5,
        -0.1666666716337204,
        -0.25,
    ),
}
_BLOCK_ROWS = 32
"""Rows that bitsandbytes' packed form lays side by side."""
_MANY_ROWS = 256
"""From here unpacking and dequantising, which costs the same for any number of rows, is faster."""
_SCRATCH_ELEMENTS = 5 << 20
"""Of the weight that are unpacked at a time; with what is made of them 4 bytes each."""
_MAX_BLOCK_SIZE = 1024
"""bitsandbytes itself leaves its native code for larger ones."""


class PackedKernel(RowKernel):
    """Any number of rows against bitsandbytes' packed form; rows are added until its blocks are full."""

    title = "4-bit codes, bitsandbytes gemv"

    def __init__(self, weight: CodedWeight, memo: Memo) -> None:
        """`weight` is one that `fits_packed`."""
        num_outputs, num_inputs = weight.shape
        super().__init__((num_outputs, num_inputs), None, memo)
        self.kind, self.table, self.block_size = weight.kind, weight.table, weight.block_size
        self.num_padded = -(-num_outputs // _BLOCK_ROWS) * _BLOCK_ROWS
        missing = self.num_padded - num_outputs
        codes = torch.nn.functional.pad(weight.codes.view(num_outputs, -1), (0, 0, 0, missing))
        absmax = torch.nn.functional.pad(weight.absmax.view(num_outputs, -1), (0, 0, 0, missing))
        self.packed = pack(codes)
        self.absmax = absmax.t().bfloat16().contiguous()

    @property
    def num_bytes(self) -> int:
        """Memory of codes and scales."""
        return self.packed.numel() + self.absmax.numel() * self.absmax.element_size()

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] of bfloat16 to [M, N]."""
        shape = (self.num_padded, self.num_inputs)
        if len(rows) >= _MANY_ROWS:
            step = even_step(self.num_outputs, self.num_inputs, _BLOCK_ROWS, _SCRATCH_ELEMENTS)
            return multiply_tiles(rows, self.num_outputs, step, self._dense)
        out: Tensor = torch.ops.bitsandbytes.gemv_4bit(
            rows.contiguous(), self.packed, shape, self.absmax, self.table, self.block_size
        )
        return out if self.num_padded == self.num_outputs else out[:, : self.num_outputs].contiguous()

    def _dense(self, start: int, stop: int) -> Tensor:
        """Columns `start` to `stop` of the transposed weight, [K, stop - start], in bfloat16."""
        num_wanted, stop = stop - start, -(-stop // _BLOCK_ROWS) * _BLOCK_ROWS
        packed = self.packed[start:stop]
        codes = self.memo.scratch(packed.numel(), torch.uint8, packed.device)
        unpack(packed, self.memo.scratch(packed.numel() * 3 // 2, torch.int16, packed.device), codes)
        absmax = self.absmax[:, start:stop].t().float().contiguous()
        dense: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
            codes, absmax, self.block_size, self.kind, (stop - start, self.num_inputs), torch.bfloat16
        )
        return dense[:num_wanted].t()


class CodedKernel(RowKernel):
    """Dequantises tile by tile with native code; the way for CPUs and dtypes without a packed kernel."""

    title = "4-bit codes, dequantised tile by tile by bitsandbytes"

    def __init__(self, weight: CodedWeight, memo: Memo) -> None:
        """`weight` is one that `fits`."""
        num_outputs, num_inputs = weight.shape
        super().__init__((num_outputs, num_inputs), None, memo)
        self.weight = weight

    @property
    def num_bytes(self) -> int:
        """Memory of codes and scales."""
        return self.weight.num_bytes

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] to [M, N]."""
        return multiply_tiles(
            rows,
            self.num_outputs,
            tile_rows(self.weight),
            lambda start, stop: self._dense(start, stop, rows.dtype),
        )

    def _dense(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        part = cut_codes(self.weight, start, stop)
        dense: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
            part.codes, part.absmax, part.block_size, part.kind, part.shape, dtype
        )
        return dense.t()


def pack(codes: Tensor) -> Tensor:
    """Codes [N, K / 2] as `CodedWeight` has them, N a multiple of 32, in bitsandbytes' order for AVX-512."""
    num_rows, width = codes.shape
    numbers = torch.stack((codes >> 4, codes & 15), -1).view(-1, _BLOCK_ROWS, width, 2).transpose(1, 2)
    low, high = numbers.reshape(-1, 2, _BLOCK_ROWS).unbind(1)
    return (low | high << 4).view(num_rows, width)


def unpack(packed: Tensor, scratch: Tensor, codes: Tensor) -> None:
    """The inverse of `pack`, flat into `codes`; `scratch` is int16, three halves of the packed bytes."""
    width = packed.shape[1]
    size = packed.numel() // 2
    # A word has two neighbouring codes of one row in its low halves of bytes, of another in the high ones.
    words = scratch[:size].view(-1, _BLOCK_ROWS // 2, width)
    words.copy_(packed.view(-1).view(torch.int16).view(-1, width, _BLOCK_ROWS // 2).transpose(1, 2))
    pairs = scratch[size : 3 * size].view(-1, 2, _BLOCK_ROWS // 2, width)
    torch.bitwise_and(words, 0x0F0F, out=pairs[:, 0])
    torch.bitwise_and(words.bitwise_right_shift_(4), 0x0F0F, out=pairs[:, 1])
    # The second code stays in the upper byte, and the first comes to stand above it.
    pairs.mul_(0x1001)
    codes.view(-1).copy_(pairs.view(torch.uint8).view(-1, 2)[:, 1])


def fits(weight: CodedWeight) -> bool:
    """Whether bitsandbytes has native code to dequantise it."""
    return (
        weight.kind in TABLES
        and weight.shape[-1] % weight.block_size == 0
        and weight.block_size <= _MAX_BLOCK_SIZE
        and torch.equal(weight.table.cpu(), torch.tensor(TABLES[weight.kind]))
        and is_native()
    )


def fits_packed(weight: CodedWeight) -> bool:
    """Whether bitsandbytes has native code that multiplies with it."""
    return fits(weight) and has_packed()


@functools.cache
def is_native() -> bool:
    """Whether bitsandbytes is there with its native library."""
    library = _library("bitsandbytes.cextension")
    return library is not None and not isinstance(library.lib, library.ErrorHandlerMockBNBNativeLibrary)


@functools.cache
def has_packed() -> bool:
    """Whether this CPU has the instructions that bitsandbytes' packed kernels are written for."""
    library = _library("bitsandbytes.functional")
    return is_native() and library is not None and bool(library.has_avx512bf16())


def _library(module: str) -> Any:
    """A module of bitsandbytes, None where it does not import."""
    # It warns that a package of more kernels is absent, which it is by choice.
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError):
        return None
    finally:
        log.setLevel(level)
