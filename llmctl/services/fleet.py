"""The fleet as a gateway sees it: a copy of the controllers' tables, kept up by asking them.

Controllers that are gone leave their last word standing: traffic goes on without them. One that was started
again is not believed when it misses a worker, until it has been up for as long as silence takes a worker out.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from llmctl.core.errors import LlmctlError
from llmctl.services import dispatch, wire
from llmctl.services.controller.client import ControllerClient
from llmctl.services.dispatch import Candidate, Method
from llmctl.services.serving import Memory, serving
from llmctl.services.traffic import Flight, Traffic
from llmctl.services.wire import Heard, Listing, ModelState, WorkerState

log = logging.getLogger(__name__)

POLL_S = 1.0
"""How old a worker's load may get here on top of its heartbeat; who comes and goes is told at once."""
_MIN_POLL_S = 0.05
_RETRY_S = (0.1, 0.2, 0.5, 1.0)


@dataclass(slots=True)
class Member:
    """A worker, as the controller told it that heard of it last."""

    state: WorkerState
    heard: float
    """When that was, by this process's clock."""


@dataclass(slots=True)
class Table:
    """What one controller told."""

    members: dict[str, Member] = field(default_factory=dict)
    carried: dict[str, Member] = field(default_factory=dict)
    """What it told before it was started again, and has not told since."""
    dispatch: str = ""
    version: int | None = None
    boot: str | None = None
    """Which of its lives the table is from; None when it has not answered yet."""
    fault: LlmctlError | None = None
    """Why it does not answer now."""

    def take(self, listing: Listing, now: float) -> set[str]:
        """Make `listing` the table; returns the workers that are gone from it for sure."""
        fresh = {
            heard.state.id: Member(state=heard.state, heard=now - heard.age_s) for heard in listing.workers
        }
        gone = self.members.keys() - fresh.keys()
        if listing.boot != self.boot:
            self.carried, gone = {**self.carried, **self.members}, set()
        is_young = listing.up_s < listing.expires_s
        self.carried = {
            each: member for each, member in self.carried.items() if is_young and each not in fresh
        }
        self.members, self.dispatch, self.version = fresh, listing.dispatch, listing.version
        self.boot, self.fault = listing.boot, None
        return gone

    def forget(self, worker_ids: Collection[str]) -> None:
        """Take workers out of which another controller says that they are gone."""
        for worker_id in worker_ids:
            self.members.pop(worker_id, None)
            self.carried.pop(worker_id, None)


