"""OpenAI-compatible servers for tests, real ones on a free port of 127.0.0.1.

    with ScriptedServer(Reply(pieces=["Hel", "lo"]), Reply(status=503, body="busy")) as server:
        backend = await connect(server.url, model=None, api_key=None, timeout_s=5)
    assert server.requests[-1].body["temperature"] == 0.5

`ScriptedServer` does per request what its script says: first what is queued, one reply a request; then what
`by_message` says for a part of the last user message; else it says the last user message again, word by word.
`DemoServer` answers with the demo model. Both run in a thread, or in a process of their own with
`python -m tests.server --port-file FILE [--demo]` (from the repository root; it ends on SIGTERM).
"""

import argparse
import asyncio
import contextlib
import json
import re
import socket
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from llmctl.core import sampling
from llmctl.core.errors import LlmctlError
from llmctl.core.progress import SilentProgress
from llmctl.core.types import ChatRequest, CompletionRequest, GenerationRequest, Message
from tests.server_replies import (
    CHAT,
    COMPLETIONS,
    MODELS,
    Json,
    Reply,
    Seen,
    chunk,
    event,
    joined,
    lines,
    usage,
)

if TYPE_CHECKING:
    from llmctl.engine.local import LocalBackend

__all__ = ["DemoServer", "Reply", "ScriptedServer", "Seen", "ThreadedServer"]

_MODELS = ({"id": "scripted"},)
_NOT_SAMPLING = {"model", "messages", "prompt", "stream", "stream_options"}
_TEMPLATE_FIELDS = {"add_generation_prompt", "continue_final_message"}


