"""What the tests of the client do with a scripted server."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from llmctl.core.errors import LlmctlError
from llmctl.core.types import ChatRequest, Delta, Finish, GenerationRequest, Message, SamplingParams
from llmctl.services.client import HttpBackend, connect
from tests.server import Reply, ScriptedServer, ThreadedServer

T = TypeVar("T")


def chat(text: str = "hello there", **sampling: Any) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), sampling=SamplingParams(**sampling))


def run(work: Callable[[HttpBackend], Coroutine[Any, Any, T]], url: str, **options: Any) -> T:
    """What `work` makes of a backend that is connected to `url`."""

    async def main() -> T:
        given: dict[str, Any] = {"model": None, "api_key": None, "timeout_s": 10.0} | options
        backend = await connect(url, **given)
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(main())


async def collected(backend: HttpBackend, request: GenerationRequest) -> list[Delta]:
    return [delta async for delta in backend.generate(request)]


def ask(
    server: ThreadedServer, *replies: Reply, request: GenerationRequest | None = None, **options: Any
) -> list[Delta]:
    """The deltas of one answer, for which the server does what `replies` say."""
    if isinstance(server, ScriptedServer):
        server.queue(*replies)
    return run(lambda backend: collected(backend, request or chat()), server.url, **options)


def failure(
    server: ScriptedServer, *replies: Reply, request: GenerationRequest | None = None, **options: Any
) -> tuple[str, LlmctlError]:
    """The text that comes before an answer fails, and the error."""
    server.queue(*replies)

    async def work(backend: HttpBackend) -> tuple[str, LlmctlError]:
        came: list[Delta] = []
        try:
            async for delta in backend.generate(request or chat()):
                came.append(delta)
        except LlmctlError as error:
            return text(came), error
        pytest.fail(f"the answer is whole: {came}")

    return run(work, server.url, **options)


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def reasoning(deltas: list[Delta]) -> str:
    return "".join(delta.reasoning for delta in deltas)


def finish(deltas: list[Delta]) -> Finish:
    assert all(delta.finish is None for delta in deltas[:-1])
    last = deltas[-1].finish
    assert last is not None
    return last
