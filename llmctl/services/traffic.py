"""What a gateway itself sends to one worker: it knows of it before the worker's next heartbeat tells."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from llmctl.services.dispatch import Candidate

FAILED_S = 5.0
"""For so long a worker that failed is passed over, unless it is heard of before."""
STALE_S = 10.0
"""Numbers that are older say nothing of now, where silence does not take a worker out later."""


class Flight:
    """A request on its way to a worker."""

    def __init__(self, traffic: "Traffic") -> None:
        self._traffic: Traffic | None = traffic

    def end(self) -> None:
        """It is over, in whatever way; may be called twice."""
        traffic, self._traffic = self._traffic, None
        if traffic is not None:
            traffic.count(-1)


class Traffic:
    """The requests to one worker."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changes: deque[tuple[float, int]] = deque()
        """When a request began (1) or ended (-1), since the worker's numbers were told."""
        self._num_untold = 0
        self._heard = float("-inf")
        self._stale_s = STALE_S
        self._failed: float | None = None
        self.num_running = 0
        """Requests that are on their way now."""

    def begin(self) -> Flight:
        """Count a request until its `end`."""
        self.count(1)
        return Flight(self)

    def count(self, change: int) -> None:
        """Note that a request began or ended."""
        now = self._clock()
        self.num_running += change
        self._changes.append((now, change))
        self._num_untold += change
        self._drop(now - self._stale_s)

    def heard(self, at: float, *, expires_s: float) -> None:
        """The worker's numbers are those of the time `at`: what began and ended before is in them."""
        self._heard = max(at, self._heard)
        self._stale_s = max(STALE_S, expires_s)
        self._drop(self._heard)

    def fail(self) -> None:
        """The worker did not answer, or broke off."""
        self._failed = self._clock()

    @property
    def has_failed(self) -> bool:
        """Whether the worker is to be passed over."""
        failed = self._failed
        return failed is not None and self._heard <= failed and self._clock() - failed < FAILED_S

    def corrected(self, told: Candidate) -> Candidate:
        """The worker's numbers with what was sent to it since; of old ones only its speed is left."""
        if self._clock() - self._heard > self._stale_s:
            return replace(told, num_running=0, num_waiting=0, num_in_flight=self.num_running)
        return replace(told, num_in_flight=self._num_untold)

    def _drop(self, until: float) -> None:
        while self._changes and self._changes[0][0] <= until:
            self._num_untold -= self._changes.popleft()[1]
