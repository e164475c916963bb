"""Random weights in every canonical form, and how far a kernel is from the slow reference."""

import torch
from torch import Tensor

from llmctl.quant.coded import TABLES
from llmctl.quant.weights import CodedWeight, IntWeight, QuantWeight, pack4

BF16_STEP = 2**-8
"""Relative distance between neighbours in bfloat16, at most."""


def int_weight(
    bits: int,
    num_rows: int,
    num_columns: int,
    *,
    group_size: int | None = None,
    has_zero: bool = False,
    is_permuted: bool = False,
) -> IntWeight:
    """A weight of random numbers, scales, and zero points, and with an order of its inputs if asked for."""
    num_groups = num_columns // (group_size or num_columns)
    if bits == 4:
        values = pack4(torch.randint(0, 16, (num_rows, num_columns)))
    else:
        values = torch.randint(-128, 128, (num_rows, num_columns)).to(torch.int8)
    zero = torch.randint(0, 17, (num_rows, num_groups)).to(torch.int16) if has_zero else None
    return IntWeight(
        bits=bits,
        values=values,
        scale=torch.rand(num_rows, num_groups) * 0.1 + 0.01,
        zero=zero,
        permutation=torch.randperm(num_columns) if is_permuted else None,
    )


def coded_weight(
    num_rows: int, num_columns: int, *, kind: str = "nf4", block_size: int = 64, table: Tensor | None = None
) -> CodedWeight:
    """A weight of random codes and scales."""
    size = num_rows * num_columns
    return CodedWeight(
        kind=kind,
        codes=torch.randint(0, 256, (-(-size // 2),)).to(torch.uint8),
        absmax=torch.rand(-(-size // block_size)) + 0.1,
        table=torch.tensor(TABLES[kind]) if table is None else table,
        block_size=block_size,
        shape=(num_rows, num_columns),
    )


def reference(weight: QuantWeight, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """What the weight gives, dequantised and in float64."""
    dense = weight.dequantize(torch.float32).double()
    return torch.nn.functional.linear(x.double(), dense, None if bias is None else bias.double())


def distance(got: Tensor, wanted: Tensor) -> float:
    """Relative, by Frobenius' norm."""
    return float((got.double() - wanted).norm() / wanted.norm().clamp_min(1e-20))


def bfloat16_steps(got: Tensor, weight: QuantWeight, x: Tensor, bias: Tensor | None = None) -> float:
    """How many steps of bfloat16 the worst output is off by, against the most it could be."""
    exact = reference(weight, x, bias)
    rows, columns = x.double().norm(dim=-1)[..., None], weight.dequantize().double().norm(dim=-1)
    largest = rows * columns + (0 if bias is None else bias.double().abs())
    return float(((got.double() - exact).abs() / largest).amax()) / BF16_STEP
