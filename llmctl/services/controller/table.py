"""The controller's table: workers as they told it last, until they leave or fall silent.

Plain Python without sockets or tasks. Times are monotonic; nothing is kept on disk, because every worker
tells its whole state again within a heartbeat.
"""

import logging
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from llmctl.core.errors import AmbiguousError, BusyError, LlmctlError
from llmctl.services import dispatch, wire
from llmctl.services.dispatch import Candidate, Method
from llmctl.services.serving import Memory, serving
from llmctl.services.wire import Heard, Listing, ModelState, WorkerState

log = logging.getLogger(__name__)

MISSED_HEARTBEATS = 3
"""So many make a silent worker a gone one."""


@dataclass(slots=True)
class _Row:
    """A worker and what was sent its way since it told its state."""

    state: WorkerState
    heard: float
    num_sent: int = 0


class WorkerTable:
    """Who serves what.

    `on_change` is called when workers come or go, drain or serve something else. `clock` and `rng` are for
    tests. Not for several threads.
    """

    def __init__(
        self,
        *,
        method: Method,
        expires_s: float,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.expires_s = expires_s
        self._method = method
        self._on_change = on_change
        self._clock = clock
        self._rng = rng or random.Random()
        self._rows: dict[str, _Row] = {}
        self._memory = Memory()
        self._started = clock()
        self._boot = secrets.token_hex(8)
        # Not from 0: what somebody remembers of an earlier life must not look like the present.
        self._version = secrets.randbelow(2**32)

    @property
    def version(self) -> int:
        """Grows whenever workers come or go, drain or serve something else."""
        return self._version

    def tell(self, state: WorkerState) -> None:
        """A worker's state: it is new, was forgotten, or was there and tells how it is now.

        One that was started again takes the place of what was at its URL. Raises `AmbiguousError` for one
        that claims the URL of a worker that was started later, `BusyError` for one too many.
        """
        self.expire()
        before = self._rows.get(state.id)
        if before is None and len(self._rows) >= wire.MAX_WORKERS:
            raise BusyError(f"the table is full: {wire.MAX_WORKERS} workers", hint="start another controller")
        self._replace_at(state)
        self._rows[state.id] = _Row(state=state, heard=self._clock())
        self._memory.note([state], self._clock())
        if before is None or _outline(before.state) != _outline(state):
            log.info("worker %s %s: %s", state.url, _verb(before, state), ", ".join(_names(state)) or "-")
            self._change()

    def leave(self, worker_id: str) -> bool:
        """Take a worker out that says good-bye; whether it was there."""
        row = self._rows.pop(worker_id, None)
        if row is None:
            return False
        log.info("worker %s left", row.state.url)
        self._change()
        return True

    def expire(self) -> None:
        """Take out who has been silent for too long."""
        last = self._clock() - self.expires_s
        silent = [row for row in self._rows.values() if row.heard <= last]
        for row in silent:
            log.warning("worker %s is silent for %g s: taken out", row.state.url, self.expires_s)
            del self._rows[row.state.id]
        if silent:
            self._change()

    def states(self) -> tuple[WorkerState, ...]:
        """All workers, those that drain too."""
        self.expire()
        return tuple(row.state for row in self._rows.values())

    def models(self) -> tuple[ModelState, ...]:
        """The models of all workers that take requests."""
        return wire.union(self.states())

    def listing(self) -> Listing:
        """The whole table."""
        self.expire()
        now = self._clock()
        rows = sorted(self._rows.values(), key=lambda row: row.state.url)
        return Listing(
            workers=tuple(Heard(state=row.state, age_s=round(now - row.heard, 3)) for row in rows),
            dispatch=self._method,
            version=self._version,
            boot=self._boot,
            up_s=round(now - self._started, 3),
            expires_s=self.expires_s,
        )

    def choose(self, model: str, *, prefix: bytes | None = None) -> Candidate:
        """The worker for a request, which counts as sent until the worker tells its state again.

        Raises `NotFoundError` for a model that nobody serves or served lately, `NoWorkerError` when nobody
        does now.
        """
        told = serving(self.states(), model, needs=None)
        if not told:
            raise self._nobody(model)
        candidates = [replace(each, num_in_flight=self._rows[each.id].num_sent) for each in told.values()]
        chosen = dispatch.choose(candidates, method=self._method, prefix=prefix, rng=self._rng)
        self._rows[chosen.id].num_sent += 1
        return chosen

    def _replace_at(self, state: WorkerState) -> None:
        same = next((row for row in self._rows.values() if row.state.url == state.url), None)
        if same is None or same.state.id == state.id:
            return
        if same.state.started > state.started:
            raise AmbiguousError(
                f"another worker, started later, is at {state.url}", hint="give each worker a URL of its own"
            )
        log.info("worker %s was started again", state.url)
        del self._rows[same.state.id]

    def _nobody(self, model: str) -> LlmctlError:
        return self._memory.nobody(model, self.models(), self._clock())

    def _change(self) -> None:
        self._version += 1
        self._on_change()


def _outline(state: WorkerState) -> tuple[object, ...]:
    """What is not load."""
    models = [(model.name, model.aliases, model.context_length, model.capabilities) for model in state.models]
    return state.url, state.is_draining, models


def _names(state: WorkerState) -> list[str]:
    return [name for model in state.models for name in model.names]


def _verb(before: _Row | None, state: WorkerState) -> str:
    if state.is_draining:
        return "drains"
    return "joined" if before is None else "changed"
