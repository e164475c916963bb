"""Which kernel a quantised weight gets: one table of execution paths, the fastest first."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmctl.quant import coded, cpu_int4, cpu_int8, cuda
from llmctl.quant.activations import Memo
from llmctl.quant.tiles import TileKernel
from llmctl.quant.weights import CodedWeight, IntWeight, QuantWeight

__all__ = ["PATHS", "Kernel", "Memo", "Path", "build"]


class Kernel(Protocol):
    """A weight packed for one way to compute with it. There is no gradient."""

    title: str

    @property
    def num_bytes(self) -> int:
        """Memory of the packed weight."""
        ...

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., K] times the weight's transpose, plus bias [N]: [..., N] in x's dtype."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One way to compute with weights of one form on one kind of device."""

    title: str
    device: str | None
    """As torch calls its type; None: every one."""
    dtypes: frozenset[torch.dtype]
    """Of activations."""
    make: Callable[[QuantWeight, Memo], Kernel | None]
    """None for a weight that this path does not take."""


_FLOATS = frozenset({torch.bfloat16, torch.float16, torch.float32})


def _int8(weight: QuantWeight, memo: Memo) -> Kernel | None:
    if not isinstance(weight, IntWeight) or weight.bits != 8 or cpu_int8.way() is None:
        return None
    plain = cpu_int8.symmetric(weight)
    return None if plain is None else cpu_int8.Int8Kernel(plain, memo)


def _int4(weight: QuantWeight, memo: Memo) -> Kernel | None:
    if isinstance(weight, IntWeight) and cpu_int4.fits(weight):
        return cpu_int4.Int4Kernel(weight, memo)
    return None


def _packed_codes(weight: QuantWeight, memo: Memo) -> Kernel | None:
    if isinstance(weight, CodedWeight) and coded.fits_packed(weight):
        return coded.PackedKernel(weight, memo)
    return None


def _codes(weight: QuantWeight, memo: Memo) -> Kernel | None:
    if isinstance(weight, CodedWeight) and coded.fits(weight):
        return coded.CodedKernel(weight, memo)
    return None


# Row counts are each kernel's own affair: it has one copy of the weight and several ways to go about it.
PATHS: tuple[Path, ...] = (
    Path(title="int8, one scale a row", device="cpu", dtypes=_FLOATS, make=_int8),
    # In float32 torch's int4 kernel is 20 times slower, and rounding activations would not be exact.
    Path(title="int4 in groups", device="cpu", dtypes=frozenset({torch.bfloat16}), make=_int4),
    Path(title="nf4 and fp4, packed", device="cpu", dtypes=frozenset({torch.bfloat16}), make=_packed_codes),
    Path(title="nf4 and fp4", device="cpu", dtypes=_FLOATS, make=_codes),
    Path(title="anything", device=None, dtypes=_FLOATS, make=TileKernel),
)


def build(weight: QuantWeight, *, dtype: torch.dtype, memo: Memo) -> Kernel:
    """The kernel for a weight [N, K] on the device where it lies and activations of `dtype`.

    The weight may be given up afterwards. `memo` is one for all kernels of a model. Raises `ValueError` for a
    weight that is a stack of experts (build one for each) and a dtype that is no float of 16 or 32 bits.
    """
    if len(weight.shape) != 2:
        raise ValueError(f"a kernel takes a weight [N, K], not one of shape {list(weight.shape)}")
    device = (weight.values if isinstance(weight, IntWeight) else weight.codes).device.type
    if device == "cuda":
        return cuda.build(weight, dtype=dtype, memo=memo)
    for path in PATHS:
        if path.device in (None, device) and dtype in path.dtypes:
            kernel = path.make(weight, memo)
            if kernel is not None:
                return kernel
    raise ValueError(f"there is no kernel for activations of {dtype}")
