"""The figures of a load on a server, under the names that vLLM's `bench serve` gives them. Plain Python."""

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.bench.answers import Answer, RequestFailedError

_DIGITS, _DIGITS_OF_SECONDS = 3, 6
_MILLISECONDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one request went; times are seconds of one clock."""

    planned: float
    """When it was to be sent, even if the client was late: waiting in a crowded client counts."""
    ended: float
    times: tuple[float, ...] = ()
    """When each piece of text came."""
    num_prompt: int = 0
    """Tokens; 0 where the server does not tell."""
    num_output: int = 0
    """Tokens; pieces of text where the server does not tell."""
    failure: RequestFailedError | None = None

    @classmethod
    def of(cls, answer: Answer, *, planned: float) -> "Outcome":
        """What became of a request that was answered."""
        try:
            answer.check()
        except RequestFailedError as error:
            return cls(planned=planned, ended=answer.ended, failure=error)
        told = answer.completion_tokens
        return cls(
            planned=planned,
            ended=answer.ended,
            times=tuple(answer.times),
            num_prompt=answer.prompt_tokens or 0,
            num_output=len(answer.times) if told is None else told,
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """A time in milliseconds, over all requests (or pieces of text)."""

    mean: float
    median: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread | None":
        """None where nothing was measured."""
        if not seconds:
            return None
        found = sorted(each * _MILLISECONDS for each in seconds)
        return cls(statistics.fmean(found), *(percentile(found, share) for share in (0.5, 0.9, 0.99)))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of `ordered` lie, on the line between the two nearest."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Requests that failed in one way."""

    kind: str
    count: int
    example: str
    """What one of them was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a load measured."""

    duration: float
    """Seconds from the first request to the last answer."""
    completed: int
    failed: int
    total_input_tokens: int
    total_output_tokens: int
    ttft: Spread | None
    """From the planned start to the first text."""
    tpot: Spread | None
    """A token after the first, the mean of each answer."""
    itl: Spread | None
    """Between two pieces of text; a server may put several tokens into one."""
    e2el: Spread | None
    """From the planned start to the end of the answer."""
    failures: tuple[Failures, ...]
    """The most frequent first."""

    @property
    def request_throughput(self) -> float:
        """Whole answers a second."""
        return self.completed / self.duration

    @property
    def output_throughput(self) -> float:
        """Tokens a second, of whole answers."""
        return self.total_output_tokens / self.duration

    @property
    def total_token_throughput(self) -> float:
        """Tokens a second, those of prompts too."""
        return (self.total_input_tokens + self.total_output_tokens) / self.duration

    @property
    def spreads(self) -> dict[str, Spread | None]:
        """By vLLM's names."""
        return {"ttft": self.ttft, "tpot": self.tpot, "itl": self.itl, "e2el": self.e2el}

    def as_dict(self) -> dict[str, Any]:
        """As `--json` has them: times in milliseconds, null where nothing was measured."""
        names = ("request_throughput", "output_throughput", "total_token_throughput")
        found: dict[str, Any] = {
            "duration": round(self.duration, _DIGITS_OF_SECONDS),
            "completed": self.completed,
            "failed": self.failed,
            "total_input_tokens": self.total_input_tokens,
            "total_output_tokens": self.total_output_tokens,
            **{name: round(getattr(self, name), _DIGITS) for name in names},
        }
        for name, spread in self.spreads.items():
            for what in ("mean", "median", "p90", "p99"):
                value = None if spread is None else round(getattr(spread, what), _DIGITS)
                found[f"{what}_{name}_ms"] = value
        failures = [
            {"kind": each.kind, "count": each.count, "example": each.example} for each in self.failures
        ]
        return {**found, "failures": failures}


def figures(outcomes: Sequence[Outcome], *, duration: float) -> Figures:
    """The figures of the requests that came to an end within `duration` seconds."""
    good = [each for each in outcomes if each.failure is None]
    heard = [each for each in good if each.times]
    return Figures(
        duration=max(duration, 1e-9),
        completed=len(good),
        failed=len(outcomes) - len(good),
        total_input_tokens=sum(each.num_prompt for each in good),
        total_output_tokens=sum(each.num_output for each in good),
        ttft=Spread.of([each.times[0] - each.planned for each in heard]),
        tpot=Spread.of(
            [
                (each.times[-1] - each.times[0]) / (each.num_output - 1)
                for each in heard
                if each.num_output > 1
            ]
        ),
        itl=Spread.of([after - before for each in heard for before, after in itertools.pairwise(each.times)]),
        e2el=Spread.of([each.ended - each.planned for each in good]),
        failures=_failures(outcomes),
    )


def _failures(outcomes: Sequence[Outcome]) -> tuple[Failures, ...]:
    failed = [each.failure for each in outcomes if each.failure is not None]
    counts = Counter(each.kind for each in failed)
    examples = {each.kind: each.message for each in reversed(failed)}
    return tuple(
        Failures(kind=kind, count=count, example=examples[kind]) for kind, count in counts.most_common()
    )
