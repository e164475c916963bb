"""How many tokens a second an engine makes, over the last seconds. Plain Python."""

import time
from collections import deque
from collections.abc import Callable

SECONDS = 10


class Pace:
    """Counts by the second; may be read from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: deque[tuple[int, int]] = deque(maxlen=SECONDS + 1)
        """(second, tokens in it), the newest last."""

    def add(self, count: int) -> None:
        """Note tokens that were made just now."""
        second = int(self._clock())
        if self._counts and self._counts[-1][0] == second:
            count += self._counts.pop()[1]
        self._counts.append((second, count))

    @property
    def per_second(self) -> float:
        """Of the whole seconds that lie behind, the one that runs left out."""
        now = int(self._clock())
        return sum(count for second, count in tuple(self._counts) if now - SECONDS <= second < now) / SECONDS
