"""A small part of a fleet, in a thread of the test's process or in a process of its own, and raw connections.

with ServedPart() as part, part.connect() as wire:
    reply = wire.ask("GET /health")

`python -m tests.services.http.part DRAIN_S HOW` runs one until it is told to end; it prints its URL first.
"""

import asyncio
import json
import re
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llmctl.core.errors import (
    AccessError,
    BusyError,
    ContextOverflowError,
    LlmctlError,
    NotFoundError,
    NoWorkerError,
    UnreachableError,
    UsageError,
)
from llmctl.services.http import base
from llmctl.services.http.binding import bind, url_of
from llmctl.services.http.bodies import parse_object, read_bytes, read_json
from llmctl.services.http.errors import ModelNotFoundError, ParameterError
from llmctl.services.http.events import EventStream, frame
from llmctl.services.http.guard import Keys
from llmctl.services.http.leaving import unless_left
from llmctl.services.http.serving import Service, serve

MAX_BYTES = 1000
SECRET = "the secret of the server"
FAILURES: dict[str, Callable[[], Exception]] = {
    "access": lambda: AccessError("not yours"),
    "busy": lambda: BusyError("5 requests wait", hint="try again later", retry_after_s=2.2),
    "context": lambda: ContextOverflowError("too long"),
    "defect": lambda: RuntimeError(SECRET),
    "failure": lambda: LlmctlError("it broke\nin two lines"),
    "model": lambda: ModelNotFoundError("no model 'x'", hint="there is demo"),
    "nobody": lambda: NoWorkerError("nobody serves it", retry_after_s=0.2),
    "parameter": lambda: ParameterError("top_p must be at most 1, not 2", param="top_p"),
    "status": lambda: HTTPException(418, "a teapot", {"X-Kind": "pot"}),
    "things": lambda: NotFoundError("no such thing"),
    "unreachable": lambda: UnreachableError("it does not answer"),
    "usage": lambda: UsageError("no"),
}
_LONGEST_S = 20.0


def failure(how: str) -> Exception:
    """A new one."""
    return FAILURES[how]()


class Seen:
    """What went on inside of the part."""

    def __init__(self) -> None:
        self.num_pulled = 0
        """Frames that a stream was asked for."""
        self.num_closed = 0
        """Streams and other work that was ended early, or came to its end."""
        self.why: str | None = None
        self.is_entered = False
        self.is_left = False


class Routes:
    """The endpoints."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    @property
    def all(self) -> list[Route]:
        """With their paths."""
        return [
            Route("/echo", self.echo, methods=["POST"]),
            Route("/patient", self.patient, methods=["POST"]),
            Route("/fail/{how}", self.fail),
            Route("/stream", self.stream),
            Route("/torn", self.torn),
            Route("/long", self.long),
            Route("/thing", self.named, methods=["GET"]),
            Route("/thing", self.named, methods=["PUT", "DELETE"]),
            Route("/models/{id:path}", self.named),
        ]

    async def echo(self, request: Request) -> Response:
        """The body."""
        return JSONResponse({"got": await read_json(request, max_bytes=MAX_BYTES)})

    async def patient(self, request: Request) -> Response:
        """The body, for which not much time is given."""
        raw = await read_bytes(request, silence_s=0.2)
        return JSONResponse({"got": parse_object(raw)})

    async def fail(self, request: Request) -> Response:
        """Raise."""
        raise failure(request.path_params["how"])

    async def stream(self, request: Request) -> Response:
        """`n` events of `size` with `pause` between them; `early` and `late` are failures."""
        return EventStream(self._frames(request.query_params), keep_alive_s=0.15)

    async def _frames(self, query: Any) -> AsyncGenerator[bytes, None]:
        try:
            await asyncio.sleep(float(query.get("before", 0)))
            if early := query.get("early"):
                raise failure(early)
            for number in range(int(query.get("n", 3))):
                self.seen.num_pulled += 1
                yield frame(str(number) + "." * int(query.get("size", 0)))
                await asyncio.sleep(float(query.get("pause", 0)))
            if late := query.get("late"):
                raise failure(late)
        finally:
            self.seen.num_closed += 1

    async def torn(self, request: Request) -> Response:
        """An answer that breaks in the middle, with nobody to tell it."""

        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise failure(request.query_params["how"])

        return StreamingResponse(pieces())

    async def long(self, request: Request) -> Response:
        """An answer that takes a minute."""
        return JSONResponse(await unless_left(request, self._minute()))

    async def _minute(self) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            self.seen.num_closed += 1
        return "done"

    async def named(self, request: Request) -> Response:
        """What the client is and wants."""
        state = request.scope["state"]
        return JSONResponse({"id": request.path_params.get("id"), "request": state["request_id"]})


def made(seen: Seen, *, keys: Keys | None = None) -> Starlette:
    """The app."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        seen.is_entered = True
        yield
        seen.is_left = True

    return base.build(
        Routes(seen).all,
        keys=keys or Keys(),
        registry=CollectorRegistry(),
        why_not_ready=lambda: seen.why,
        description={"openapi": "3.1.0"},
        lifespan=lifespan,
    )


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    is_whole: bool = True
    """Whether it came to the end that its head told."""

    @property
    def json(self) -> Any:
        """Of the body."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error of the body, which has OpenAI's shape."""
        return error_of(self.body)


