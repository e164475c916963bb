"""Kernels for CUDA: bitsandbytes' and torch's operators behind the same call as those of `kernels`.

The paths by torch's own operators were written from their documented layouts and have never run on a GPU:
they are off unless `LLMCTL_UNTRIED_KERNELS` names them.

Shapes: x [..., K], rows [M, K], weights [N, K], results [..., N], G groups of columns along K.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl.core.errors import UsageError
from llmctl.quant import coded
from llmctl.quant.activations import Memo, RowKernel
from llmctl.quant.tiles import TileKernel
from llmctl.quant.weights import SYMMETRIC_ZERO, CodedWeight, IntWeight, QuantWeight

UNTRIED_VARIABLE = "LLMCTL_UNTRIED_KERNELS"
"""Names of `PATHS` with commas between, or 1 for all that compute with the weights as they are stored."""
Capability = tuple[int, int]
"""NVIDIA's compute capability."""

_OUTLIER = 6.0
"""From this activation on, LLM.int8 computes a column in 16 bits; bitsandbytes' own default."""
_FEW_ROWS = 16
"""`torch._int_mm` takes more than these."""
_INT4_GROUPS = (256, 128, 64, 32)
_BNB_BLOCKS = (64, 128, 256, 512, 1024, 2048, 4096)
_FP8_MAX = 448.0
_LEAST = 1e-12


class BnbInt8Kernel(RowKernel):
    """LLM.int8 of bitsandbytes: int8 times int8, columns with outliers in 16 bits."""

    title = "bitsandbytes LLM.int8"

    def __init__(self, weight: IntWeight, dtype: torch.dtype, memo: Memo) -> None:
        import bitsandbytes  # noqa: F401  # it registers the operators

        super().__init__(weight.shape, weight.permutation, memo)
        self.values = weight.values.contiguous()
        self.absmax = (weight.scale[:, 0] * 127).contiguous()

    @property
    def num_bytes(self) -> int:
        """Memory of numbers and scales."""
        return _size(self.values, self.absmax)

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] to [M, N]."""
        values, absmax, outliers = self.memo.made(
            x, (id(self.permutation), "llm.int8"), lambda: _llm_int8(rows)
        )
        mixed = torch.ops.bitsandbytes.int8_mixed_scaled_mm.default
        y: Tensor = mixed(rows, values, self.values, absmax, self.absmax, outliers, None)[0]
        return y.to(x.dtype)


class Bnb4Kernel(RowKernel):
    """nf4 and fp4 of bitsandbytes."""

    title = "bitsandbytes 4 bits"

    def __init__(self, weight: CodedWeight, dtype: torch.dtype, memo: Memo) -> None:
        from bitsandbytes.functional import QuantState

        super().__init__(weight.shape, None, memo)
        self.codes = weight.codes.view(1, -1)
        self.state = QuantState(
            weight.absmax,
            shape=torch.Size(weight.shape),
            code=weight.table,
            blocksize=weight.block_size,
            quant_type=weight.kind,
            dtype=dtype,
        )

    @property
    def num_bytes(self) -> int:
        """Memory of codes and scales."""
        return _size(self.codes, self.state.absmax)

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] to [M, N]."""
        from bitsandbytes import matmul_4bit

        y: Tensor = matmul_4bit(rows, self.codes, quant_state=self.state)
        return y


