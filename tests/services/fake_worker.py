"""A worker without a model: OpenAI's events at a chosen rate, and faults on demand.

    async with FakeWorker(rate=50) as worker:
        ...  # worker.url, worker.asked

A fault is named by the `user` field of a request (see `FAULTS`), or for all requests by `worker.fault`. It
is its own HTTP server, so that tests see what the gateway makes of bytes that a good one would never send,
and so that eight of them load a machine less than what is measured. As a process of its own:

    python -m tests.services.fake_worker --controller http://127.0.0.1:21001 --model fake --rate 50
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import uvloop

from llmctl.services import wire
from llmctl.services.api.faults import UpstreamError
from llmctl.services.api.upstream import Call, Upstream
from llmctl.services.wire import ModelState, WorkerState

FAULTS = {
    "reset": "the connection is reset before any byte",
    "close": "the connection is closed before any byte",
    "head": "the connection is closed behind the head",
    "cut:N": "the connection is closed behind N frames",
    "torn:N": "the connection is closed within the frame behind N whole ones",
    "crash:N": "the connection is reset behind N frames",
    "done": "the connection is closed behind [DONE], without the end of the chunks",
    "hang": "nothing ever comes",
    "hang:N": "nothing comes behind N frames",
    "status:N": "that status, with Retry-After: 7",
    "garbage": "no HTTP",
    "stale": "a whole answer, and the connection is closed a moment later, without a word in the head",
    "size:N": "a JSON body of N bytes",
    "half": "half of a JSON body",
    "slow": "a JSON body byte by byte",
    "flood": "a head without end",
    "hop": "a JSON body under headers that are of one connection",
    "split": "events in chunks that end anywhere",
    "quiet": "events whose chunks end as they should, but without [DONE]",
    "old": "a body that ends with its connection",
    "interim": "a head of status 103 before the answer",
}
_FRAME = (
    b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1,"model":"fake","choices":'
    b'[{"index":0,"delta":{"content":"token %d "},"logprobs":null,"finish_reason":null}]}\n\n'
)
_STOP = _FRAME.replace(b'"content":"token %d "', b"").replace(b":null}]}", b':"stop"}]}')
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    line: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case."""
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON of the body."""
        return json.loads(self.raw)

    def header(self, name: str) -> list[str]:
        """All values under a name."""
        return [value for key, value in self.headers if key == name]


class FakeWorker:
    """Serves from `__aenter__` to `__aexit__`."""

    def __init__(self, *, rate: float = 200.0, num_tokens: int = 8, fault: str = "", port: int = 0) -> None:
        """`rate` is of frames per second and stream; a request's `max_tokens` wins over `num_tokens`."""
        self.rate, self.num_tokens, self.fault, self.port = rate, num_tokens, fault, port
        self.asked: list[Asked] = []
        self.num_connections = 0
        """Ever made."""
        self.streams: set[Stream] = set()
        self.left = asyncio.Event()
        """Set when a client leaves before the end of its answer."""
        self.connections: set[Wire] = set()

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Wire(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._steps = asyncio.create_task(self._step())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._steps.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._steps
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await self._server.wait_closed()

    async def stop(self) -> None:
        """No connection is taken any more, and all are reset."""
        await self.__aexit__(None, None, None)

    async def _step(self) -> None:
        """As an engine does it: a step gives one token to each stream."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for stream in list(self.streams):
                if stream.step():
                    self.streams.discard(stream)
            due = max(due + 1 / self.rate, loop.time() - 1.0)
            await asyncio.sleep(max(0.0, due - loop.time()))


class Stream:
    """An answer that is being written."""

    def __init__(self, wire: "Wire", *, num_tokens: int, fault: str) -> None:
        self.wire, self.num_tokens = wire, num_tokens
        self.kind, _, after = fault.partition(":")
        self.after = int(after or 0)
        self.num_sent = 0
        wire.head(200, "text/event-stream; charset=utf-8", None)

    def step(self) -> bool:
        """Write the next frame; whether it was the last."""
        if self.kind and self.kind not in ("stale", "done") and self.num_sent >= self.after:
            return self._fail()
        if self.wire.is_paused:
            return False
        if self.num_sent < self.num_tokens:
            self.wire.chunk(_FRAME % self.num_sent)
            self.num_sent += 1
            return False
        self.wire.chunk(_STOP)
        self.wire.chunk(_DONE)
        self.wire.stream = None
        if self.kind == "done":
            self.wire.transport.close()
        else:
            self.wire.transport.write(b"0\r\n\r\n")
        return True

    def _fail(self) -> bool:
        if self.kind == "hang":
            return False
        self.wire.stream = None
        if self.kind == "torn":
            self.wire.chunk(_FRAME[:40])
        if self.kind == "crash":
            self.wire.transport.abort()
        else:
            self.wire.transport.close()
        return True


class Wire(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker, self.stream = worker, cast("Stream | None", None)
        self.is_paused = self.is_owing = False
        self.dies_at_next = False
        """Resets the connection instead of an answer."""
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.worker.num_connections += 1
        self.worker.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.connections.discard(self)
        if self.stream is not None:
            self.worker.streams.discard(self.stream)
            self.stream, self.is_owing = None, True
        if self.is_owing:
            self.worker.left.set()

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = tuple((name.lower(), value.strip()) for name, _, value in (x.partition(":") for x in lines))
        length = int(dict(headers).get("content-length", 0))
        if len(rest) < length:
            return
        self._received = rest[length:]
        if self.dies_at_next:
            self.transport.abort()
            return
        asked = Asked(line, headers, rest[:length])
        self.worker.asked.append(asked)
        self._answer(asked)

    def head(self, status: int, kind: str, length: int | None, *more: str) -> None:
        """Write the head of an answer; chunked without a length."""
        size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        lines = (f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", size, *more, "X-Fake: yes", "", "")
        self.transport.write("\r\n".join(lines).encode())

    def chunk(self, piece: bytes) -> None:
        """Write a chunk."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def _answer(self, asked: Asked) -> None:
        body = asked.body if asked.raw else {}
        fault = str(body.get("user") or self.worker.fault)
        kind, _, number = fault.partition(":")
        if (instead := _INSTEAD.get(fault if kind == "hang" else kind)) is not None:
            instead(self, number)
        elif body.get("stream"):
            num_tokens = int(body.get("max_tokens") or self.worker.num_tokens)
            self.stream = Stream(self, num_tokens=num_tokens, fault=fault)
            self.worker.streams.add(self.stream)
        elif isinstance(prompts := body.get("prompts"), list):
            checked = [
                {"fits": True, "tokenCount": each["max_tokens"], "contextLength": 9} for each in prompts
            ]
            self.json(200, {"prompts": checked})
        else:
            self.json(200, {"object": "answer", "by": self.worker.port, "path": asked.line.split()[1]})
        if kind == "stale":
            asyncio.get_running_loop().call_later(0.05, self.transport.close)

    def json(self, status: int, value: object, *more: str) -> None:
        """Write a whole answer."""
        raw = json.dumps(value).encode()
        self.head(status, "application/json", len(raw), *more)
        self.transport.write(raw)


def _reset(wire: Wire, _: str) -> None:
    wire.transport.abort()


def _close(wire: Wire, _: str) -> None:
    wire.transport.close()


def _head(wire: Wire, _: str) -> None:
    wire.head(200, "text/event-stream", None)
    wire.transport.close()


def _hang(wire: Wire, _: str) -> None:
    wire.is_owing = True


def _status(wire: Wire, number: str) -> None:
    error = {"message": f"fault {number}", "type": "server_error", "param": None, "code": "fault"}
    wire.json(int(number), {"error": error}, "Retry-After: 7")


def _garbage(wire: Wire, _: str) -> None:
    wire.transport.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def _size(wire: Wire, number: str) -> None:
    wire.head(200, "application/json", int(number))
    wire.transport.write(b'"' + b"x" * (int(number) - 2) + b'"')


def _half(wire: Wire, _: str) -> None:
    wire.head(200, "application/json", 1000)
    wire.transport.write(b'{"choices": [')
    wire.transport.close()


def _slow(wire: Wire, _: str) -> None:
    raw = b'{"object": "slow"}'
    wire.head(200, "application/json", len(raw))
    for index, byte in enumerate(raw):
        asyncio.get_running_loop().call_later(index / 100, wire.transport.write, bytes([byte]))


def _flood(wire: Wire, _: str) -> None:
    wire.transport.write(b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 100_000)


def _old(wire: Wire, _: str) -> None:
    wire.transport.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\nuntil the end")
    wire.transport.close()


def _quiet(wire: Wire, _: str) -> None:
    wire.head(200, "text/event-stream", None)
    wire.chunk(_FRAME % 0)
    wire.transport.write(b"0\r\n\r\n")


def _interim(wire: Wire, _: str) -> None:
    wire.transport.write(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
    wire.json(200, {})


def _hop(wire: Wire, _: str) -> None:
    more = ("Connection: keep-alive, X-Hop", "Keep-Alive: timeout=5", "Upgrade: h2c", "Server: fake")
    wire.json(200, {}, *more, "Date: then", "X-Request-Id: other", "X-Kept: yes")


def _split(wire: Wire, _: str) -> None:
    wire.head(200, "text/event-stream", None)
    raw = b"".join(_FRAME % number for number in range(3)) + _STOP + _DONE
    for start in range(0, len(raw), 100):
        piece = raw[start : start + 100]
        asyncio.get_running_loop().call_later(start / 20_000, wire.chunk, piece)
    asyncio.get_running_loop().call_later(len(raw) / 20_000, wire.transport.write, b"0\r\n\r\n")


_INSTEAD: dict[str, Callable[[Wire, str], None]] = {
    "reset": _reset,
    "close": _close,
    "head": _head,
    "hang": _hang,
    "status": _status,
    "garbage": _garbage,
    "size": _size,
    "half": _half,
    "slow": _slow,
    "flood": _flood,
    "hop": _hop,
    "split": _split,
    "quiet": _quiet,
    "old": _old,
    "interim": _interim,
}


async def heartbeats(worker: FakeWorker, controller: str, state: dict[str, Any], interval_s: float) -> None:
    """Tell a controller of the worker, for ever; while it is away nothing happens."""
    upstream = Upstream()
    headers = [(b"Content-Type", b"application/json")]
    while True:
        state["num_running"] = len(worker.streams)
        call = Call("/workers", headers, json.dumps(state).encode())
        with contextlib.suppress(UpstreamError):
            await tell(upstream, controller, call)
        await asyncio.sleep(interval_s)


async def tell(upstream: Upstream, url: str, call: Call) -> int:
    """The status of an answer, whose body is thrown away."""
    with contextlib.closing(await upstream.post(url, call, timeout_s=2.0)) as answer:
        while await answer.read():
            pass
        return answer.status


def state_of(worker: FakeWorker, *models: str) -> dict[str, Any]:
    """What the worker tells a controller."""
    state = WorkerState(
        url=worker.url,
        id=f"fake-{worker.port}-{uuid.uuid4().hex[:8]}",
        models=tuple(ModelState(name=name, max_running=64) for name in models),
        max_running=64,
        version="0",
    )
    return wire.to_json(state)


async def main() -> None:
    """Serve until SIGTERM; the port is told as a line of stdout."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--controller", action="append", default=[])
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--fault", default="")
    parser.add_argument("--interval", type=float, default=0.5)
    parser.add_argument("--port", type=int, default=0)
    flags = parser.parse_args()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    worker = FakeWorker(rate=flags.rate, num_tokens=flags.tokens, fault=flags.fault, port=flags.port)
    async with worker, asyncio.TaskGroup() as group:
        state = state_of(worker, *(flags.model or ["fake"]))
        beats = [
            group.create_task(heartbeats(worker, controller, dict(state), flags.interval))
            for controller in flags.controller
        ]
        sys.stdout.write(f"{worker.port}\n")
        sys.stdout.flush()
        await stopped.wait()
        for beat in beats:
            beat.cancel()


if __name__ == "__main__":
    uvloop.run(main())
