"""The low-rank part of a difference, by singular values, and how much of it is left out."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_EXACT_UP_TO = 1024
"""Smaller side of a matrix that is decomposed exactly; larger ones would take minutes, and are projected."""
_MORE, _ROUNDS = 16, 6
"""Directions beyond the rank that are looked at, and how often: the error is far below what is left out."""
_SEED = 0
_ROWS = 4096
"""Rows that are looked at together, where looking at all would take the memory once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """difference [N, K] = b a + what is left out."""

    a: Tensor
    """float32 [r, K]."""
    b: Tensor
    """float32 [N, r]."""
    residual: float
    """Length of what is left out over that of the difference, 0 to 1."""


def factorise(difference: Tensor, rank: int) -> Factors:
    """The best `b a` of that rank for finite float32 [N, K]; the same numbers always give the same."""
    num_rows, num_columns = difference.shape
    if rank < 1 or min(num_rows, num_columns) < rank:
        raise ValueError(f"no rank {rank} of {num_rows} x {num_columns}")
    length = float(torch.linalg.vector_norm(difference))
    if length == 0:
        return Factors(
            a=difference.new_zeros(rank, num_columns), b=difference.new_zeros(num_rows, rank), residual=0.0
        )
    # The smaller side has the directions.
    is_wide = num_rows < num_columns
    tall = difference.T if is_wide else difference
    directions = _directions(tall, rank)
    along = tall @ directions
    # Both matrices as long: neither is then lost in numbers of fewer bits.
    root = torch.linalg.vector_norm(along, dim=0).sqrt()
    long, short = along / root.clamp_min(torch.finfo(root.dtype).tiny), directions * root
    b, a = (short, long.T) if is_wide else (long, short.T)
    return Factors(a=a.contiguous(), b=b.contiguous(), residual=min(_left(difference, b, a) / length, 1.0))


def _directions(tall: Tensor, rank: int) -> Tensor:
    """Those of [n, k] with the largest singular values: [k, r], orthonormal, the largest first."""
    smaller = tall.shape[1]
    if smaller <= _EXACT_UP_TO or rank + _MORE >= smaller // 2:
        # In float64 the squares lose nothing that float32 has, and [n, k] is not taken apart as a whole.
        squares = torch.zeros(smaller, smaller, dtype=torch.float64)
        for rows in torch.split(tall, _ROWS):
            wide = rows.double()
            squares.addmm_(wide.T, wide)
        vectors: Tensor = torch.linalg.eigh(squares).eigenvectors
        return vectors[:, -rank:].flip(1).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        found: Tensor = torch.svd_lowrank(tall, q=rank + _MORE, niter=_ROUNDS)[2]
    return found[:, :rank]


def _left(difference: Tensor, b: Tensor, a: Tensor) -> float:
    """Length of difference - b a."""
    squares = 0.0
    for rows, own in zip(torch.split(difference, _ROWS), torch.split(b, _ROWS), strict=True):
        squares += float(torch.linalg.vector_norm(torch.addmm(rows, own, a, alpha=-1))) ** 2
    return math.sqrt(squares)
