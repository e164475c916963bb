"""Puts a load on an OpenAI-compatible server and times what comes back.

A closed loop is of clients that send their next request when they have the answer to the last; an open loop
of requests that come when they come, whether or not the server keeps up. There a request's time begins when
it was due, so that one that had to wait for its turn in a crowded client is not counted as quick.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from llmctl.bench.answers import RequestFailedError
from llmctl.bench.asking import Asker, Way, first_model
from llmctl.bench.connection import Client, Server, clock
from llmctl.bench.percentiles import Figures, Outcome, figures
from llmctl.bench.prompts import Prompts

Tell = Callable[[Outcome], None]
_LATE_S = 0.05
"""From when on a client that is behind its plan is worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is put on a server."""

    num_requests: int
    num_clients: int | None = 16
    """Of a closed loop."""
    rate: float | None = None
    """Requests a second of an open loop, on the mean; the gaps between them are those of a Poisson one."""
    seed: int = 0
    """Of the gaps."""
    num_output: int = 48
    """Tokens of each answer."""

    def arrivals(self) -> Iterator[float]:
        """Seconds after the start at which the requests of an open loop are due."""
        assert self.rate is not None
        gaps, due = random.Random(self.seed), 0.0
        for _ in range(self.num_requests):
            yield due
            due += gaps.expovariate(self.rate)


@dataclass(slots=True, kw_only=True)
class Measured:
    """What came of a load."""

    server: Server
    model: str
    way: Way
    figures: Figures
    num_unfinished: int = 0
    """Requests that were sent or due and had no answer when Ctrl-C ended it."""
    is_whole: bool = True
    """Whether all requests were sent and came to an end."""
    remarks: tuple[str, ...] = ()
    """What the figures do not say by themselves."""


@dataclass(slots=True)
class _Run:
    """A load on its way."""

    asker: Asker
    load: Load
    tell: Tell
    outcomes: list[Outcome] = field(default_factory=list)
    num_sent: int = 0
    late_s: float = 0.0
    """How far the client was behind its plan, at most."""

    async def closed(self) -> None:
        """Clients that come back."""
        assert self.load.num_clients is not None
        left = iter(range(self.load.num_requests))

        async def client() -> None:
            for _ in left:
                request = self.asker.request()
                await self._ask(request, planned=clock())

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.load.num_clients, self.load.num_requests)):
                group.create_task(client())

    async def open(self) -> None:
        """Requests at their times."""
        begin = clock()
        async with asyncio.TaskGroup() as group:
            for arrival in self.load.arrivals():
                planned, request = begin + arrival, self.asker.request()
                await asyncio.sleep(max(0.0, planned - clock()))
                self.late_s = max(self.late_s, clock() - planned)
                group.create_task(self._ask(request, planned=planned))

    async def _ask(self, request: bytes, *, planned: float) -> None:
        self.num_sent += 1
        try:
            answer = await self.asker.client.ask(request)
        except RequestFailedError as error:
            outcome = Outcome(planned=planned, ended=clock(), failure=error)
        else:
            outcome = Outcome.of(answer, planned=planned)
        self.outcomes.append(outcome)
        self.tell(outcome)


@contextlib.asynccontextmanager
async def opened(server: Server, prompts: Prompts, load: Load, *, model: str | None) -> AsyncIterator[Asker]:
    """The server, warmed up, with the way in which it wants to be asked; its first model for None.

    Raises `LlmctlError` for one that cannot be measured.
    """
    async with Client(server) as client:
        asker = Asker(
            client=client,
            model=model or await first_model(client),
            prompts=prompts,
            num_output=load.num_output,
            way=Way(prompts.forms[0]),
        )
        await asker.warm_up()
        yield asker


async def measure(asker: Asker, load: Load, tell: Tell) -> Measured:
    """Put `load` on a server that is `opened`; `tell` hears of each request that has ended.

    A cancellation (Ctrl-C) ends it early: what was measured until then is returned.
    """
    run, begin, is_whole = _Run(asker, load, tell), clock(), True
    try:
        await (run.closed() if load.rate is None else run.open())
    except asyncio.CancelledError:
        is_whole = False
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
    end = max((each.ended for each in run.outcomes), default=begin) if is_whole else clock()
    found = figures(run.outcomes, duration=end - begin)
    return Measured(
        server=asker.client.server,
        model=asker.model,
        way=asker.way,
        figures=found,
        num_unfinished=run.num_sent - len(run.outcomes),
        is_whole=is_whole,
        remarks=(*asker.remarks, *_remarks(run)),
    )


def _remarks(run: _Run) -> list[str]:
    good = [each for each in run.outcomes if each.failure is None]
    found = []
    num_prompts = run.asker.prompts.num_different
    if num_prompts is not None and run.num_sent > num_prompts:
        found.append(f"the same {num_prompts} prompts came again and again: a prefix cache makes them cheap")
    if short := sum(each.num_output < run.load.num_output for each in good):
        found.append(f"{short} of {len(good)} answers have fewer than {run.load.num_output} tokens")
    if good and not any(each.times for each in good):
        found.append("no answer has any text: there is no first one to time")
    if run.late_s > _LATE_S:
        found.append(
            f"this client was up to {run.late_s * 1000:.0f} ms behind its plan, which counts: part of the "
            "times is its own"
        )
    return found
