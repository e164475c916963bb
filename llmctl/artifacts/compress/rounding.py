"""Dense weights to few bits without zero points, as compressed-tensors keeps them: numbers and their scales.

`quant.rounding` is for weights that llmctl packs for itself; here a scale is of the type that the file holds.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

FP8_MAX = 448.0
"""Of float8_e4m3fn."""
LOWEST, HIGHEST = -8, 7
"""Whole numbers of 4 bits."""
_BLOCK_ELEMENTS = 1 << 18
"""Rounded at a time: what lies between stays in the cache."""
_SHARES = (1.0, 0.96, 0.92, 0.875, 0.84, 0.8, 0.76, 0.72, 0.66, 0.6)
"""Parts of a group's range that its numbers are tried over: finer steps for most, less room for extremes.

The range goes one step further below zero than above, so that 7/8 lose nothing where the extreme is there."""
_SMALLEST = {torch.float16: 2.0**-14, torch.bfloat16: 2.0**-100, torch.float32: 2.0**-100}
"""No scale is smaller: one that is not a normal number would lose its own precision."""


def round_int8(weight: Tensor, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """[N, K] to int8 [N, K] and scales [N, 1] in `scale_dtype`; raises `ValueError` over NaN and Inf."""
    return _by_row(weight, scale_dtype, 127.0, torch.int8)


def round_fp8(weight: Tensor, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """[N, K] to float8_e4m3fn [N, K] and scales [N, 1]; raises `ValueError` over NaN and Inf."""
    return _by_row(weight, scale_dtype, FP8_MAX, torch.float8_e4m3fn)


def round_int4(weight: Tensor, size: int, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """[N, K] to int8 [N, K] of -8 to 7 and scales [N, K / size], the range of each group searched.

    Raises `ValueError` for a K that `size` does not divide, NaN and Inf.
    """
    num_rows, num_columns = weight.shape
    if num_columns % size:
        raise ValueError(f"groups of {size} do not divide rows of {num_columns}")
    numbers = torch.empty(weight.shape, dtype=torch.int8)
    scale = torch.empty((num_rows, num_columns // size), dtype=scale_dtype)

    def fill(place: slice, block: Tensor) -> None:
        groups = block.reshape(-1, size)
        step = best_steps(groups, scale_dtype)
        numbers[place] = rounded(groups, step).view(block.shape).to(torch.int8)
        scale[place] = step.view(len(block), -1).to(scale_dtype)

    _by_block(weight, fill)
    return numbers, scale


def best_steps(groups: Tensor, scale_dtype: torch.dtype, importance: Tensor | None = None) -> Tensor:
    """For float32 groups [G, size] the step [G, 1] of least squared error, a number of `scale_dtype`.

    `importance` [G, size] weighs the errors; None: all alike.
    """
    widest = groups.abs().amax(-1, keepdim=True).div_(HIGHEST)
    best_error, best_step = torch.full_like(widest, torch.inf), widest
    for share in _SHARES:
        step = _stored(widest * share, scale_dtype)
        numbers = rounded(groups, step)
        # With the numbers given, the step that fits them best is known.
        fitted = _stored(_fitted(groups, numbers, importance, step), scale_dtype)
        for candidate, found in ((step, numbers), (fitted, rounded(groups, fitted))):
            error = _error(groups, candidate, found, importance)
            is_better = error < best_error
            best_error = torch.where(is_better, error, best_error)
            best_step = torch.where(is_better, candidate, best_step)
    return best_step


def rounded(groups: Tensor, step: Tensor) -> Tensor:
    """The whole numbers of 4 bits that are nearest to the groups, as floats."""
    return groups.div(step).round_().clamp_(LOWEST, HIGHEST)


def _fitted(groups: Tensor, numbers: Tensor, importance: Tensor | None, otherwise: Tensor) -> Tensor:
    weighed = numbers if importance is None else numbers * importance
    across = (weighed * groups).sum(-1, keepdim=True)
    squares = (weighed * numbers).sum(-1, keepdim=True)
    return torch.where((squares > 0) & (across > 0), across / squares, otherwise)


def _error(groups: Tensor, step: Tensor, numbers: Tensor, importance: Tensor | None) -> Tensor:
    error = (numbers * step).sub_(groups).square_()
    if importance is not None:
        error.mul_(importance)
    return error.sum(-1, keepdim=True)


def _stored(step: Tensor, scale_dtype: torch.dtype) -> Tensor:
    """`step` as the file will hold it; never zero."""
    return step.clamp_min(_SMALLEST[scale_dtype]).to(scale_dtype).float()


def _by_row(
    weight: Tensor, scale_dtype: torch.dtype, largest: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    codes = torch.empty(weight.shape, dtype=dtype)
    scale = torch.empty((len(weight), 1), dtype=scale_dtype)

    def fill(place: slice, block: Tensor) -> None:
        step = _stored(block.abs().amax(-1, keepdim=True).div_(largest), scale_dtype)
        numbers = block.div(step)
        if dtype == torch.int8:
            numbers.round_()
        # A scale that its type rounded down would put the largest number beyond the range.
        codes[place] = numbers.clamp_(-largest, largest).to(dtype)
        scale[place] = step.to(scale_dtype)

    _by_block(weight, fill)
    return codes, scale


def _by_block(weight: Tensor, fill: Callable[[slice, Tensor], None]) -> None:
    """Let `fill` see some rows at a time in float32, with their place, in a thread for each core.

    Threads of our own: torch's would share each small operation, and wait for one another at its end.
    Raises `ValueError` where a number is not finite.
    """
    step = max(_BLOCK_ELEMENTS // max(weight.shape[1], 1), 1)

    def one(start: int) -> None:
        place = slice(start, start + step)
        block = weight[place].float()
        # Only what is finite gives 0 times 0.
        if bool(block.mul(0).sum() != 0):
            raise ValueError("a weight is not a finite number (NaN or Inf)")
        fill(place, block)

    count = torch.get_num_threads()
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(one, range(0, len(weight), step)):
            pass
