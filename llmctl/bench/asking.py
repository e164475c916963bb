"""How the server that is measured wants to be asked: found out by its first requests, which warm it up."""

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from llmctl.bench.answers import Answer, RequestFailedError
from llmctl.bench.connection import Client
from llmctl.bench.prompts import PATHS, Form, Prompts
from llmctl.core.errors import (
    AccessError,
    BusyError,
    LlmctlError,
    NotFoundError,
    UnreachableError,
    UsageError,
)

_REFUSALS = frozenset({400, 404, 405, 415, 422, 500, 501})
"""Statuses of a server that may take the same request in another way."""
_KINDS: dict[str, tuple[type[LlmctlError], str]] = {
    "no connection": (UnreachableError, "check the address, and that the server runs"),
    "timeout": (UnreachableError, "wait longer with --timeout SECONDS"),
    "HTTP 401": (AccessError, "give an API key that it takes: --api-key-file, LLMCTL_API_KEY"),
    "HTTP 403": (AccessError, "give an API key that it takes: --api-key-file, LLMCTL_API_KEY"),
    "HTTP 404": (NotFoundError, "check the address, most end in /v1, and --model"),
    "HTTP 429": (BusyError, "try again later"),
    "HTTP 503": (BusyError, "try again later: it may be starting"),
    "HTTP 400": (UsageError, "ask for what its context holds, of a model that it has"),
    "HTTP 422": (UsageError, "ask for what its context holds, of a model that it has"),
}
_OTHERS = (LlmctlError, "check that the address is that of an OpenAI-compatible server, most end in /v1")


@dataclass(frozen=True, slots=True)
class Way:
    """What is put into each request."""

    form: Form
    ignores_eos: bool = True
    """Whether answers go on behind the model's own end, so that all have the length asked for."""
    tells_usage: bool = True
    """Whether the server is asked to count tokens."""


@dataclass(slots=True, kw_only=True)
class Asker:
    """Makes requests."""

    client: Client
    model: str
    prompts: Prompts
    num_output: int
    """Tokens of each answer."""
    way: Way
    remarks: list[str] = field(default_factory=list)
    """What the server does not do, and what that means for the figures."""

    def request(self) -> bytes:
        """The next request, whole."""
        body: dict[str, Any] = {
            "model": self.model,
            **self.prompts.draw(self.way.form),
            "max_tokens": self.num_output,
            "temperature": 0,
            "stream": True,
        }
        if self.way.ignores_eos:
            body["ignore_eos"] = True
        if self.way.tells_usage:
            body["stream_options"] = {"include_usage": True}
        content = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        # Half of a surrogate pair, which JSON can hold and UTF-8 cannot, arrives as a question mark.
        return self.client.server.post(PATHS[self.way.form.endpoint], content.encode(errors="replace"))

    async def warm_up(self) -> None:
        """Find the way that asks most of what the server takes, by requests that it answers whole.

        Raises `LlmctlError` where it takes none: that of the first try.
        """
        first: RequestFailedError | None = None
        for way in _ways(self.prompts.forms):
            self.way = way
            try:
                answer = await self._tried()
            except RequestFailedError as error:
                first = first or error
                if error.kind not in {f"HTTP {status}" for status in _REFUSALS}:
                    raise self._raised(error) from error
                continue
            self.remarks = list(self._remarks())
            await self._fit(answer)
            return
        assert first is not None
        raise self._raised(first) from first

    async def _tried(self) -> Answer:
        answer = await self.client.ask(self.request())
        answer.check()
        return answer

    async def _fit(self, answer: Answer) -> None:
        """Two more requests at most: prompts of text are made as long as they should be."""
        for _ in range(2):
            if answer.prompt_tokens is None or not self.prompts.fit(answer.prompt_tokens):
                return
            try:
                answer = await self._tried()
            except RequestFailedError as error:
                raise self._raised(error) from error

    def _remarks(self) -> list[str]:
        way, found = self.way, []
        if self.prompts.forms[0].has_ids and not way.form.has_ids:
            found.append("it takes no token ids as prompts: they are words, and their lengths not exact")
        if not way.ignores_eos:
            found.append("it does not take ignore_eos: answers end where the model ends them")
        if not way.tells_usage:
            found.append("it does not take stream_options: pieces of text are counted as tokens")
        return found

    def _raised(self, error: RequestFailedError) -> LlmctlError:
        return as_shown(error, self.client.server.base_url)


def as_shown(error: RequestFailedError, url: str) -> LlmctlError:
    """The error for users that a failed request is."""
    kind, hint = _KINDS.get(error.kind, _OTHERS)
    what = "cannot reach" if error.kind == "no connection" else "no answer from"
    told = error.message if error.kind in ("no connection", "timeout") else f"{error.kind}: {error.message}"
    return kind(f"{what} {url}: {told.rstrip(': ')}", hint=hint)


async def first_model(client: Client) -> str:
    """The first model that the server lists. Raises `LlmctlError` where there is none."""
    url = client.server.base_url
    try:
        answer = await client.ask(client.server.get("/models"))
        if answer.status in (404, 405):
            raise NotFoundError(f"{url} does not list its models", hint="name one with --model")
        if answer.status != 200:
            answer.check()
        listed = json.loads(answer.raw)
        return str(listed["data"][0]["id"])
    except RequestFailedError as error:
        raise as_shown(error, url) from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise NotFoundError(
            f"{url} offers no model", hint="load one there, or name it with --model"
        ) from error


def _ways(forms: tuple[Form, ...]) -> list[Way]:
    """All ways, those that give up least first."""
    steps = itertools.product(range(len(forms)), (0, 1), (0, 1))
    ordered = sorted(steps, key=lambda step: (sum(step), step))
    return [Way(forms[form], ignores_eos=not ends, tells_usage=not counts) for form, ends, counts in ordered]
