"""Finds a worker that answers: another one, if the first fails before a byte of its answer was passed on."""

import asyncio
import logging
from contextlib import ExitStack
from dataclasses import dataclass, field

from llmctl.core.errors import LlmctlError, NotFoundError, NoWorkerError
from llmctl.services.api import relay
from llmctl.services.api.faults import (
    FailedError,
    LostError,
    RefusedError,
    SilentError,
    StalledError,
    UnauthorizedError,
    UpstreamError,
)
from llmctl.services.api.tally import Tally
from llmctl.services.api.upstream import Answer, Call, Upstream
from llmctl.services.dispatch import Candidate
from llmctl.services.fleet import FleetView
from llmctl.services.http.errors import ModelNotFoundError
from llmctl.services.traffic import Flight

log = logging.getLogger(__name__)

MAX_TRIES = 3
_MAX_SILENCES = 2
"""A request that takes too long would take as long on the next worker: it is not handed round the fleet."""
_LOOK_S = 1.0
"""So often it is looked whether the fleet has given a worker up that is waited for."""
_REFUSALS = (429, 503)
"""Statuses of a worker that takes no request now; another may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A request, and what decides where it goes."""

    model: str
    call: Call
    needs: str | None
    """A capability of the model."""
    prefix: bytes | None


class Reply:
    """A worker's answer whose beginning has come; to be closed, whatever happens."""

    def __init__(self, answer: Answer, *, worker: Candidate, flight: Flight) -> None:
        self.answer = answer
        self.worker = worker
        self.first = b""
        self._flight = flight

    def close(self) -> None:
        """Give the connection back, or cut it where the answer is not over."""
        self.answer.close()
        self._flight.end()


@dataclass(slots=True)
class Tries:
    """What came of a request so far."""

    workers: list[str] = field(default_factory=list)
    refusal: Reply | None = None
    error: UpstreamError | None = None
    num_silences: int = 0

    @property
    def are_over(self) -> bool:
        """Whether it is not to be tried again."""
        return len(self.workers) >= MAX_TRIES or self.num_silences >= _MAX_SILENCES

    def outcome(self, none: LlmctlError) -> Reply:
        """What the client gets when no worker is left; `none` if none was tried.

        What a worker said of itself says more than that another could not be reached.
        """
        if self.refusal is not None:
            return self.refusal
        if self.error is None:
            raise none
        if isinstance(self.error, RefusedError):
            raise NoWorkerError(self.error.message, hint="try again later") from self.error
        raise self.error


class Forwarder:
    """Sends requests to the fleet."""

    def __init__(self, fleet: FleetView, upstream: Upstream, *, timeout_s: float, tally: Tally) -> None:
        """`timeout_s` is for each silence of a worker."""
        self._fleet = fleet
        self._upstream = upstream
        self._timeout_s = timeout_s
        self._tally = tally

    async def open(self, wanted: Wanted) -> Reply:
        """The answer to a request; to be closed.

        Raises `ModelNotFoundError` for a model that nobody serves, `NoWorkerError` where nobody does now, and
        `UpstreamError` when all that were tried failed.
        """
        tries = Tries()
        while True:
            try:
                worker = self._choose(wanted, tries)
            except LlmctlError as error:
                return tries.outcome(error)
            if tries.workers:
                self._tally.retries.inc()
            reply = await self._try(worker, wanted.call, tries)
            if reply is not None:
                return reply
            if tries.are_over:
                return tries.outcome(NoWorkerError("no worker answered"))

    def report(self, worker: Candidate, error: UpstreamError) -> None:
        """Note that a worker failed: others are chosen until it is heard of again."""
        if isinstance(error, StalledError):
            # Its client's fault.
            log.info("worker %s was freed: %s", worker.id, error.message)
            return
        self._note(worker, error)
        self._fleet.mark_failed(worker.id)

    def _note(self, worker: Candidate, error: UpstreamError) -> None:
        log.warning("worker %s at %s: %s", worker.id, worker.url, error.message)
        self._tally.failures.labels(code=error.code).inc()

    def _choose(self, wanted: Wanted, tries: Tries) -> Candidate:
        try:
            return self._fleet.choose(
                wanted.model, prefix=wanted.prefix, without=tries.workers, needs=wanted.needs
            )
        except NotFoundError as error:
            raise ModelNotFoundError(error.message, hint=error.hint) from error

    async def _try(self, worker: Candidate, call: Call, tries: Tries) -> Reply | None:
        """The worker's answer; None, noted in `tries`, where another may give a better one."""
        tries.workers.append(worker.id)
        try:
            reply = await self._unless_gone(worker, call)
        except UpstreamError as error:
            self.report(worker, error)
            tries.error = error
            tries.num_silences += isinstance(error, SilentError)
            return None
        if reply.answer.status >= 500 and reply.answer.status not in _REFUSALS:
            # Another worker may be in a better state; what this one says is told if none is. It may be the
            # request's own doing: the worker is not passed over for it.
            self._note(worker, failed := FailedError(reply.answer.status))
            reply.close()
            if reply.answer.is_over:
                tries.refusal = reply
            else:
                tries.error = failed
            return None
        if reply.answer.status in _REFUSALS and reply.answer.is_over:
            if reply.answer.status == 503:
                self._fleet.mark_failed(worker.id)
            reply.close()
            tries.refusal = reply
            return None
        return reply

    async def _unless_gone(self, worker: Candidate, call: Call) -> Reply:
        """As `_begin`; the controllers may take a worker out that hangs before its answer begins."""
        with ExitStack() as stack:
            # Counted before anybody else chooses.
            flight = self._fleet.begin(worker.id)
            stack.callback(flight.end)
            begin = asyncio.ensure_future(self._begin(worker, call, flight))
            stack.callback(_abandon, begin)
            while not (await asyncio.wait((begin,), timeout=_LOOK_S))[0]:
                if worker.id not in {heard.state.id for heard in self._fleet.workers}:
                    raise LostError
            reply = begin.result()
            stack.pop_all()
        return reply

    async def _begin(self, worker: Candidate, call: Call, flight: Flight) -> Reply:
        with ExitStack() as stack:
            stack.callback(flight.end)
            answer = await self._upstream.post(worker.url, call, timeout_s=self._timeout_s)
            stack.callback(answer.close)
            if answer.status == 401:
                raise UnauthorizedError
            reply = Reply(answer, worker=worker, flight=flight)
            reply.first = await relay.beginning(answer)
            relay.check(answer, reply.first)
            stack.pop_all()
        return reply


def _abandon(begin: asyncio.Future[Reply]) -> None:
    """Nobody waits for a reply any more; one that is there already is closed."""

    def close(done: asyncio.Future[Reply]) -> None:
        if not done.cancelled() and done.exception() is None:
            done.result().close()

    begin.cancel()
    begin.add_done_callback(close)