class TorchInt8Kernel(RowKernel):
    """torch's int8 operators: few rows by int8 weights alone, more by int8 times int8."""

    title = "torch int8 (_weight_int8pack_mm, _int_mm)"

    def __init__(self, weight: IntWeight, dtype: torch.dtype, memo: Memo) -> None:
        super().__init__(weight.shape, weight.permutation, memo)
        self.values = weight.values.contiguous()
        self.scale = weight.scale[:, 0].contiguous()
        self.short_scale = self.scale.to(dtype)

    @property
    def num_bytes(self) -> int:
        """Memory of numbers and scales."""
        return _size(self.values, self.scale, self.short_scale)

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] to [M, N]."""
        aten = torch.ops.aten
        if len(rows) <= _FEW_ROWS:
            few: Tensor = aten._weight_int8pack_mm(rows, self.values, self.short_scale)  # noqa: SLF001
            return few
        made = self.memo.made(x, (id(self.permutation), "int8"), lambda: quantise_rows(rows))
        numbers, scale = made
        y: Tensor = aten._int_mm(numbers, self.values.t())  # noqa: SLF001
        return y.float().mul_(scale).mul_(self.scale).to(x.dtype)


class TorchInt4Kernel(RowKernel):
    """torch's int4 operator: int4 weights, activations in bfloat16."""

    title = "torch int4 (_weight_int4pack_mm)"

    def __init__(self, weight: IntWeight, dtype: torch.dtype, memo: Memo) -> None:
        super().__init__(weight.shape, weight.permutation, memo)
        nibbles, self.scales, self.group_size = int4_parts(weight)
        tiles = _inner_tiles(weight.shape[-1])
        self.packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(nibbles, tiles)  # noqa: SLF001

    @property
    def num_bytes(self) -> int:
        """Memory of numbers and scales."""
        return _size(self.packed, self.scales)

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] to [M, N]."""
        multiply = torch.ops.aten._weight_int4pack_mm  # noqa: SLF001
        y: Tensor = multiply(rows.contiguous(), self.packed, self.group_size, self.scales)
        return y


class TorchFp8Kernel(RowKernel):
    """torch's FP8 operator: weights and activations as float8_e4m3fn, a scale for each row of both."""

    title = "torch FP8 (_scaled_mm)"

    def __init__(self, weight: QuantWeight, dtype: torch.dtype, memo: Memo) -> None:
        super().__init__(weight.shape, None, memo)
        numbers, scale = float8_rows(weight.dequantize())
        # The operator wants the right-hand side [K, N] with K contiguous: the weight's rows, transposed.
        self.weight, self.scale = numbers.contiguous().t(), scale.t().contiguous()

    @property
    def num_bytes(self) -> int:
        """Memory of numbers and scales."""
        return _size(self.weight, self.scale)

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] to [M, N]."""
        numbers, scale = self.memo.made(x, "float8", lambda: float8_rows(rows))
        # With a scale for each row the operator gives bfloat16 only.
        y: Tensor = torch.ops.aten._scaled_mm(  # noqa: SLF001
            numbers, self.weight, scale_a=scale, scale_b=self.scale, out_dtype=torch.bfloat16
        )
        return y.to(x.dtype)


def _tiles(weight: QuantWeight, dtype: torch.dtype, memo: Memo) -> RowKernel:
    return TileKernel(weight, memo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One way to multiply with a quantised weight on CUDA."""

    kernel: Callable[[Any, torch.dtype, Memo], RowKernel]
    """For weights that `can_run` takes."""
    title: str
    can_run: Callable[[QuantWeight, torch.dtype], bool]
    """Whether it takes that weight, with activations of that dtype."""
    min_capability: Capability = (0, 0)
    is_tried: bool
    """Whether somebody runs it on GPUs: its makers do, or it is plain torch."""
    is_exact: bool = True
    """Whether it computes with the weights as they are stored."""


def _is_int8_rows(weight: QuantWeight, dtype: torch.dtype) -> bool:
    return (
        isinstance(weight, IntWeight)
        and (weight.bits, weight.scale.shape[-1]) == (8, 1)
        and weight.zero is None
        and all(size % 8 == 0 for size in weight.shape)
    )


def _is_coded(weight: QuantWeight, dtype: torch.dtype) -> bool:
    # bitsandbytes goes by the name of a table, whatever the file's own one says.
    return (
        isinstance(weight, CodedWeight)
        and weight.kind in coded.TABLES
        and weight.block_size in _BNB_BLOCKS
        and torch.equal(weight.table.cpu(), torch.tensor(coded.TABLES[weight.kind]))
        and coded.is_native()
    )


def _is_int4_tiles(weight: QuantWeight, dtype: torch.dtype) -> bool:
    return (
        isinstance(weight, IntWeight)
        and weight.bits == 4
        and dtype == torch.bfloat16
        and weight.shape[0] % 8 == 0
        and _inner_tiles(weight.shape[-1]) > 0
        and _int4_group(weight.group_size) is not None
    )


def _is_float8_size(weight: QuantWeight, dtype: torch.dtype) -> bool:
    return all(size % 16 == 0 for size in weight.shape)


def _is_any(weight: QuantWeight, dtype: torch.dtype) -> bool:
    return True


def _is_bnb_int8(weight: QuantWeight, dtype: torch.dtype) -> bool:
    return _is_int8_rows(weight, dtype) and coded.is_native()


PATHS: Mapping[str, Path] = {
    "bitsandbytes-int8": Path(
        kernel=BnbInt8Kernel, title=BnbInt8Kernel.title, can_run=_is_bnb_int8, is_tried=True
    ),
    "bitsandbytes-4bit": Path(kernel=Bnb4Kernel, title=Bnb4Kernel.title, can_run=_is_coded, is_tried=True),
    "torch-int8": Path(
        kernel=TorchInt8Kernel,
        title=TorchInt8Kernel.title,
        can_run=_is_int8_rows,
        min_capability=(8, 0),
        is_tried=False,
    ),
    "torch-int4": Path(
        kernel=TorchInt4Kernel,
        title=TorchInt4Kernel.title,
        can_run=_is_int4_tiles,
        min_capability=(8, 0),
        is_tried=False,
    ),
    "torch-fp8": Path(
        kernel=TorchFp8Kernel,
        title=TorchFp8Kernel.title,
        can_run=_is_float8_size,
        min_capability=(8, 9),
        is_tried=False,
        is_exact=False,
    ),
    "tiles": Path(kernel=_tiles, title=TileKernel.title, can_run=_is_any, is_tried=True),
}
"""The first that can run is taken, untried ones that are asked for before all others."""


