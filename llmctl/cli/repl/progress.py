"""Loading while the user types: its stages as one line below the prompt."""

import time
from collections.abc import Callable

REDRAW_S = 0.1


class Board:
    """`core.progress.Progress` that remembers the present stage; written by one thread, read by another."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called when there is something new to draw, at most ten times a second."""
        self._changed = changed
        self._drawn = 0.0
        self._name = ""
        self._total: int | None = None
        self._done = 0

    def stage(self, name: str, *, total_bytes: int | None = None) -> None:
        """See `Progress`."""
        self._name, self._total, self._done = name, total_bytes, 0
        self._changed()

    def advance(self, num_bytes: int) -> None:
        """See `Progress`."""
        self._done += num_bytes
        now = time.monotonic()
        if now - self._drawn >= REDRAW_S:
            self._drawn = now
            self._changed()

    def __str__(self) -> str:
        # Another thread may begin the next stage meanwhile.
        total = self._total
        if not total:
            return self._name
        return f"{self._name} {100 * self._done // total} % of {total / 2**20:.0f} MiB"
