"""Workers in a thread of the test's own process, and a client that can leave in the middle.

with Served(worker_of(FakeText())) as served:
    answer = served.post("/v1/chat/completions", model="fake", messages=HELLO)
"""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import httpx2
from starlette.applications import Starlette

from llmctl.services.http.binding import bind, url_of
from llmctl.services.http.guard import Keys
from llmctl.services.http.serving import Service
from llmctl.services.worker.app import build
from llmctl.services.worker.hosted import Hosted
from llmctl.services.worker.worker import Fleet, Worker

HELLO = [{"role": "user", "content": "hello"}]
_LONGEST_S = 20.0


def until(is_so: Callable[[], bool], *, within_s: float = _LONGEST_S) -> float:
    """Wait until something is so; returns how long it took."""
    begin = time.monotonic()
    while not is_so():
        assert time.monotonic() - begin < within_s, "it did not come"
        time.sleep(0.005)
    return time.monotonic() - begin


class ServedApp:
    """An app at a free port, from `__enter__` to `__exit__`."""

    def __init__(self, app: Starlette, *, port: int = 0) -> None:
        self._listener = bind("127.0.0.1", port)
        self.url = url_of(self._listener)
        self._service = Service(app, self._listener, name="test", drain_s=2.0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.client = httpx2.Client(base_url=self.url, timeout=_LONGEST_S, trust_env=False)

    def __enter__(self) -> Self:
        self._thread.start()
        until(self._answers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.stop()
        self._thread.join(timeout=_LONGEST_S)
        assert not self._thread.is_alive(), "the server does not stop"
        self._listener.close()

    def stop(self) -> None:
        """Begin to end."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._service.stop)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._service.run())

    def _answers(self) -> bool:
        return self.client.get("/health").status_code == 200


class Served(ServedApp):
    """A worker that is ready to answer."""

    def __init__(
        self,
        load: Callable[[], Sequence[Hosted]],
        *,
        fleet: Fleet | None = None,
        keys: Keys | None = None,
        is_awaited: bool = True,
    ) -> None:
        """`is_awaited`: whether the models are there when the block begins."""
        self._is_awaited = is_awaited
        self.worker = Worker(fleet or Fleet(), load)
        super().__init__(build(self.worker, keys=keys or Keys()))
        self.worker.bound(self.url)

    def __enter__(self) -> Self:
        super().__enter__()
        if self._is_awaited:
            until(lambda: self.worker.why_not_ready() is None)
        return self

    @property
    def num_running(self) -> int:
        """Requests that the models work on."""
        return self.worker.models.load.num_running

    def post(self, path: str, **body: Any) -> httpx2.Response:
        """Ask, and wait for the whole answer."""
        return self.client.post(path, json=body)

    def json(self, path: str, **body: Any) -> Any:
        """The answer, which must be one."""
        response = self.post(path, **body)
        assert response.status_code == 200, response.text
        return response.json()

    def error(self, status: int, path: str, **body: Any) -> Any:
        """The error, which must come with this status."""
        response = self.post(path, **body)
        assert response.status_code == status, response.text
        return response.json()["error"]

    @contextlib.contextmanager
    def asked(self, path: str, **body: Any) -> Iterator[socket.socket]:
        """A connection on which the request is sent; leaving the block closes it."""
        host, port = self.url.removeprefix("http://").split(":")
        raw = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(raw)}\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=_LONGEST_S) as connection:
            connection.sendall(head.encode() + raw)
            yield connection


def events(response: httpx2.Response) -> list[Any]:
    """The chunks of a stream, whose last event must be `[DONE]`."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
