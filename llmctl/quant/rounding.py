"""A dense weight in one of the canonical forms, by one of `methods.METHODS`; a few rows at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from llmctl.quant.coded import TABLES
from llmctl.quant.methods import METHODS, group_size
from llmctl.quant.weights import CodedWeight, IntWeight, QuantWeight, pack4

_BLOCK_ELEMENTS = 1 << 18
"""Rounded at a time: what lies between stays in the cache."""
_SMALLEST_SCALE = 1e-30
_CLIPPING = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8)
"""Shares of a group's range that its numbers are tried over: finer steps for most, less room for extremes."""


def round_to(weight: Tensor, method: str) -> QuantWeight:
    """The dense weight [..., N, K] in the form of `method`, a key of `METHODS`, on the weight's device.

    Raises `ValueError` for a method there is not, a K that no group of the method divides, NaN and Inf.
    """
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}, only {', '.join(METHODS)}")
    size = group_size(method, weight.shape[-1])
    if size is None:
        sizes = " or ".join(str(each) for each in METHODS[method].group_sizes)
        raise ValueError(f"{method} needs rows that {sizes} divides, not rows of {weight.shape[-1]}")
    rows = weight.detach().reshape(-1, weight.shape[-1])
    if method == "int8":
        return _int8(rows, weight.shape)
    return _int4(rows, weight.shape, size) if method == "int4" else _coded(rows, weight.shape, method, size)


def _blocks(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time in float32, with their place; raises `ValueError` where one is not finite."""
    step = max(_BLOCK_ELEMENTS // rows.shape[1], 1)
    for start in range(0, len(rows), step):
        place = slice(start, start + step)
        block = rows[place].float()
        # Only what is finite gives 0 times 0.
        if bool(block.mul(0).sum() != 0):
            raise ValueError("a weight is not a finite number (NaN or Inf)")
        yield place, block


def _int8(rows: Tensor, shape: torch.Size) -> IntWeight:
    values = torch.empty(shape, dtype=torch.int8, device=rows.device)
    scale = torch.empty((*shape[:-1], 1), dtype=torch.float32, device=rows.device)
    for place, block in _blocks(rows):
        step = block.abs().amax(-1, keepdim=True).div_(127).clamp_min_(_SMALLEST_SCALE)
        scale.view(-1, 1)[place] = step
        values.view(rows.shape)[place] = block.div(step).round_().to(torch.int8)
    return IntWeight(bits=8, values=values, scale=scale)


def _int4(rows: Tensor, shape: torch.Size, size: int) -> IntWeight:
    *leading, num_columns = shape
    num_groups = num_columns // size
    values = torch.empty((*leading, num_columns // 2), dtype=torch.uint8, device=rows.device)
    scale = torch.empty((*leading, num_groups), dtype=torch.float32, device=rows.device)
    zero = torch.empty((*leading, num_groups), dtype=torch.int16, device=rows.device)
    for place, block in _blocks(rows):
        numbers, step, offset = _best_groups(block.reshape(-1, size))
        values.view(-1, num_columns // 2)[place] = pack4(numbers.view(block.shape))
        scale.view(-1, num_groups)[place] = step.view(-1, num_groups)
        zero.view(-1, num_groups)[place] = offset.view(-1, num_groups).to(torch.int16)
    return IntWeight(bits=4, values=values, scale=scale, zero=zero)


def _best_groups(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For groups [G, size] the numbers 0 to 15, scale [G, 1] and zero [G, 1] of least squared error."""
    low = groups.amin(-1, keepdim=True).clamp_max_(0)
    high = groups.amax(-1, keepdim=True).clamp_min_(0)
    best_error = torch.full_like(low, torch.inf)
    best_step, best_zero = torch.ones_like(low), torch.zeros_like(low)
    for share in _CLIPPING:
        # Kernels hold the scale in bfloat16: it is that number that the error is least with.
        step = _as_bfloat16((high - low).mul_(share / 15).clamp_min_(_SMALLEST_SCALE))
        zero = (low * -share).div_(step).round_().clamp_(0, 15)
        numbers = _numbers(groups, step, zero)
        error = numbers.sub_(zero).mul_(step).sub_(groups).square_().sum(-1, keepdim=True)
        is_better = error < best_error
        best_error = torch.where(is_better, error, best_error)
        best_step, best_zero = (
            torch.where(is_better, step, best_step),
            torch.where(is_better, zero, best_zero),
        )
    return _numbers(groups, best_step, best_zero), best_step, best_zero


def _numbers(groups: Tensor, step: Tensor, zero: Tensor) -> Tensor:
    return groups.div(step).add_(zero).round_().clamp_(0, 15)


def _as_bfloat16(scale: Tensor) -> Tensor:
    return scale.bfloat16().float()


def _coded(rows: Tensor, shape: torch.Size, kind: str, size: int) -> CodedWeight:
    """bitsandbytes' own rounding but for the sign of zero, at a third of its time."""
    table = torch.tensor(TABLES[kind], device=rows.device)
    order = table.argsort()
    middle = ((table[order][1:] + table[order][:-1]) / 2).tolist()
    codes = torch.empty(rows.numel() // 2, dtype=torch.uint8, device=rows.device)
    absmax = torch.empty(rows.numel() // size, dtype=torch.float32, device=rows.device)
    num_columns = rows.shape[1]
    for place, block in _blocks(rows):
        groups = block.view(-1, size)
        largest = groups.abs().amax(-1, keepdim=True)
        scaled = groups.div(largest.clamp_min(_SMALLEST_SCALE))
        # Counting the boundaries below is faster than a search among them.
        rank, is_above = torch.zeros_like(scaled), torch.empty_like(scaled)
        for boundary in middle:
            rank.add_(torch.gt(scaled, boundary, out=is_above))
        code = order[rank.int()].to(torch.uint8).flatten()
        first = place.start * num_columns
        absmax[first // size : first // size + len(groups)] = largest.flatten()
        codes[first // 2 : first // 2 + len(code) // 2] = (code[::2] << 4) | code[1::2]
    return CodedWeight(
        kind=kind, codes=codes, absmax=absmax, table=table, block_size=size, shape=tuple(shape)
    )