class ThreadedServer(ABC):
    """Serves from `__enter__` to `__exit__`, and keeps what it was asked in `requests`."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        # Only for sockets that call themselves TCP asyncio turns Nagle's algorithm off, 40 ms an answer.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> Self:
        self._socket.listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Serve no more: connections are refused from now on. May be called twice."""
        self._server.should_exit = True
        self._thread.join(timeout=10)
        assert not self._thread.is_alive(), "the test server does not stop"
        self._socket.close()

    @property
    def url(self) -> str:
        """The base URL, with `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def asked(self) -> list[Seen]:
        """The requests for an answer, without those for the list of models."""
        return [seen for seen in self.requests if seen.method == "POST"]

    @abstractmethod
    async def respond(self, seen: Seen, send: Send) -> None:
        """Answer one request."""

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        raw = await request.body()
        seen = Seen(
            method=request.method,
            path=request.url.path,
            headers=dict(request.headers),
            body=json.loads(raw) if raw else {},
            client_port=request.client.port if request.client else 0,
        )
        self.requests.append(seen)
        work = asyncio.create_task(self.respond(seen, send))
        watch = asyncio.create_task(_disconnect(receive))
        await asyncio.wait([work, watch], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            seen.disconnected.set()
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


class ScriptedServer(ThreadedServer):
    """Does what its script says."""

    def __init__(
        self,
        *queued: Reply,
        by_message: Mapping[str, Reply] | None = None,
        models: Sequence[Json] = _MODELS,
        on_models: Reply | None = None,
        api_key: str | None = None,
    ) -> None:
        """`on_models` answers `/v1/models` instead of the list; `api_key` is asked of every request."""
        super().__init__()
        self._queued = deque(queued)
        self.by_message = dict(by_message or {})
        self.models = models
        self.on_models = on_models
        self.api_key = api_key

    def reset(self) -> None:
        """Forget the requests so far and the script: one model, and what the user says."""
        self._queued.clear()
        self.requests.clear()
        self.by_message.clear()
        self.models, self.on_models, self.api_key = _MODELS, None, None

    def queue(self, *replies: Reply) -> None:
        """Answer the next requests with these."""
        self._queued.extend(replies)

    async def respond(self, seen: Seen, send: Send) -> None:
        """See `ThreadedServer`."""
        if self.api_key is not None and seen.headers.get("authorization") != f"Bearer {self.api_key}":
            refused = {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
            await _send_whole(JSONResponse(refused, 401), send)
        elif seen.path == MODELS and self.on_models is None:
            await _send_whole(JSONResponse({"object": "list", "data": list(self.models)}), send)
        elif seen.path not in (CHAT, COMPLETIONS, MODELS):
            await _send_whole(JSONResponse({"detail": "Not Found"}, 404), send)
        else:
            reply = self.on_models if seen.path == MODELS else self._reply(seen)
            assert reply is not None
            await _play(reply, seen, send)

    def _reply(self, seen: Seen) -> Reply:
        if self._queued:
            return self._queued.popleft()
        for part, reply in self.by_message.items():
            if part in seen.last_user_message:
                return reply
        return Reply(pieces=re.findall(r"\s*\S+|\s+$", seen.last_user_message))


class DemoServer(ThreadedServer):
    """Answers with the demo model, so that a chat through HTTP really generates."""

    def __init__(self, model: str = "demo") -> None:
        super().__init__()
        self._model = model
        self._backend: LocalBackend | None = None

    def __enter__(self) -> Self:
        # Seconds of import, which those who only script are spared.
        from llmctl.engine.local import LocalBackend
        from llmctl.loading.loader import LoadRequest, load
        from llmctl.loading.planning.plan import PlanRequest

        self._backend = LocalBackend(
            load(LoadRequest(model=self._model, plan=PlanRequest(device="cpu")), SilentProgress())
        )
        return super().__enter__()

    def stop(self) -> None:
        """See `ThreadedServer`."""
        super().stop()
        if self._backend is not None:
            asyncio.run(self._backend.close())

    async def respond(self, seen: Seen, send: Send) -> None:
        """See `ThreadedServer`."""
        assert self._backend is not None
        info = self._backend.info
        if seen.path == MODELS:
            entry = {"id": info.name, "object": "model", "max_model_len": info.context_length}
            await _send_whole(JSONResponse({"object": "list", "data": [entry]}), send)
            return
        try:
            request = _generation_request(seen, self._backend)
            async with aclosing(_generated(self._backend, request, seen)) as chunks:
                first = await anext(chunks)
                if seen.body.get("stream"):
                    await _stream(_prepended(first, chunks), send)
                else:
                    await _send_whole(JSONResponse(joined([first, *[each async for each in chunks]])), send)
        except LlmctlError as error:
            told = {"error": {"message": error.message, "type": error.code, "code": error.code}}
            await _send_whole(JSONResponse(told, error.http_status), send)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_whole(response: Response, send: Send) -> None:
    async def nothing() -> Any:
        raise AssertionError("a response that is whole reads nothing")

    await response({"type": "http", "method": "GET"}, nothing, send)


async def _play(reply: Reply, seen: Seen, send: Send) -> None:
    await asyncio.sleep(reply.silence_s)
    if reply.body is not None or reply.status != 200:
        is_text = isinstance(reply.body, str | bytes | None)
        kind = Response if is_text else JSONResponse
        await _send_whole(kind(reply.body, reply.status, dict(reply.headers)), send)
        return
    if reply.raw is None and (reply.is_plain or not seen.body.get("stream")):
        chunks = [json.loads(line) for line in lines(reply, seen) if line.startswith("{")]
        await _send_whole(JSONResponse(joined(chunks)), send)
        return
    pieces = reply.raw if reply.raw is not None else [event(line) for line in lines(reply, seen)]
    await _start(send, reply.headers)
    for index, piece in enumerate(pieces):
        if index == reply.cut_after:
            # uvicorn closes the connection of an answer that is left unfinished.
            return
        if index == reply.stall_after:
            await asyncio.Event().wait()
        await asyncio.sleep(reply.delay_s)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, headers: Mapping[str, str]) -> None:
    given = {"content-type": "text/event-stream"} | {name.lower(): value for name, value in headers.items()}
    encoded = [(name.encode(), value.encode()) for name, value in given.items()]
    await send({"type": "http.response.start", "status": 200, "headers": encoded})


async def _stream(chunks: AsyncGenerator[Json, None], send: Send) -> None:
    await _start(send, {})
    async for each in chunks:
        await send({"type": "http.response.body", "body": event(json.dumps(each)), "more_body": True})
    await send({"type": "http.response.body", "body": event("[DONE]")})


async def _prepended(first: Json, others: AsyncGenerator[Json, None]) -> AsyncGenerator[Json, None]:
    yield first
    async for other in others:
        yield other


def _generation_request(seen: Seen, backend: "LocalBackend") -> GenerationRequest:
    body = seen.body
    given = {key: value for key, value in body.items() if key not in _NOT_SAMPLING | _TEMPLATE_FIELDS}
    params = sampling.update(backend.info.default_sampling, given)
    if seen.path == COMPLETIONS:
        prompt = body["prompt"]
        return CompletionRequest(prompt=prompt if isinstance(prompt, str) else tuple(prompt), sampling=params)
    messages = tuple(Message(role=each["role"], content=each["content"]) for each in body["messages"])
    continues_last = bool(body.get("continue_final_message"))
    return ChatRequest(messages=messages, sampling=params, continues_last=continues_last)


async def _generated(
    backend: "LocalBackend", request: GenerationRequest, seen: Seen
) -> AsyncGenerator[Json, None]:
    async with aclosing(backend.generate(request)) as deltas:
        async for delta in deltas:
            if delta.reasoning:
                yield chunk(seen, delta.reasoning, is_reasoning=True)
            reason = None if delta.finish is None else delta.finish.reason
            yield chunk(seen, delta.text, finish_reason=reason)
            if delta.finish is not None:
                counts = delta.finish.usage
                yield usage(seen, counts.prompt_tokens, counts.completion_tokens)


def main() -> None:
    """Serve in this process until it is ended, the port being written to a file once it can be reached."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--demo", action="store_true", help="answer with the demo model")
    options = parser.parse_args()
    with DemoServer() if options.demo else ScriptedServer() as server:
        unfinished = options.port_file.with_suffix(".part")
        unfinished.write_text(str(server.port), encoding="utf-8")
        unfinished.replace(options.port_file)
        threading.Event().wait()


if __name__ == "__main__":
    main()
