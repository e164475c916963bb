"""Weights that are not quantised, on the CPU, in the order of oneDNN's kernels.

torch brings a plain weight into that order anew in each call, which takes longer than multiplying a few rows.
"""

import functools

import torch
from torch import Tensor

from llmctl.quant.activations import Memo, RowKernel

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_TRIAL_ERROR = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 2e-2}


class DenseKernel(RowKernel):
    """y = x W^T + bias, rounded as often as nn.Linear does."""

    title = "dense weights, oneDNN"

    def __init__(self, weight: Tensor, memo: Memo) -> None:
        """`weight` [N, K], of a type that `fits`; it may be given up afterwards."""
        super().__init__(tuple(weight.shape), None, memo)
        self.dtype = weight.dtype
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)  # noqa: SLF001

    @property
    def num_bytes(self) -> int:
        """Memory of the packed weight, without what fills up its last blocks."""
        return self.num_outputs * self.num_inputs * self.dtype.itemsize

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] of the weight's type to [M, N]."""
        return self.multiply_add(rows, x, None)

    def multiply_add(self, rows: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """The same with the bias added before the result is rounded."""
        if rows.dtype != self.dtype:
            raise RuntimeError(f"an activation of {rows.dtype} meets a weight of {self.dtype}")
        return _multiply(rows, self.packed, bias)


@functools.cache
def fits(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies numbers of this type here, by trial."""
    if dtype not in _DTYPES or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    generator = torch.Generator().manual_seed(0)
    weight, rows = (torch.randn(size, 96, generator=generator).to(dtype) for size in (80, 5))
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # noqa: SLF001
        got = [_multiply(part, packed, None).double() for part in (rows, rows[:1])]
    except RuntimeError:
        # Built without oneDNN, or for a CPU without instructions for the type.
        return False
    wanted = rows.double() @ weight.double().T
    return all(
        float((each - wanted[: len(each)]).norm() / wanted.norm()) < _TRIAL_ERROR[dtype] for each in got
    )


def _multiply(rows: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")  # noqa: SLF001
    return out
