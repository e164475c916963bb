"""A controller in a thread, by the server that the command runs, on a free port of 127.0.0.1."""

import asyncio
import threading
from types import TracebackType
from typing import Any, Self

import httpx2

from llmctl.services import wire
from llmctl.services.controller.app import Settings, build
from llmctl.services.dispatch import Method
from llmctl.services.http.binding import bind, url_of
from llmctl.services.http.guard import Keys
from llmctl.services.http.serving import Service
from llmctl.services.wire import WorkerState


class ServedController:
    """Served from `__enter__` to `__exit__`; `ask` is an HTTP client for it that shows the token."""

    def __init__(
        self,
        *,
        token: str | None = None,
        interval_s: float = 2.0,
        method: Method = "least-wait",
        port: int = 0,
    ) -> None:
        keys = Keys.of([] if token is None else [token])
        self.app = build(Settings(keys=keys, method=method, interval_s=interval_s))
        self._listener = bind("127.0.0.1", port)
        self.url = url_of(self._listener)
        self._service = Service(self.app, self._listener, name="controller", drain_s=3.0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.ask = httpx2.Client(base_url=self.url, headers=headers, timeout=10, trust_env=False)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.ask.get("/health").json() == {"status": "ok"}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ask.close()
        self.stop()
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()
        self._listener.close()

    def stop(self) -> None:
        """Tell it to end."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._service.stop)

    def tell(self, state: WorkerState, **fields: Any) -> httpx2.Response:
        """Register a worker, `fields` overriding what it says."""
        return self.ask.post("/workers", json={**wire.to_json(state), **fields})

    def ids(self) -> list[str]:
        """The workers in the table."""
        return [each["id"] for each in self.ask.get("/workers").json()["workers"]]

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._service.run())
