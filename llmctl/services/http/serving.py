"""Runs an app from its first request to its last: binds first, and ends in peace when it is told to."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from importlib.util import find_spec
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from llmctl.core.errors import LlmctlError
from llmctl.services.http.binding import BACKLOG, bind, url_of

log = logging.getLogger(__name__)

DRAIN_S = 30.0
KEEP_ALIVE_S = 75
"""Longer than clients and proxies keep an idle connection: to close it is theirs."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_UNWIND_S = 3.0
"""For requests that are cancelled to say so to their clients."""
_FLUSH_S = 1.0
"""For clients to take the last bytes."""


def serve(
    app: Starlette,
    *,
    host: str,
    port: int,
    name: str,
    on_bound: Callable[[str], None],
    drain_s: float = DRAIN_S,
) -> None:
    """Serve until SIGTERM; Ctrl-C does the same and then raises `KeyboardInterrupt`.

    `on_bound` gets the URL, with the real port, once connections can be made; they are answered when the
    app's lifespan has begun. At the first signal `/ready` says no, new requests are answered 503,
    `app.state.drain`, a coroutine function where there is one, is awaited, and open requests have `drain_s`
    to end before they are cancelled. A second signal ends the process at once. `name` is the app's in the
    log.

    Raises what `bind` raises, and what the app's lifespan raises.
    """
    with contextlib.closing(bind(host, port)) as listener:
        service = Service(app, listener, name=name, drain_s=drain_s)
        with hearing_signals(service.stop) as heard:
            url = url_of(listener)
            on_bound(url)
            log.info("the %s listens at %s", name, url)
            with asyncio.Runner(loop_factory=service.config.get_loop_factory()) as runner:
                runner.run(service.run())
    if signal.SIGINT in heard:
        raise KeyboardInterrupt


@contextlib.contextmanager
def hearing_signals(stop: Callable[[], None]) -> Iterator[list[signal.Signals]]:
    """Call `stop` at the first SIGTERM or SIGINT, which is in the list from then on; the second one kills.

    Elsewhere than in the main thread, where no signals can be heard, it does nothing.
    """
    heard: list[signal.Signals] = []

    def hear(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        heard.append(signal.Signals(number))
        stop()

    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = {each: signal.signal(each, hear) for each in _SIGNALS}
    try:
        yield heard
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class _Server(uvicorn.Server):
    """Uvicorn's, whose end is decided by `Service`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections, when what was to be sent is sent or `_FLUSH_S` is over."""
        for server in self.servers:
            server.close()
        connections = self.server_state.connections
        for connection in list(connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                while connections:
                    await asyncio.sleep(0.01)
        for connection in list(connections):
            if (transport := getattr(connection, "transport", None)) is not None:
                transport.abort()


class Service:
    """One app on one socket that listens; `serve` without the signals of a main thread."""

    def __init__(self, app: Starlette, listener: socket.socket, *, name: str, drain_s: float) -> None:
        self.config = _config(app)
        self._app = app
        self._listener = listener
        self._name = name
        self._drain_s = drain_s
        self._server = _Server(self.config)
        self._is_stopped = False
        self._is_begun = False
        """Whether the app's lifespan has begun."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until `stop`."""
        self._loop = asyncio.get_running_loop()
        if self._is_stopped:
            return
        self._running = asyncio.ensure_future(self._run())
        await asyncio.wait((self._running,))
        if not self._running.cancelled():
            self._running.result()

    def stop(self) -> None:
        """Begin to end. From any thread, from a signal's handler, and as often as one likes."""
        self._is_stopped = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._running is None or self._ending is not None:
            return
        if self._is_begun:
            self._ending = asyncio.ensure_future(self._end())
        else:
            self._running.cancel()

    async def _run(self) -> None:
        async with self._app.router.lifespan_context(self._app):
            self._is_begun = True
            await self._server.serve(sockets=[self._listener])
            if self._ending is not None:
                await self._ending

    async def _end(self) -> None:
        self._app.state.is_draining = True
        try:
            await self._say_goodbye()
            await self._wait_for_requests()
        finally:
            self._server.should_exit = True

    async def _say_goodbye(self) -> None:
        drain: Callable[[], Awaitable[None]] | None = getattr(self._app.state, "drain", None)
        if drain is None:
            return
        try:
            async with asyncio.timeout(self._drain_s):
                await drain()
        except TimeoutError:
            log.warning("the %s ends without having taken leave", self._name)
        except LlmctlError as error:
            log.warning("the %s ends without having taken leave: %s", self._name, error.message)

    async def _wait_for_requests(self) -> None:
        tasks = self._server.server_state.tasks
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_s
        if tasks:
            log.info("the %s ends when %d requests have, or in %g s", self._name, len(tasks), self._drain_s)
        while tasks and (left_s := deadline - loop.time()) > 0:
            # Requests that come in the meantime are refused, and so are over soon.
            await asyncio.wait(set(tasks), timeout=left_s)
        if tasks:
            log.warning("the %s ends with %d requests open", self._name, len(tasks))
            for task in tasks:
                task.cancel()
            await asyncio.wait(set(tasks), timeout=_UNWIND_S)


def _config(app: Starlette) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        # Its lines go where ours go.
        log_config=None,
        access_log=False,
        server_header=False,
        # Who asks is who is connected: the controller lets some in by that.
        proxy_headers=False,
        # `Service` has it, so that what it raises gets to the command line.
        lifespan="off",
        ws="none",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    if find_spec("httptools") is not None:
        from llmctl.services.http.protocol import PatientProtocol

        config.http = PatientProtocol
    return config
