"""A gateway in the test's own event loop, and a client that sees bytes.

async with FakeWorker() as worker, RunningGateway(worker) as gateway:
    async with gateway.connect() as wire:
        reply = await wire.post("/v1/chat/completions", model="fake", stream=True)
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import uvicorn

from llmctl.services.api.app import Settings, build
from llmctl.services.fleet import FleetView
from llmctl.services.http.binding import bind
from llmctl.services.http.guard import Keys
from llmctl.services.http.serving import Service
from llmctl.services.wire import ModelState
from tests.services.fake_worker import FakeWorker
from tests.services.fleet_states import listing, worker

T = TypeVar("T")
CONTROLLER = "http://127.0.0.1:1"
CHAT = "/v1/chat/completions"


def run(work: Coroutine[Any, Any, T], *, limit_s: float = 20.0) -> T:
    """The result of a test's coroutine, which must not hang."""

    async def limited() -> T:
        async with asyncio.timeout(limit_s):
            return await work

    return asyncio.run(limited())


class ToldFleet(FleetView):
    """A table that a test wrote; no controller is asked."""

    def __init__(self) -> None:
        super().__init__([CONTROLLER], token=None)

    async def __aenter__(self) -> Self:
        return self

    async def wait_for_answer(self, timeout_s: float) -> bool:
        """It is there."""
        return True


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Names in lower case."""
    body: bytes
    chunks: tuple[bytes, ...] = ()
    is_whole: bool = True
    """Whether the body ended as its head said."""

    @property
    def json(self) -> Any:
        """Of the body."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error of the body."""
        assert list(self.json) == ["error"]
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        return self.json["error"]

    @property
    def events(self) -> list[bytes]:
        """The data of its events; nothing else is in the body."""
        *events, rest = self.body.split(b"\n\n")
        assert rest == b""
        assert all(event.startswith(b"data: ") and b"\n" not in event for event in events)
        return [event[6:] for event in events]

    def header(self, name: str) -> str:
        """The one value under a name, "" for none."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, values
        return values[0] if values else ""


class Wire:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def post(self, path: str, *headers: str, **body: Any) -> Reply:
        """The answer to a POST of JSON."""
        self.send_json(path, *headers, **body)
        return await self.reply()

    async def get(self, path: str, *headers: str, method: str = "GET") -> Reply:
        """The answer to a request without a body."""
        self.send("\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode())
        return await self.reply(has_body=method != "HEAD")

    def send_json(self, path: str, *headers: str, **body: Any) -> None:
        """Write a POST."""
        raw = json.dumps(body).encode()
        kind = () if any(each.lower().startswith("content-type") for each in headers) else (JSON,)
        fields = ("Host: localhost", *kind, *headers, f"Content-Length: {len(raw)}")
        self.send("\r\n".join((f"POST {path} HTTP/1.1", *fields, "", "")).encode() + raw)

    def send(self, raw: bytes) -> None:
        """Write bytes."""
        self.writer.write(raw)

    async def head(self) -> tuple[int, tuple[tuple[str, str], ...]]:
        """Status and headers of the next answer."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")[:-4].split("\r\n")
        headers = tuple((key.lower(), value.strip()) for key, _, value in (x.partition(":") for x in lines))
        assert len([key for key, _ in headers if key in ("content-length", "transfer-encoding")]) <= 1
        return int(first.split()[1]), headers

    async def reply(self, *, has_body: bool = True) -> Reply:
        """The next answer; one that breaks off is not whole."""
        status, headers = await self.head()
        told = dict(headers)
        if not has_body:
            return Reply(status, headers, b"")
        if "content-length" in told:
            try:
                return Reply(status, headers, await self.reader.readexactly(int(told["content-length"])))
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                return Reply(status, headers, getattr(error, "partial", b""), is_whole=False)
        chunks: list[bytes] = []
        is_whole = "transfer-encoding" not in told
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not is_whole:
                chunks.append(await self.chunk())
                is_whole = not chunks[-1]
        return Reply(status, headers, b"".join(chunks), tuple(chunks[:-1] if is_whole else chunks), is_whole)

    async def chunk(self) -> bytes:
        """The next chunk of a body, b"" for its last."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        chunk = await self.reader.readexactly(size + 2)
        assert chunk[-2:] == b"\r\n"
        return chunk[:-2]

    async def close(self) -> None:
        """Leave."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Wire]:
    """A connection to a server of this machine."""
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield wire
    finally:
        await wire.close()


JSON = "Content-Type: application/json"


class RunningGateway:
    """Serves from `__aenter__` to `__aexit__`."""

    def __init__(
        self,
        *workers: FakeWorker,
        models: tuple[ModelState, ...] = (ModelState(name="fake", max_running=64),),
        token: str | None = None,
        keys: tuple[str, ...] = (),
        timeout_s: float = 5.0,
        origins: tuple[str, ...] = (),
    ) -> None:
        self.fleet = ToldFleet()
        self.workers = workers
        self.models = models
        self._settings = Settings(keys=Keys.of(keys), token=token, timeout_s=timeout_s, origins=origins)

    def tell(self, *workers: FakeWorker, is_even: bool = False) -> None:
        """Make these the fleet; the first is the one to choose, then the second, unless it `is_even`."""
        states = (
            worker(number, url=each.url, models=self.models, max_running=64, **waiting)
            for number, each in enumerate(workers)
            for waiting in ({"num_waiting": 0 if is_even else 1000 * number},)
        )
        self.fleet.take(CONTROLLER, listing(*states))

    async def __aenter__(self) -> Self:
        self.tell(*self.workers)
        self.app = build(self.fleet, self._settings)
        listener = bind("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        self.service = Service(self.app, listener, name="gateway", drain_s=0.0)
        self._look_often(self.service._server)
        self._serving = asyncio.create_task(self.service.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.service.stop()
        await self._serving

    @staticmethod
    def _look_often(server: uvicorn.Server) -> None:
        """Uvicorn looks every 0.1 s whether it is to end: more than the rest of most tests."""

        async def main_loop() -> None:
            await server.on_tick(0)
            while not server.should_exit:
                await asyncio.sleep(0.005)

        server.main_loop = main_loop  # type: ignore[method-assign]

    def connect(self) -> AbstractAsyncContextManager[Wire]:
        """A connection of a client."""
        return connected(self.port)

    async def post(self, path: str = CHAT, *headers: str, **body: Any) -> Reply:
        """The answer to one request on a connection of its own."""
        async with self.connect() as wire:
            return await wire.post(path, *headers, **{"model": "fake"} | body)

    async def get(self, path: str, *headers: str, method: str = "GET") -> Reply:
        """The answer to one request without a body on a connection of its own."""
        async with self.connect() as wire:
            return await wire.get(path, *headers, method=method)
