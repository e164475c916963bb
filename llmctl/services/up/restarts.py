"""When a part that has died is started again, and when it is given up."""

FIRST_DELAY_S, MAX_DELAY_S = 1.0, 30.0
LONG_LIFE_S = 60.0
"""A part that lived so long has not died of the last start."""
MAX_DEATHS_AT_START = 5


class Restarts:
    """The deaths of one part."""

    def __init__(self) -> None:
        self.deaths_at_start = 0
        """In a row."""
        self._delay_s = FIRST_DELAY_S

    def died(self, *, lived_s: float, was_ready: bool) -> float:
        """Note a death; returns the seconds until the next start."""
        self.deaths_at_start = 0 if was_ready else self.deaths_at_start + 1
        if lived_s >= LONG_LIFE_S:
            self._delay_s = FIRST_DELAY_S
        delay_s = self._delay_s
        self._delay_s = min(MAX_DELAY_S, delay_s * 2)
        return delay_s

    @property
    def is_hopeless(self) -> bool:
        """Whether it never gets further than its start."""
        return self.deaths_at_start >= MAX_DEATHS_AT_START
