"""4-bit integers in groups on the CPU, in bfloat16: torch's kernel for few rows, C of our own for more.

There is one copy of the weight, in the order of torch's kernel. Without a compiler, and where oneDNN is
faster than C can be, many rows are multiplied by tiles that are dequantised. CPUs that do not multiply
bfloat16 do best with torch's kernel for any number.
"""

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor

from llmctl.core import native
from llmctl.quant import int4_rows
from llmctl.quant.activations import Memo, RowKernel
from llmctl.quant.int4_rows import Packed, Product
from llmctl.quant.tiles import even_step, multiply_tiles
from llmctl.quant.weights import SYMMETRIC_ZERO, IntWeight

GROUP_SIZES = (256, 128, 64, 32)
"""What torch's kernel takes."""
_MANY_ROWS = 128
"""From here dequantising, which costs the same for any number of rows, is faster than the kernel."""
_MANY_ROWS_NATIVE = 40
"""The same where our own code dequantises."""
_SOME_ROWS = 5
"""From here our own code, which dequantises while it multiplies, is faster than the kernel."""
_BLOCK_ROWS = int4_rows.WIDTH
_SOURCE = Path(__file__).with_name("int4.c")
_SCRATCH_ELEMENTS = 5 << 20
"""Of the weight that are dequantised at a time, 5 bytes each. Tiles that fit the cache are slower."""


class Int4Kernel(RowKernel):
    """W is [N, K] as ever; rows are added until torch's blocks are full."""

    title = "4-bit weights, torch int4pack"

    def __init__(self, weight: IntWeight, memo: Memo) -> None:
        """`weight` is one that `fits`."""
        super().__init__(weight.shape, weight.permutation, memo)
        self.group_size = _group_size(weight)
        self.num_padded = -(-self.num_outputs // _BLOCK_ROWS) * _BLOCK_ROWS
        self.packed = _packed(weight, self.num_padded)
        self.scales = _scales(weight, self.group_size, self.num_padded)
        self.zeros = None if weight.zero is None else _zeros(weight, self.group_size, self.num_padded)

    @property
    def num_bytes(self) -> int:
        """Memory of the packed weight, its scales and zero points."""
        parts = (self.packed, self.scales, self.zeros)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def multiply_add(self, rows: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """Rows [M, K] of bfloat16 to [M, N]; our own code adds the bias before it rounds."""
        block, product = block_rows(), _product(len(rows))
        if block is None or product is None:
            return super().multiply_add(rows, x, bias)
        weight = Packed(
            numbers=self.packed,
            scales=self.scales,
            zeros=self.zeros,
            num_outputs=self.num_outputs,
            num_inputs=self.num_inputs,
            group_size=self.group_size,
            block=block,
        )
        return product.multiply(rows, weight, bias)

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] of bfloat16 to [M, N]."""
        block = block_rows()
        many = _MANY_ROWS if native.library(_SOURCE) is None else _MANY_ROWS_NATIVE
        if len(rows) >= many and block is not None and _multiplies_bfloat16():
            step = even_step(self.num_outputs, self.num_inputs, _BLOCK_ROWS, _SCRATCH_ELEMENTS)
            return multiply_tiles(
                rows, self.num_outputs, step, lambda start, stop: self._dense(start, stop, block)
            )
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(  # noqa: SLF001
            rows.contiguous(), self.packed, self.group_size, self.scales
        )
        return out if self.num_padded == self.num_outputs else out[:, : self.num_outputs].contiguous()

    def _dense(self, start: int, stop: int, block: int) -> Tensor:
        """Columns `start` to `stop` of the transposed weight, [K, stop - start], in the scratch."""
        num_columns, half = self.num_inputs, block // 2
        num_wanted, stop = stop - start, -(-stop // _BLOCK_ROWS) * _BLOCK_ROWS
        width = stop - start
        library = native.library(_SOURCE)
        if library is not None:
            dense = self.memo.scratch(num_columns * width, torch.bfloat16, self.packed.device)
            dense = dense.view(num_columns, width)
            self._dequantise(library, dense, block, start, stop)
            return dense[:, :num_wanted]
        bytes_ = self.packed.view(-1, num_columns, half)[start // block : stop // block]
        size, device = num_columns * width, self.packed.device
        integers = self.memo.scratch(size + size // 2, torch.int16, device)
        pairs = integers[size:].view(num_columns, -1, half)
        pairs.copy_(bytes_.transpose(0, 1))
        # The low half of a byte is a row of the first half of the block, the high one a row of the second.
        numbers = integers[:size].view(num_columns, -1, 2, half)
        torch.bitwise_and(pairs, 15, out=numbers[:, :, 0])
        torch.bitwise_right_shift(pairs, 4, out=numbers[:, :, 1])
        groups = (-1, self.group_size, width)
        if self.zeros is None:
            numbers.sub_(SYMMETRIC_ZERO[4])
        else:
            numbers.view(groups).sub_(self.zeros[:, None, start:stop].to(torch.int16))
        dense = self.memo.scratch(size, torch.bfloat16, device).view(num_columns, width)
        dense.copy_(numbers.view(num_columns, width))
        dense.view(groups).mul_(self.scales[:, None, start:stop, 0].contiguous())
        return dense[:, :num_wanted]

    def _dequantise(self, library: ctypes.CDLL, dense: Tensor, block: int, start: int, stop: int) -> None:
        tensors = [self.packed, self.scales, self.zeros, dense]
        pointers = [ctypes.c_void_p(each.data_ptr() if each is not None else None) for each in tensors]
        sizes = (self.num_padded, self.num_inputs, self.group_size, block, start, stop)
        library.llmctl_int4_dense(*pointers, *map(ctypes.c_int64, sizes))


def _product(num_rows: int) -> Product | None:
    """Our own code, where it is the fastest way for so many rows."""
    found = int4_rows.compiled() if num_rows >= _SOME_ROWS else None
    return None if found is None or (found.has_matrices and num_rows >= _MANY_ROWS_NATIVE) else found


def _multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for it, without which torch's kernel is faster than any tile."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)())


def fits(weight: IntWeight) -> bool:
    """Whether torch's kernel has a group size for it."""
    return weight.bits == 4 and _group_size(weight) > 0


def _group_size(weight: IntWeight) -> int:
    """The largest one of torch's that divides the weight's own; 0 where none does."""
    return next((size for size in GROUP_SIZES if weight.group_size % size == 0), 0)


def _packed(weight: IntWeight, num_padded: int) -> Tensor:
    numbers = torch.full((num_padded, weight.shape[-1]), SYMMETRIC_ZERO[4], dtype=torch.int32)
    numbers[: weight.shape[0]] = weight.numbers()
    return _convert(numbers)


def _convert(numbers: Tensor) -> Tensor:
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1)  # noqa: SLF001
    return packed.view(torch.uint8)


