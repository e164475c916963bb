"""The pace counts whole seconds that lie behind, and forgets those long past."""

from llmctl.engine.pace import SECONDS, Pace


def test_tokens_count_from_the_next_second_on_until_they_are_old() -> None:
    now = [100.5]
    pace = Pace(lambda: now[0])
    pace.add(30)
    pace.add(20)
    assert pace.per_second == 0
    now[0] = 101.0
    assert pace.per_second == 50 / SECONDS
    pace.add(10)
    now[0] = 110.9
    assert pace.per_second == 60 / SECONDS
    now[0] = 111.0
    assert pace.per_second == 10 / SECONDS
    now[0] = 112.0
    assert pace.per_second == 0
