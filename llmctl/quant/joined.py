"""Layers that multiply one tensor, as one kernel over the rows of all: q, k and v, gate and up, and the like.

The modules stay what they are. Whichever is called first computes for all; the others find their part in the
memo as long as they are called on the very same unchanged tensor, and compute for themselves where not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmctl.quant.activations import Memo, Unchanging
from llmctl.quant.kernels import Kernel


class Joined:
    """A kernel whose outputs belong to several layers, side by side."""

    def __init__(self, kernel: Kernel, sizes: Sequence[int], memo: Memo) -> None:
        """`sizes`: numbers of outputs, in order, which are the kernel's together; `memo` is the model's."""
        self.kernel, self.sizes, self.memo = kernel, list(sizes), memo
        self.bias: Tensor | None = None
        """[N of all], of which the layers' own biases are views; None: layers add theirs by themselves."""
        self._addresses: list[int | None] = [None] * len(self.sizes)

    def parts(self) -> list["PartKernel"]:
        """A kernel for each layer, in order."""
        return [PartKernel(self, index) for index in range(len(self.sizes))]

    def take_biases(self, biases: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Add the layers' biases in the kernel from now on.

        Returns what must take their place for that: the same numbers in memory of our own.
        """
        first = next((bias for bias in biases if bias is not None), None)
        if first is None or any(bias is not None and bias.dtype != first.dtype for bias in biases):
            return list(biases)
        given = zip(self.sizes, biases, strict=True)
        self.bias = torch.cat([first.new_zeros(n) if bias is None else bias.detach() for n, bias in given])
        views = self.bias.split_with_sizes(self.sizes)
        taken = [None if bias is None else view for view, bias in zip(views, biases, strict=True)]
        self._addresses = [None if view is None else view.data_ptr() for view in taken]
        return taken

    def adds(self, index: int, bias: Tensor | None) -> bool:
        """Whether `bias`, of layer `index`, is what the kernel adds to its outputs."""
        return (None if bias is None else bias.data_ptr()) == self._addresses[index]

    def compute(self, index: int, x: Tensor, *, with_bias: bool) -> Tensor:
        """[..., N] of layer `index` for x [..., K]; nobody else has this memory."""
        left: dict[int, Tensor] = self.memo.made(x, (id(self), with_bias), dict)
        if index not in left:
            out = self.kernel(x, self.bias if with_bias else None)
            left.update(enumerate(out.split_with_sizes(self.sizes, -1)))
        return left.pop(index)


class PartKernel(Unchanging):
    """One layer's share in a joined kernel; `quant.kernels.Kernel`."""

    def __init__(self, joined: Joined, index: int) -> None:
        self.joined, self.index = joined, index
        self.title = f"{joined.kernel.title}, one of {len(joined.sizes)} joined"

    @property
    def num_bytes(self) -> int:
        """Memory of this share of the packed weight, about."""
        return self.joined.kernel.num_bytes * self.joined.sizes[self.index] // sum(self.joined.sizes)

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., K] to [..., N], where rows may lie further apart than N."""
        joined = self.joined
        if joined.adds(self.index, bias):
            return joined.compute(self.index, x, with_bias=True)
        out = joined.compute(self.index, x, with_bias=False)
        return out if bias is None else out.add_(bias.detach().to(out.dtype))