def _scales(weight: IntWeight, group_size: int, num_padded: int) -> Tensor:
    """bfloat16 [K / group size, N, 2]: scale, and what other zero points than the symmetric one add."""
    scale = weight.scale
    zero = torch.zeros_like(scale) if weight.zero is None else (SYMMETRIC_ZERO[4] - weight.zero) * scale
    both = _by_group(torch.stack((scale, zero)), weight.group_size // group_size, num_padded)
    return both.bfloat16().permute(1, 2, 0).contiguous()


def _zeros(weight: IntWeight, group_size: int, num_padded: int) -> Tensor:
    """int8 [K / group size, N]; the kernel has them in its scales, but rounded together with these."""
    assert weight.zero is not None
    return _by_group(weight.zero.to(torch.int8), weight.group_size // group_size, num_padded)


def _by_group(rows: Tensor, num_repeats: int, num_padded: int) -> Tensor:
    """[..., N, G] as [..., G * num_repeats, num_padded]."""
    repeated = rows.repeat_interleave(num_repeats, -1).transpose(-1, -2)
    return torch.nn.functional.pad(repeated, (0, num_padded - rows.shape[-2])).contiguous()


@functools.cache
def block_rows() -> int | None:
    """Rows that torch lays side by side when it packs on this CPU, by trial; None: it does something else."""
    numbers = torch.arange(128 * 32, dtype=torch.int32).mul_(7).remainder_(31).remainder_(16).view(128, 32)
    packed = _convert(numbers).flatten()
    for block in (64, 32):
        low, high = numbers.to(torch.uint8).view(-1, 2, block // 2, 32).transpose(2, 3).unbind(1)
        if torch.equal(packed, (low | high << 4).flatten()):
            return block
    return None
