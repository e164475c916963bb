"""What kernels do to an activation before they multiply: put it in rows, reorder it, quantise it.

q, k and v multiply the same tensor, gate and up do too: a `Memo` keeps what the first of them made of it.
"""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from llmctl.core.errors import UsageError
from llmctl.quant import rows8

_LARGEST = 127


class Memo:
    """What the kernels of one model share: what was made of the last activation, scratch, permutations.

    Every thread has its own activation and scratch. The activation is kept alive until the next one.
    """

    def __init__(self) -> None:
        self._own = threading.local()
        self._permutations: dict[bytes, Tensor] = {}

    def made(self, x: Tensor, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for as long as kernels ask about the same unchanged `x`."""
        # Tensors of inference mode do not count their changes.
        if x.is_inference():
            return make()
        slot = getattr(self._own, "slot", None)
        if slot is None or slot[0] is not x or slot[1] != x._version:  # noqa: SLF001
            slot = self._own.slot = (x, x._version, {})  # noqa: SLF001
        made: dict[Hashable, Any] = slot[2]
        if key not in made:
            made[key] = make()
        return made[key]

    def scratch(self, num_elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A flat buffer of that size, with whatever was last left in it; it must not leave the kernel."""
        buffers: dict[Hashable, Tensor] = self._own.__dict__.setdefault("buffers", {})
        buffer = buffers.get((dtype, device))
        if buffer is None or buffer.numel() < num_elements:
            # One made in inference mode could not be written outside of it.
            with torch.inference_mode(mode=False):
                buffer = buffers[dtype, device] = torch.empty(num_elements, dtype=dtype, device=device)
        return buffer[:num_elements]

    def interned(self, permutation: Tensor) -> Tensor:
        """One tensor for all permutations equal to this one, so that kernels share by identity."""
        content = permutation.cpu().contiguous().numpy().tobytes()
        key = hashlib.sha256(content).digest() + str(permutation.device).encode()
        return self._permutations.setdefault(key, permutation)


@dataclass(frozen=True, slots=True)
class Quantised:
    """Rows of numbers of 8 bits, each row with a scale: x = (numbers - zero) * scale."""

    numbers: Tensor
    """uint8 [M, K]."""
    scale: Tensor
    """[M, 1]: bfloat16 for a bfloat16 activation, else float32."""
    zero: int


def quantise(rows: Tensor, *, is_narrow: bool = False) -> Quantised:
    """Rows [M, K], M and K at least 1, in 8 bits each; in 7 bits if `is_narrow`.

    The scale of a row with NaN or Inf is not finite, so that whatever is multiplied by it shows. That of a
    row of zeros is 0, and its numbers mean nothing.
    """
    largest = _LARGEST // 2 if is_narrow else _LARGEST
    if rows8.takes(rows):
        return Quantised(*rows8.quantise(rows, largest), largest + 1)
    scale = _scale(rows, largest)
    # Elementwise operations of two dtypes at once are 20 times slower: everything is float32 here.
    # What is added makes the conversion, which cuts off, round.
    inverse = scale.float().reciprocal()
    numbers = rows.float().mul(inverse) if rows.dtype == torch.float32 else rows.float().mul_(inverse)
    return Quantised(numbers.add_(largest + 1.5).to(torch.uint8), scale, largest + 1)


def _scale(rows: Tensor, largest: int) -> Tensor:
    if rows.dtype != torch.bfloat16:
        return rows.float().abs().amax(-1, keepdim=True).mul_(1 / largest)
    # Without their sign, floats are in the order of their bits; integers have the faster maximum. Where
    # bfloat16 makes the scale smaller, by 1 in 256, the largest number is 127.5, still cut off to 127.
    bits = rows.contiguous().view(torch.int16).bitwise_and(0x7FFF).amax(-1, keepdim=True)
    return bits.view(torch.bfloat16).mul_(1 / largest)


class Unchanging:
    """What holds packed weights, and never changes: copies of a model share it."""

    def __deepcopy__(self, copies: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "packed weights are for this machine and cannot be pickled",
            hint="load the model without quantisation to save it, or load it anew where it is needed",
        )


class RowKernel(Unchanging, ABC):
    """The frame of a kernel: an activation of any shape in, rows through `multiply`, then bias and shape."""

    title: str

    def __init__(self, shape: tuple[int, ...], permutation: Tensor | None, memo: Memo) -> None:
        """`shape` is the weight's [N, K], `permutation` its own."""
        self.num_outputs, self.num_inputs = shape
        self.memo = memo
        self.permutation = None if permutation is None else memo.interned(permutation)

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Memory of the packed weight."""

    @abstractmethod
    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] made of `x`, M at least 1 and columns in the weight's order, to a new [M, N]."""

    def multiply_add(self, rows: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """The same plus a bias [N] of x's type; for kernels that can do both at once to make their own."""
        out = self.multiply(rows, x)
        return out if bias is None else out.add_(bias)

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., K] to [..., N] in x's dtype; there is no gradient."""
        if x.requires_grad:
            x = x.detach()
        shape = (*x.shape[:-1], self.num_outputs)
        if not x.numel():
            return x.new_zeros(shape)
        if bias is not None:
            bias = (bias.detach() if torch.is_grad_enabled() else bias).to(x.dtype)
        return self.multiply_add(self._rows(x), x, bias).view(shape)

    def _rows(self, x: Tensor) -> Tensor:
        permutation = self.permutation
        if permutation is None:
            return x.reshape(-1, self.num_inputs)
        rows: Tensor = self.memo.made(
            x, id(permutation), lambda: x.reshape(-1, self.num_inputs).index_select(1, permutation)
        )
        return rows

    def quantised(self, rows: Tensor, x: Tensor, *, is_narrow: bool = False) -> Quantised:
        """`rows` quantised, shared with all kernels that do the same to `x`."""
        key = (id(self.permutation), "quantised", is_narrow)
        result: Quantised = self.memo.made(x, key, lambda: quantise(rows, is_narrow=is_narrow))
        return result
