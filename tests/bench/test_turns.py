"""Rates of several sides, in turn. No clock runs."""

import itertools

import pytest

from llmctl.bench.turns import MIN_ROUNDS, best_rates


def test_all_take_turns_and_of_each_the_best_counts() -> None:
    order: list[str] = []
    rates = {"ours": iter([3.0, 5.0, 4.0]), "theirs": iter([2.0, 1.0, 1.5])}

    def side(name: str) -> float:
        order.append(name)
        return next(rates[name])

    clock = itertools.count()
    found = best_rates(
        {name: lambda name=name: side(name) for name in rates}, seconds=2.0, clock=lambda: float(next(clock))
    )
    assert found == {"ours": 5.0, "theirs": 2.0}
    assert order == ["ours", "theirs"] * 3


def test_without_time_each_has_its_least_turns() -> None:
    turns: list[int] = []
    best_rates({"ours": lambda: float(turns.append(1) or 1)}, seconds=0)
    assert len(turns) == MIN_ROUNDS


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_a_single_side_is_measured_too(seconds: float) -> None:
    clock = itertools.count()
    assert best_rates({"ours": lambda: 7.0}, seconds=seconds, clock=lambda: float(next(clock))) == {
        "ours": 7.0
    }
