"""When a part is started again."""

from llmctl.services.up.restarts import Restarts


def test_the_delay_doubles_up_to_half_a_minute() -> None:
    restarts = Restarts()
    delays = [restarts.died(lived_s=5, was_ready=True) for _ in range(7)]
    assert delays == [1, 2, 4, 8, 16, 30, 30]
    assert not restarts.is_hopeless


def test_a_minute_of_life_makes_the_delay_short_again() -> None:
    restarts = Restarts()
    for _ in range(4):
        restarts.died(lived_s=59.9, was_ready=True)
    assert restarts.died(lived_s=60, was_ready=True) == 1
    assert restarts.died(lived_s=1, was_ready=True) == 2


def test_five_deaths_at_the_start_are_too_many() -> None:
    restarts = Restarts()
    for _ in range(4):
        restarts.died(lived_s=100, was_ready=False)
        assert not restarts.is_hopeless
    restarts.died(lived_s=100, was_ready=False)
    assert restarts.is_hopeless


def test_only_deaths_in_a_row_count() -> None:
    restarts = Restarts()
    for was_ready in (False, False, False, False, True, False):
        restarts.died(lived_s=1, was_ready=was_ready)
    assert not restarts.is_hopeless
