"""Rounding to 4 bits that makes up for its own errors: GPTQ's method (arXiv 2210.17323) on our groups.

Column by column, the error of one is spread over those that are not rounded yet, by what the layer's inputs
say of how columns stand in for each other. The groups stay where they lie, and their scales are found first,
so that the columns may be taken in the order of their weight in the inputs.
"""

import torch
from torch import Tensor

from llmctl.artifacts.compress.rounding import HIGHEST, LOWEST, best_steps

_COLUMNS_AT_ONCE = 128
_DAMPING = (0.01, 0.1, 1.0)
"""Shares of the mean that are added to the diagonal, until the inputs' products can be inverted."""
_LEAST_IMPORTANCE = 1e-3
"""Share of the mean: a column that the text never used still counts a little."""


def round_compensated(
    weight: Tensor, products: Tensor, size: int, scale_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """[N, K] to int8 [N, K] of -8 to 7 and scales [N, K / size].

    `products` is float32 [K, K], the sum of x xT over the layer's inputs x. Raises `ValueError` over numbers
    that are not finite, in either.
    """
    weight, products = weight.float().clone(), products.float()
    if not bool(weight.isfinite().all()) or not bool(products.isfinite().all()):
        raise ValueError("a weight or an input of its layer is not a finite number (NaN or Inf)")
    scale = _scales(weight, products.diagonal(), size, scale_dtype)
    order = products.diagonal().argsort(descending=True, stable=True)
    factor = _factor(products[order][:, order])
    numbers = _sweep(weight[:, order], factor, scale[:, order // size])
    return numbers[:, order.argsort()].to(torch.int8), scale.to(scale_dtype)


def _scales(weight: Tensor, diagonal: Tensor, size: int, scale_dtype: torch.dtype) -> Tensor:
    """float32 [N, K / size], of least error in what the layer gives if columns were independent."""
    mean = diagonal.mean().clamp_min(1e-30)
    importance = diagonal.div(mean).clamp_min(_LEAST_IMPORTANCE).view(1, -1, size)
    num_rows = len(weight)
    groups = weight.view(num_rows, -1, size)
    return torch.cat(
        [
            best_steps(
                part.reshape(-1, size), scale_dtype, importance.expand(part.shape).reshape(-1, size)
            ).view(len(part), -1)
            for part in torch.split(groups, max((1 << 20) // weight.shape[1], 1))
        ]
    )


def _factor(products: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse, float32 [K, K]."""
    mean = products.diagonal().mean().clamp_min(1e-30)
    for share in _DAMPING:
        damped = products.clone()
        damped.diagonal().add_(mean * share)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if int(failed):
            continue
        upper: Tensor
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not int(failed):
            return upper
    # Inputs that say nothing: every column stands for itself.
    return torch.eye(len(products))


def _sweep(weight: Tensor, factor: Tensor, steps: Tensor) -> Tensor:
    """The numbers of `weight`, which is used up; all are [N, K] in the same order of columns."""
    numbers = torch.empty_like(weight)
    for start in range(0, weight.shape[1], _COLUMNS_AT_ONCE):
        stop = min(start + _COLUMNS_AT_ONCE, weight.shape[1])
        part, own = weight[:, start:stop], factor[start:stop, start:stop]
        errors = torch.empty_like(part)
        for column in range(stop - start):
            step = steps[:, start + column]
            number = part[:, column].div(step).round_().clamp_(LOWEST, HIGHEST)
            errors[:, column] = (part[:, column] - number * step) / own[column, column]
            part[:, column:] -= torch.outer(errors[:, column], own[column, column:])
            numbers[:, start + column] = number
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return numbers
