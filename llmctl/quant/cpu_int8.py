"""8-bit weights, one scale a row, on the CPU: activations are quantised too and oneDNN multiplies integers.

At every number of rows this beats bfloat16 and torch's own kernel for 8-bit weights alone.
"""

import functools

import torch
from torch import Tensor

from llmctl.quant import rows8
from llmctl.quant.activations import Memo, RowKernel
from llmctl.quant.weights import IntWeight


class Int8Kernel(RowKernel):
    """y = (x in 8 bits) @ (W in 8 bits), in x's precision from there on."""

    title = "8-bit weights and activations, oneDNN"

    def __init__(self, weight: IntWeight, memo: Memo, *, is_narrow: bool | None = None) -> None:
        """`weight` is one that `symmetric` gives; `is_narrow` None: as this CPU needs it."""
        super().__init__(weight.shape, weight.permutation, memo)
        self.is_narrow = way() == "narrow" if is_narrow is None else is_narrow
        self.packed = torch.ops.onednn.qlinear_prepack(weight.values, None)
        self.scale = weight.scale.flatten().contiguous()
        self.zeros = torch.zeros(self.num_outputs, dtype=torch.int32)

    @property
    def num_bytes(self) -> int:
        """Memory of weight, scales and zeros."""
        return self.num_outputs * (self.num_inputs + 8)

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] to [M, N]."""
        return self.multiply_add(rows, x, None)

    def multiply_add(self, rows: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """The same with the bias added, where that can be done in one go with the rows' scales."""
        quantised = self.quantised(rows, x, is_narrow=self.is_narrow)
        scale, zero = quantised.scale, quantised.zero
        out = _multiply(quantised.numbers, zero, self.packed, (self.scale, self.zeros), scale.dtype)
        if rows.dtype == scale.dtype and rows8.takes(out):
            rows8.scale(out, scale, bias)
            return out
        out = out.mul_(scale).to(rows.dtype)
        return out if bias is None else out.add_(bias)


def symmetric(weight: IntWeight) -> IntWeight | None:
    """The weight [N, K] as 8 bits without zero points, one scale a row; None where that cannot say it."""
    if weight.bits != 8 or weight.scale.shape[-1] != 1:
        return None
    if weight.zero is None:
        return weight
    numbers = weight.values.to(torch.int16).sub_(weight.zero)
    if int(numbers.amin()) < -128 or int(numbers.amax()) > 127:
        return None
    return IntWeight(
        bits=8, values=numbers.to(torch.int8), scale=weight.scale, permutation=weight.permutation
    )


@functools.cache
def way() -> str | None:
    """How oneDNN's integers can be trusted here: "wide", with all 8 bits; "narrow", with 7; None: not at all.

    CPUs without VNNI add products of two pairs in 16 bits, which 8 bits can overflow.
    """
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return None
    try:
        return next((name for name, largest in (("wide", 127), ("narrow", 63)) if _is_exact(largest)), None)
    except RuntimeError:
        # Built without what it needs on this machine.
        return None


def _is_exact(largest: int) -> bool:
    """Whether the largest activations and weights are multiplied without overflow, for one row and many."""
    num_columns, num_outputs = 256, 64
    sign = torch.tensor([1, -1]).repeat_interleave(num_outputs // 2)
    weight = (127 * sign).to(torch.int8)[:, None].repeat(1, num_columns)
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    scales = (torch.ones(num_outputs), torch.zeros(num_outputs, dtype=torch.int32))
    wanted = (127.0 * largest * num_columns) * sign
    rows = torch.full((64, num_columns), 2 * largest + 1, dtype=torch.uint8)
    return all(
        torch.equal(_multiply(part, largest + 1, packed, scales, torch.float32), wanted.expand(len(part), -1))
        for part in (rows, rows[:1])
    )


def _multiply(
    numbers: Tensor, zero: int, packed: Tensor, scales: tuple[Tensor, Tensor], dtype: torch.dtype
) -> Tensor:
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        numbers, 1.0, zero, packed, *scales, None, 1.0, 0, dtype, "none", [], ""
    )
    return out