class FleetView:
    """Who serves what, asked of `controllers` while it is open (`async with`).

    With several, any that answers will do: of each worker what was heard last counts. `method` overrides how
    the controllers want workers chosen. `clock` and `rng` are for tests. Not for several threads.
    """

    def __init__(
        self,
        controllers: Sequence[str],
        *,
        token: str | None,
        method: Method | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """`controllers` as `parts.controller_urls` gives them."""
        self._controllers = tuple(controllers)
        self._token = token
        self._method = method
        self._clock = clock
        self._rng = rng or random.Random()
        self._tables = {url: Table() for url in controllers}
        self._members: dict[str, Member] = {}
        self._traffic: dict[str, Traffic] = {}
        self._memory = Memory()
        self._tasks: list[asyncio.Task[None]] = []
        self._answered = asyncio.Event()

    async def __aenter__(self) -> Self:
        for url in self._controllers:
            self._tasks.append(asyncio.create_task(self._follow(url), name=f"follow {url}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def wait_for_answer(self, timeout_s: float) -> bool:
        """Wait until some controller has told its table; whether one has."""
        try:
            await asyncio.wait_for(self._answered.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    @property
    def has_workers(self) -> bool:
        """Whether there is a worker that takes requests."""
        return any(not member.state.is_draining for member in self._members.values())

    @property
    def workers(self) -> tuple[Heard, ...]:
        """All workers, those that drain too."""
        now = self._clock()
        members = self._members.values()
        return tuple(Heard(state=each.state, age_s=max(0.0, now - each.heard)) for each in members)

    @property
    def faults(self) -> dict[str, LlmctlError | None]:
        """By controller, why it does not answer; None for one that does."""
        return {url: table.fault for url, table in self._tables.items()}

    def models(self) -> tuple[ModelState, ...]:
        """The models of all workers that take requests."""
        return wire.union(member.state for member in self._members.values())

    def choose(
        self,
        model: str,
        *,
        prefix: bytes | None = None,
        without: Collection[str] = (),
        needs: str | None = None,
    ) -> Candidate:
        """The worker for a request to `model`, none of the ids in `without`.

        `needs` is a capability: workers whose model lacks it are chosen only where all lack it. Those that
        failed are chosen only where no other is left. Raises `NotFoundError` for a model that nobody serves
        or served lately, `NoWorkerError` when nobody does now.
        """
        states = [member.state for each, member in self._members.items() if each not in without]
        told = serving(states, model, needs=needs)
        if not told:
            raise self._memory.nobody(model, self.models(), self._clock())
        well = [each for each in told if not self._traffic[each].has_failed] or list(told)
        return dispatch.choose(
            [self._traffic[each].corrected(told[each]) for each in well],
            method=self._method or self._told_method(),
            prefix=prefix,
            rng=self._rng,
        )

    def begin(self, worker_id: str) -> Flight:
        """Count a request that goes to a worker now, until its `end`."""
        return self._traffic.setdefault(worker_id, Traffic(self._clock)).begin()

    def mark_failed(self, worker_id: str) -> None:
        """Pass a worker over for 5 s, or until it is heard of again."""
        if worker_id in self._traffic:
            self._traffic[worker_id].fail()

    def take(self, url: str, listing: Listing) -> None:
        """Take over what the controller at `url` has told just now."""
        now = self._clock()
        table = self._tables[url]
        if table.fault is not None or table.boot is None:
            log.info("the controller %s answers: %d workers", url, len(listing.workers))
        gone = table.take(listing, now)
        for other in self._tables.values():
            if other.fault is not None:
                other.forget(gone)
        self._merge(now, listing.expires_s)
        self._answered.set()

    def lose(self, url: str, fault: LlmctlError) -> None:
        """The controller at `url` does not answer: its last table holds."""
        if self._tables[url].fault is None:
            log.warning("%s; its last table holds", fault.message)
        self._tables[url].fault = fault

    def _merge(self, now: float, expires_s: float) -> None:
        told = [
            member
            for table in self._tables.values()
            for members in (table.carried, table.members)
            for member in members.values()
        ]
        told.sort(key=lambda member: member.heard)
        by_id = {member.state.id: member for member in told}
        # A worker that was started again has another id and the same URL.
        by_url = {member.state.url: member for member in told if by_id[member.state.id] is member}
        self._members = {member.state.id: member for member in by_url.values()}
        for worker_id, member in self._members.items():
            traffic = self._traffic.setdefault(worker_id, Traffic(self._clock))
            traffic.heard(member.heard, expires_s=expires_s)
        self._memory.note((member.state for member in self._members.values()), now)
        is_needed = self._members.keys()
        self._traffic = {
            each: traffic
            for each, traffic in self._traffic.items()
            if each in is_needed or traffic.num_running > 0
        }

    def _told_method(self) -> Method:
        """The controllers' own; one that this version does not know is as good as none."""
        told = {table.dispatch for table in self._tables.values()}
        return next((method for method in dispatch.METHODS if method in told), "least-wait")

    async def _follow(self, url: str) -> None:
        """Ask a controller again and again; it answers when there is something new."""
        table, num_faults = self._tables[url], 0
        async with ControllerClient(url, token=self._token) as client:
            while True:
                try:
                    self.take(url, await client.listing(since=table.version, wait_s=POLL_S))
                    num_faults, pause_s = 0, _MIN_POLL_S
                except LlmctlError as error:
                    pause_s = _RETRY_S[min(num_faults, len(_RETRY_S) - 1)]
                    num_faults += 1
                    # A kept connection may have been closed just when it was used.
                    if num_faults > 1:
                        self.lose(url, error)
                await asyncio.sleep(pause_s)
