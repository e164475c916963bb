"""Compares calls by the clock: each in turn, round after round, and of each the best time.

Taking turns spreads a noisy neighbour over all of them; the best time is the one that noise touched least. A
turn is a few calls in a row, so that none begins with what the one before it left in the caches.
"""

import time
from collections.abc import Callable, Mapping

MIN_ROUNDS = 2
CALLS_A_TURN = 3
LAYER_SHARE = 1 / 6
"""Time for a layer by itself, of that for its block."""


def best_times(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    wait: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The shortest time of each call in microseconds.

    Every call has at least `MIN_ROUNDS` turns, the first to warm up, and goes on until `seconds` have passed.
    `wait` returns when a device has done all that it was given.
    """
    best = dict.fromkeys(calls, float("inf"))
    end, num_rounds = clock() + seconds, 0
    while num_rounds < MIN_ROUNDS or clock() < end:
        for name, call in calls.items():
            for _ in range(CALLS_A_TURN):
                begin = clock()
                call()
                wait()
                best[name] = min(best[name], clock() - begin)
        num_rounds += 1
    return {name: each * 1e6 for name, each in best.items()}
