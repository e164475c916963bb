"""Compares rates: each side in turn, round after round, and of each the best. Plain Python.

Taking turns spreads a noisy neighbour over all sides; the best is the figure that noise touched least.
"""

import time
from collections.abc import Callable, Mapping

MIN_ROUNDS = 2


def best_rates(
    sides: Mapping[str, Callable[[], float]],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The highest rate that each side gave; each has `MIN_ROUNDS` turns and more until `seconds` are over."""
    best = dict.fromkeys(sides, 0.0)
    end, num_rounds = clock() + seconds, 0
    while num_rounds < MIN_ROUNDS or clock() < end:
        for name, side in sides.items():
            best[name] = max(best[name], side())
        num_rounds += 1
    return best
