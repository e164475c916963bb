"""Which worker takes a request: by least expected wait, by lottery, or where the prompt's start is cached.

Pure: whoever holds a table asks with what it knows of the workers, and the same answer follows. Who serves a
model, drains or has failed is sorted out before.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, get_args

from llmctl.core.errors import UsageError

Method = Literal["least-wait", "lottery", "prefix"]
METHODS: tuple[Method, ...] = get_args(Method)
_OF_FASTCHAT: dict[str, Method] = {"shortest_queue": "least-wait"}
MAX_PREFIX_CHARACTERS = 1024
"""What of a prompt decides where it goes: conversations that part after that stay together."""
_MAX_PARTS = 4096
_USUAL_ANSWER_TOKENS = 128
_USUAL_SPEED = 100.0
"""Tokens a second of a fleet that has told none yet."""
_SLOWEST_SHARE = 0.1
"""Of the mean speed: one token in the last seconds says that a worker had just begun, not that it is slow."""
_SLOWEST_SPEED = 0.1
_MAX_DETOUR_S = 1.0
"""How much longer a request may wait for the worker that has its beginning cached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A worker that serves the model, as busy as it told, and what was sent to it since."""

    id: str
    url: str
    num_running: int = 0
    num_waiting: int = 0
    max_running: int = 1
    num_in_flight: int = 0
    """Sent to it and not in its numbers yet; below 0 when more than that has ended since."""
    tokens_per_s: float = 0.0
    """0: not known."""

    @property
    def num_queued(self) -> int:
        """Requests that a new one would have to wait for."""
        waiting = self.num_waiting + max(0, self.num_running - self.max_running)
        # Those that wait, wait for memory if not for a place.
        num_free = 0 if waiting else self.max_running - self.num_running
        return max(0, waiting + self.num_in_flight - num_free)

    @property
    def num_free(self) -> int:
        """Places for requests that would start at once."""
        return 0 if self.num_queued else max(0, self.max_running - self._num_taken)

    @property
    def occupancy(self) -> float:
        """Share of its places that is taken; above 1 with a queue."""
        return self._num_taken / max(1, self.max_running)

    @property
    def _num_taken(self) -> int:
        return max(0, self.num_running + self.num_waiting + self.num_in_flight)


def method_named(name: str) -> Method:
    """The method that a user names, FastChat's names too; raises `UsageError` for no method."""
    for method in METHODS:
        if name in (method, method.replace("-", "_")):
            return method
    if name in _OF_FASTCHAT:
        return _OF_FASTCHAT[name]
    raise UsageError(f"no way to dispatch is called {name!r}", hint=f"one of {', '.join(METHODS)}")


def choose(
    workers: Sequence[Candidate], *, method: Method, prefix: bytes | None, rng: random.Random
) -> Candidate:
    """One of `workers`, of which there must be some; without a `prefix` that method is least wait.

    `rng` decides between equals, so that several gateways do not all take the same one.
    """
    assert workers, "nobody to choose from"
    if len(workers) == 1:
        return workers[0]
    if method == "lottery":
        return _by_lottery(workers, rng)
    waits = expected_waits(workers)
    if method == "prefix" and prefix:
        return _by_prefix(workers, waits, prefix)
    return min(zip(waits, workers, strict=True), key=lambda pair: (pair[0], pair[1].occupancy, rng.random()))[
        1
    ]


def expected_waits(workers: Sequence[Candidate]) -> list[float]:
    """Seconds until each would start a new request, roughly; an unknown speed is the mean of the others."""
    told = [worker.tokens_per_s for worker in workers if worker.tokens_per_s > 0]
    mean = sum(told) / len(told) if told else _USUAL_SPEED
    least = max(mean * _SLOWEST_SHARE, _SLOWEST_SPEED)
    return [
        worker.num_queued * _USUAL_ANSWER_TOKENS / max(worker.tokens_per_s or mean, least)
        for worker in workers
    ]


def prefix_of(body: Mapping[str, Any]) -> bytes | None:
    """The beginning of the prompt in a request as clients send it; None where there is none to be seen."""
    prompt = body.get("messages", body.get("prompt"))
    text = _beginning(prompt, MAX_PREFIX_CHARACTERS)
    return text.encode("utf-8", "surrogatepass") or None


def _by_lottery(workers: Sequence[Candidate], rng: random.Random) -> Candidate:
    weights: list[float] = [worker.num_free for worker in workers]
    if not any(weights):
        weights = [1 / (1 + worker.num_queued) for worker in workers]
    return rng.choices(workers, weights)[0]


def _by_prefix(workers: Sequence[Candidate], waits: list[float], prefix: bytes) -> Candidate:
    """Each prefix has an order of workers of its own; the first that is not overloaded takes it.

    When a worker comes or goes only those prefixes move that it was, or becomes, the first for.
    """
    digest = blake2b(prefix, digest_size=16).digest()
    best = min(waits)
    near = [worker for worker, wait in zip(workers, waits, strict=True) if wait - best <= _MAX_DETOUR_S]
    return max(near, key=lambda worker: blake2b(worker.id.encode(), key=digest, digest_size=8).digest())


def _beginning(value: Any, most: int) -> str:
    """The first texts and numbers in a JSON value, in their order, up to `most` characters."""
    pieces: list[str] = []
    rest, waiting = most, [value]
    for _ in range(_MAX_PARTS):
        if not waiting or rest <= 0:
            break
        part = waiting.pop()
        if isinstance(part, Mapping):
            waiting.extend(reversed([part.get("role"), part.get("content"), part.get("text")]))
        elif isinstance(part, list):
            waiting.extend(reversed(part[:rest]))
        elif isinstance(part, str | int):
            pieces.append(f"{part[:rest] if isinstance(part, str) else part}\n")
            rest -= len(pieces[-1])
    return "".join(pieces)
