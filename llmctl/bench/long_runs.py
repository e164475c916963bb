"""Runs that show whether the engine's cost grows: many that wait, a long context, a long answer.

Only llmctl's own side. What a figure would be if the cost grew as the arithmetic does stands beside it: a
prompt of n tokens costs a n + b n², a token behind n others a + b n.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from llmctl.bench.driving import Prompts, Together, greedy, step
from llmctl.bench.rows import TOKENS_A_SECOND, Row
from llmctl.engine.engine import Engine

_PROMPT = 115
_ROUNDS, _STEPS, _SCHEDULER_STEPS = 2, 16, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured."""

    engine: Engine
    prompts: Prompts
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRun:
    """One of them."""

    title: str
    longest: int
    """Tokens of a sequence."""
    measure: Callable[[Subject], Iterator[Row]]


def waiting(subject: Subject, count: int) -> Iterator[Row]:
    """Decoding as many as may run, with nobody and with `count` requests waiting."""
    engine = subject.engine
    batch = engine.scheduler.limits.max_running
    room = (2 * _ROUNDS) * _STEPS
    together = Together(engine, subject.prompts, batch=batch, context=_PROMPT, room=room)
    alone = crowded = 0.0
    # Before anybody waits, for then they would begin behind those.
    together.begin()
    for _ in range(_ROUNDS):
        alone = max(alone, together.rate(_STEPS))
        with _Crowd(subject, count):
            crowded = max(crowded, together.rate(_STEPS))
    alone_us = _scheduler_us(engine)
    with _Crowd(subject, count):
        crowded_us = _scheduler_us(engine)
    together.end()
    yield Row(
        what="waiting",
        dtype=subject.dtype,
        batch=batch,
        unit=TOKENS_A_SECOND,
        ours=crowded,
        details={
            "waiting": count,
            "alone": round(alone, 2),
            "scheduler_us": round(crowded_us, 1),
            "scheduler_us_alone": round(alone_us, 1),
        },
    )


class _Crowd:
    """Requests that wait while it is entered."""

    def __init__(self, subject: Subject, count: int) -> None:
        self._engine = subject.engine
        self._jobs = [greedy(each, 8) for each in subject.prompts.several(count, _PROMPT)]

    def __enter__(self) -> None:
        self._requests = [self._engine.add(each) for each in self._jobs]

    def __exit__(self, *_: object) -> None:
        for request in self._requests:
            self._engine.cancel(request)


def _scheduler_us(engine: Engine) -> float:
    """Time of the scheduler in a step, in microseconds; nothing is computed, and token 0 comes of it."""
    begin = time.perf_counter()
    for _ in range(_SCHEDULER_STEPS):
        work = engine.scheduler.next()
        engine.scheduler.done(work, {each: 0 for share in work.spans for each in share.samples})
    return (time.perf_counter() - begin) / _SCHEDULER_STEPS * 1e6


def contexts(subject: Subject, length: int) -> Iterator[Row]:
    """Prompts of a quarter, a half and the whole of `length`, and decoding behind each."""
    times = []
    for each in (length // 4, length // 2, length):
        prefill_s, decode_rate = _long_prompt(subject, each)
        times.append(prefill_s)
        details: dict[str, float | int | str | None] = {
            "prompt": each,
            "seconds": round(prefill_s, 3),
            "decode": round(decode_rate, 2),
        }
        if each == length:
            details["seconds_by_arithmetic"] = round(fourfold(times[0], times[1]), 3)
        yield Row(
            what="context",
            dtype=subject.dtype,
            batch=1,
            unit=TOKENS_A_SECOND,
            ours=each / prefill_s,
            details=details,
        )


def fourfold(once: float, twice: float) -> float:
    """Where a n + b n² is `once` at n and `twice` at 2 n: what it is at 4 n."""
    square = (twice - 2 * once) / 2
    return 4 * (once - square) + 16 * square


def _long_prompt(subject: Subject, length: int) -> tuple[float, float]:
    """Seconds to the first token, and tokens a second from then on."""
    engine = subject.engine
    begin = time.perf_counter()
    engine.add(greedy(subject.prompts.draw(length), 1 + 2 * _STEPS))
    while not step(engine):
        pass
    first = time.perf_counter()
    count = 0
    while engine.has_work:
        count += len(step(engine))
    return first - begin, count / (time.perf_counter() - first)


def generation(subject: Subject, length: int) -> Iterator[Row]:
    """One answer of `length` tokens: how fast its first, middle and last tenth came."""
    engine, tenth = subject.engine, max(1, length // 10)
    engine.add(greedy(subject.prompts.draw(_PROMPT), length))
    times: list[float] = []
    while engine.has_work:
        times += [time.perf_counter() for _ in step(engine)]
    first, middle, last = (
        tenth / (times[start + tenth] - times[start])
        for start in (0, (length - tenth) // 2, length - tenth - 1)
    )
    yield Row(
        what="generation",
        dtype=subject.dtype,
        batch=1,
        unit=TOKENS_A_SECOND,
        ours=(length - 1) / (times[-1] - times[0]),
        details={
            "output": length,
            "first_tenth": round(first, 2),
            "last_tenth": round(last, 2),
            "last_by_arithmetic": round(1 / (2 / middle - 1 / first), 2),
        },
    )


_CONTEXT, _ANSWER, _WAITING = 32_000, 10_000, 2_000
RUNS: Mapping[str, LongRun] = {
    "waiting": LongRun(
        title=f"{_WAITING:,} that wait", longest=512, measure=partial(waiting, count=_WAITING)
    ),
    "context": LongRun(
        title=f"a context of {_CONTEXT:,}",
        longest=_CONTEXT + 1 + 2 * _STEPS,
        measure=partial(contexts, length=_CONTEXT),
    ),
    "generation": LongRun(
        title=f"an answer of {_ANSWER:,}",
        longest=_PROMPT + _ANSWER,
        measure=partial(generation, length=_ANSWER),
    ),
}
"""By the names that `--long` takes."""
