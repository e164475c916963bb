"""Calls take turns, and the best time of each counts. The clock is the tests' own."""

import pytest

from llmctl.bench.timing import CALLS_A_TURN, MIN_ROUNDS, best_times


class Clock:
    """Time that passes only when a call says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def taking(self, name: str, *seconds: float):
        """A call that takes these times in turn, the last one ever after."""
        left = list(seconds)

        def call() -> None:
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_calls_take_turns() -> None:
    clock = Clock()
    calls = {"a": clock.taking("a", 0.1), "b": clock.taking("b", 0.2)}
    best_times(calls, seconds=0, clock=clock)
    assert clock.log == (["a"] * CALLS_A_TURN + ["b"] * CALLS_A_TURN) * MIN_ROUNDS


def test_the_best_time_counts_in_microseconds() -> None:
    clock = Clock()
    calls = {"a": clock.taking("a", 0.5, 0.25, 0.5), "b": clock.taking("b", 0.125)}
    assert best_times(calls, seconds=1.5, clock=clock) == pytest.approx({"a": 250_000, "b": 125_000})


def test_rounds_go_on_until_the_time_is_up() -> None:
    clock = Clock()
    best_times({"a": clock.taking("a", 0.125)}, seconds=2, clock=clock)
    assert len(clock.log) == -(-2 / 0.125 // CALLS_A_TURN) * CALLS_A_TURN


def test_waiting_for_the_device_is_part_of_the_time() -> None:
    clock = Clock()
    wait = clock.taking("wait", 0.25)
    found = best_times({"a": clock.taking("a", 0.125)}, seconds=0, wait=wait, clock=clock)
    assert found == {"a": pytest.approx(375_000)}
    assert clock.log == ["a", "wait"] * CALLS_A_TURN * MIN_ROUNDS