def error_of(raw: bytes) -> Any:
    """The error that is all of `raw`."""
    found = json.loads(raw)
    assert found.keys() == {"error"}
    assert found["error"].keys() == {"message", "type", "param", "code"}
    return found["error"]


class Wire:
    """A connection, of which a test sees every byte."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_LONGEST_S)
        self.held = b""
        """What came and was not taken."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def ask(self, what: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send a request, and take its answer; `_` in names of headers is `-`."""
        self.send(head(what, body, **headers) + (body or b""))
        return self.reply(has_body=not what.startswith("HEAD"))

    def reply(self, *, has_body: bool = True) -> Reply:
        """Take one answer."""
        top = self.until(b"\r\n\r\n").decode()
        first, *lines = top.removesuffix("\r\n\r\n").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        assert len({name.lower() for name, _ in pairs}) == len(pairs), top
        headers = {name.lower(): value for name, value in pairs}
        status = int(first.split()[1])
        if not has_body or status == 204:
            return Reply(status, headers, b"")
        if "content-length" in headers:
            return Reply(status, headers, self.exactly(int(headers["content-length"])))
        return Reply(status, headers, *self._chunks())

    def until(self, mark: bytes) -> bytes:
        """Take what comes, up to `mark`."""
        while mark not in self.held:
            self._take_more(mark)
        before, found, self.held = self.held.partition(mark)
        return before + found

    def await_(self, mark: bytes) -> None:
        """Wait for `mark`, and take nothing."""
        while mark not in self.held:
            self._take_more(mark)

    def exactly(self, count: int) -> bytes:
        """Take so many bytes."""
        while len(self.held) < count:
            self._take_more(count)
        taken, self.held = self.held[:count], self.held[count:]
        return taken

    def rest(self) -> bytes:
        """Take all until the server closes."""
        while data := self.socket.recv(65536):
            self.held += data
        taken, self.held = self.held, b""
        return taken

    def _take_more(self, wanted: object) -> None:
        data = self.socket.recv(65536)
        assert data, f"it ended before {wanted!r}: {self.held!r}"
        self.held += data

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            try:
                size = int(self.until(b"\r\n"), 16)
                body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            except AssertionError:
                return body, False
            if size == 0:
                return body, True


def head(what: str, body: bytes | None = None, **headers: str) -> bytes:
    """The head of a request like `GET /path`."""
    given = {"Host": "x", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body is not None:
        given.setdefault("Content-Length", str(len(body)))
    lines = [f"{what} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def until(is_so: Callable[[], bool], *, within_s: float = _LONGEST_S) -> float:
    """Wait until something is so; how long it took."""
    begin = time.monotonic()
    while not is_so():
        assert time.monotonic() - begin < within_s, "it did not come"
        time.sleep(0.002)
    return time.monotonic() - begin


class ServedPart:
    """The part in a thread, by a real uvicorn."""

    def __init__(self, *, keys: Keys | None = None, drain_s: float = 5.0) -> None:
        self.seen = Seen()
        self.app = made(self.seen, keys=keys)
        self._listener = bind("127.0.0.1", 0)
        self.port = int(url_of(self._listener).rpartition(":")[2])
        self._service = Service(self.app, self._listener, name="part", drain_s=drain_s)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.ask("GET /health").status == 200
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.wait()
        self._listener.close()

    def connect(self) -> Wire:
        """A new connection."""
        return Wire(self.port)

    def ask(self, what: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own."""
        with self.connect() as wire:
            return wire.ask(what, body, **headers)

    def stop(self) -> None:
        """Tell it to end."""
        self._service.stop()

    def wait(self) -> None:
        """Until it has ended."""
        self._thread.join(timeout=_LONGEST_S)
        assert not self._thread.is_alive(), "it does not end"

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._service.run())


def metric(text: str, name: str) -> float | None:
    """The value of a line of `/metrics`; None where there is none."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return None if found is None else float(found[1])


def events(raw: bytes) -> Iterator[bytes]:
    """The data of all events."""
    for block in raw.split(b"\n\n"):
        if block.startswith(b"data: "):
            yield block.removeprefix(b"data: ")


def main(drain_s: str, how: str = "") -> None:
    """Run one in this process; `how` is `hang` for a farewell that never ends, `fail` for one that fails."""
    seen = Seen()
    app = made(seen)

    async def drain() -> None:
        tell("draining")
        if how == "hang":
            await asyncio.sleep(60)
        if how == "fail":
            raise UnreachableError("the controller does not answer")

    app.state.drain = drain
    if how == "start":
        app.router.lifespan_context = _broken
    serve(app, host="127.0.0.1", port=0, name="part", on_bound=tell, drain_s=float(drain_s))
    tell(f"ended, closed {seen.num_closed}, lifespan {'over' if seen.is_left else 'not over'}")


@asynccontextmanager
async def _broken(_: Starlette) -> AsyncIterator[None]:
    raise AccessError("the controller refuses")
    yield


def tell(text: str) -> None:
    """Say something to whoever started this process."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
