"""States of workers for tests, and a clock that stands still until it is told."""

from typing import Any

from llmctl.services.wire import Heard, Listing, ModelState, WorkerState


class Clock:
    """Seconds that pass by `+=` on `now`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def worker(number: int = 1, *models: str, **fields: Any) -> WorkerState:
    """Worker `number` at port 9000 + `number`, of `models` (one called `m` if none are named)."""
    told = {
        "url": f"http://127.0.0.1:{9000 + number}",
        "id": f"w{number}",
        "models": tuple(ModelState(name=name, max_running=4) for name in models or ("m",)),
        "max_running": 4,
    }
    return WorkerState(**{**told, **fields})


def listing(*workers: WorkerState | Heard, **fields: Any) -> Listing:
    """A controller's table of `workers`, heard of just now where nothing else is said."""
    told = {
        "workers": tuple(
            each if isinstance(each, Heard) else Heard(state=each, age_s=0.0) for each in workers
        ),
        "dispatch": "least-wait",
        "version": 1,
        "boot": "one",
        "up_s": 1000.0,
        "expires_s": 6.0,
    }
    return Listing(**{**told, **fields})