def build(
    weight: QuantWeight, *, dtype: torch.dtype, memo: Memo, wanted: Sequence[str] | None = None
) -> RowKernel:
    """The kernel of a weight [N, K] on a CUDA device, for activations of `dtype`.

    `wanted` are untried paths; None: those that `LLMCTL_UNTRIED_KERNELS` names. Raises `UsageError` for a
    name there that is none.
    """
    names = untried_wanted(os.environ) if wanted is None else wanted
    device = (weight.values if isinstance(weight, IntWeight) else weight.codes).device
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    return PATHS[choose(weight, dtype, capability=capability, wanted=names)].kernel(weight, dtype, memo)


def choose(
    weight: QuantWeight, dtype: torch.dtype, *, capability: Capability, wanted: Sequence[str] = ()
) -> str:
    """The key of `PATHS` for a weight on a device of that capability, activations being of `dtype`."""
    tried = [name for name, path in PATHS.items() if path.is_tried]
    return next(
        name
        for name in (*wanted, *tried)
        if capability >= PATHS[name].min_capability and PATHS[name].can_run(weight, dtype)
    )


def untried_wanted(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The untried paths that the environment switches on. Raises `UsageError` for a name that is none."""
    text = environ.get(UNTRIED_VARIABLE, "").strip()
    untried = [name for name, path in PATHS.items() if not path.is_tried]
    if text in ("", "0"):
        return ()
    if text == "1":
        return tuple(name for name in untried if PATHS[name].is_exact)
    names = tuple(word.strip() for word in text.split(","))
    if unknown := [name for name in names if name not in untried]:
        raise UsageError(
            f"{UNTRIED_VARIABLE} must be 1 or of {', '.join(untried)} with commas between, not {unknown[0]!r}"
        )
    return names


def _llm_int8(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """int8 [M, K], the largest number of each row [M], and the columns that have outliers."""
    # The operator may zero outliers in the tensor that it is given, so it gets one of its own.
    half = rows.to(torch.float16, copy=True)
    made: tuple[Tensor, Tensor, Tensor] = torch.ops.bitsandbytes.int8_vectorwise_quant.default(half, _OUTLIER)
    return made


def quantise_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [M, K] as int8 numbers from -127 to 127, and the float32 scale [M, 1] of each."""
    wide = rows.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp_min_(_LEAST).div_(127)
    return (wide / scale).round_().to(torch.int8), scale


def float8_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [M, K] as float8_e4m3fn numbers, and the float32 scale [M, 1] of each."""
    wide = rows.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp_min_(_LEAST).div_(_FP8_MAX)
    # Beyond its largest number this type has NaN, no infinity.
    return (wide / scale).clamp_(-_FP8_MAX, _FP8_MAX).to(torch.float8_e4m3fn), scale


def int4_parts(weight: IntWeight) -> tuple[Tensor, Tensor, int]:
    """What torch's int4 operator wants: nibbles, scales, and the group size.

    uint8 [N, K / 2] with the even column in the high half, and bfloat16 [G, N, 2] of scale and offset, for
    W = (q - 8) * scale + offset.
    """
    group_size = _int4_group(weight.group_size)
    assert group_size is not None
    copies = weight.group_size // group_size
    scale = weight.scale.repeat_interleave(copies, -1)
    offset = torch.zeros_like(scale)
    if weight.zero is not None:
        offset = (SYMMETRIC_ZERO[4] - weight.zero.repeat_interleave(copies, -1)) * scale
    nibbles = (weight.values << 4) | (weight.values >> 4)
    scales = torch.stack((scale, offset), -1).transpose(0, 1).to(torch.bfloat16)
    return nibbles.contiguous(), scales.contiguous(), group_size


def _int4_group(group_size: int) -> int | None:
    """The largest group that the operator knows and that divides a weight's own."""
    return next((size for size in _INT4_GROUPS if group_size % size == 0), None)


def _inner_tiles(num_columns: int) -> int:
    """How many tiles of sixteen columns are packed together; 0 where the operator cannot pack them."""
    return next((tiles for tiles in (8, 4, 2) if num_columns % (tiles * 16) == 0), 0)


def _size(*parts: Tensor) -> int:
    return sum(part.numel() * part.element_size() for part in parts)
