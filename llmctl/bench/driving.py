"""Drives an engine for the clock: prompts alone, many decoding together, and clients that come back.

Prompts are random ids, never the same twice, so that no prefix cache helps; answers have their full length.
"""

import random
import statistics
import time
from dataclasses import dataclass, field

from llmctl.core.errors import DoesNotFitError, LlmctlError
from llmctl.core.types import SamplingParams
from llmctl.engine.engine import Engine, Request
from llmctl.engine.generate.job import Job

WARM_STEPS = 2
"""Decode steps before the clock runs."""


@dataclass(slots=True)
class Prompts:
    """Draws prompts."""

    vocabulary_size: int
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def draw(self, length: int) -> tuple[int, ...]:
        """One of `length` tokens that was not drawn before, most likely."""
        return tuple(self._random.choices(range(self.vocabulary_size), k=length))

    def several(self, count: int, length: int) -> list[tuple[int, ...]]:
        """As many of one length."""
        return [self.draw(length) for _ in range(count)]


def greedy(prompt: tuple[int, ...], num_new: int) -> Job:
    """An answer of just so many tokens."""
    sampling = SamplingParams(temperature=0.0, max_new_tokens=num_new)
    return Job(prompt_ids=prompt, sampling=sampling, end_ids=frozenset(), max_new_tokens=num_new)


def prefill_rate(engine: Engine, prompts: list[tuple[int, ...]]) -> float:
    """Prompt tokens a second, until each prompt has its first token."""
    begin = time.perf_counter()
    for prompt in prompts:
        engine.add(greedy(prompt, 1))
    while engine.has_work:
        step(engine)
    return sum(map(len, prompts)) / (time.perf_counter() - begin)


def step(engine: Engine) -> list[Request]:
    """One step: the requests that got a token. Raises what became of one that failed."""
    heard = []
    for event in engine.step():
        if isinstance(event.item, LlmctlError):
            raise event.item
        heard.append(event.request)
    return heard


class Together:
    """Sequences that decode side by side, for as many turns as asked."""

    def __init__(self, engine: Engine, prompts: Prompts, *, batch: int, context: int, room: int) -> None:
        """`batch` prompts of `context` tokens; after `room` further tokens they begin anew."""
        self._engine, self._prompts = engine, prompts
        self._batch, self._context, self._room = batch, context, room
        self._requests: list[Request] = []
        self._num_left = 0

    def begin(self) -> None:
        """Start with new prompts, and compute these; `rate` does it by itself where it must."""
        self.end()
        # Cancelled in the end, for the first ones decode already while the last prompts are computed.
        length = self._engine.scheduler.limits.max_length - self._context
        prompts = self._prompts.several(self._batch, self._context)
        self._requests = [self._engine.add(greedy(each, length)) for each in prompts]
        started: set[int] = set()
        while len(started) < self._batch:
            started |= {id(request) for request in step(self._engine)}
        for _ in range(WARM_STEPS):
            step(self._engine)
        self._num_left = self._room

    def rate(self, num_steps: int) -> float:
        """Tokens a second of all together over `num_steps` steps of decoding, at most `room`.

        Raises `DoesNotFitError` where some stand still.
        """
        if self._num_left < num_steps:
            self.begin()
        self._num_left -= num_steps
        begin, count = time.perf_counter(), 0
        for _ in range(num_steps):
            count += len(step(self._engine))
        if count < num_steps * self._batch:
            raise DoesNotFitError(
                f"memory does not hold {self._batch} sequences at a time", hint="give a smaller --batch"
            )
        return count / (time.perf_counter() - begin)

    def end(self) -> None:
        """Free what they hold."""
        for request in self._requests:
            self._engine.cancel(request)
        self._requests = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Clients that each send a prompt, read the answer, and send the next one."""

    num_clients: int
    prompt: int
    output: int
    num_rounds: int = 2
    """Requests of a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixSpeed:
    """What clients saw."""

    output_rate: float
    """Tokens a second, of all answers."""
    first_token_s: float
    """Median time from a request to its first token."""


def mixed(engine: Engine, prompts: Prompts, mix: Mix) -> MixSpeed:
    """Serve a closed loop of clients to its end."""
    waiting = prompts.several(mix.num_clients * mix.num_rounds, mix.prompt)
    asked: dict[Request, float] = {}
    counts: dict[Request, int] = {}
    first_s: list[float] = []

    def ask() -> None:
        if waiting:
            request = engine.add(greedy(waiting.pop(), mix.output))
            asked[request], counts[request] = time.perf_counter(), 0

    begin = time.perf_counter()
    for _ in range(mix.num_clients):
        ask()
    while engine.has_work:
        for request in step(engine):
            counts[request] += 1
            if counts[request] == 1:
                first_s.append(time.perf_counter() - asked[request])
            if counts[request] == mix.output:
                ask()
    return MixSpeed(
        output_rate=sum(counts.values()) / (time.perf_counter() - begin),
        first_token_s=statistics.median(first_s),
    )
