"""HTTP/1.1 to one server that is measured: kept connections, and no work for a token but reading it.

An answer goes to its `Answer` as its bytes arrive, without waking the task that asked. It goes straight to
the server: proxies of the environment are not heard.
"""

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from llmctl import __version__
from llmctl.bench.answers import Answer, RequestFailedError

clock = time.perf_counter
"""Seconds; unlike the time of an event loop it does not stand still between two of its turns."""
_MAX_CONNECT_S = 10.0
_INFORMATIONAL = range(100, 200)


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where requests go."""

    base_url: str
    """http or https, with the path before `/chat/completions`, without a slash at the end."""
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    """For each silence of the server."""

    @cached_property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        split = urlsplit(self.base_url)
        return split.hostname or "", split.port or (443 if self.is_encrypted else 80)

    @property
    def is_encrypted(self) -> bool:
        """Whether it is https."""
        return self.base_url.startswith("https://")

    def get(self, path: str) -> bytes:
        """A whole request for what lies under `path`."""
        return self._head("GET", path) + b"\r\n"

    def post(self, path: str, body: bytes) -> bytes:
        """A whole request with a JSON body."""
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return self._head("POST", path) + length.encode() + body

    def _head(self, method: str, path: str) -> bytes:
        split = urlsplit(self.base_url)
        lines = [
            f"{method} {split.path}{path} HTTP/1.1",
            f"Host: {split.netloc.encode('idna').decode()}",
            f"User-Agent: llmctl/{__version__}",
            "Accept: text/event-stream, application/json",
            "Accept-Encoding: identity",
        ]
        if self.api_key is not None:
            lines.append(f"Authorization: Bearer {self.api_key}")
        return "".join(f"{line}\r\n" for line in lines).encode()


class Client:
    """As many connections to a server as requests are under way; within `async with`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._idle: list[_Connection] = []
        self._tls = ssl.create_default_context() if server.is_encrypted else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        # What was closed is told to its protocol in the loop's next turn.
        await asyncio.sleep(0)

    async def ask(self, request: bytes) -> Answer:
        """Send a whole request and read the whole answer, whatever its status.

        Raises `RequestFailedError`. A cancellation closes the connection at once.
        """
        while True:
            kept = self._kept()
            connection = kept or await self._connect()
            answer = Answer(secret=self.server.api_key)
            try:
                await connection.ask(request, answer, timeout_s=self.server.timeout_s)
            except RequestFailedError as error:
                # The server closed it just then for having been idle.
                if kept is not None and error.kind == RequestFailedError.LOST and not answer.status:
                    continue
                raise
            if connection.can_be_used_again:
                self._idle.append(connection)
            else:
                connection.close()
            return answer

    def _kept(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.can_be_used_again:
                return connection
        return None

    async def _connect(self) -> "_Connection":
        host, port = self.server.place
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(min(self.server.timeout_s, _MAX_CONNECT_S)):
                _, connection = await loop.create_connection(_Connection, host, port, ssl=self._tls)
        except TimeoutError as error:
            raise RequestFailedError("no connection", "it does not answer") from error
        except OSError as error:
            raise RequestFailedError("no connection", _reason(error)) from error
        return connection


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._answer: Answer | None = None
        self._done: asyncio.Future[None] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._has_head = self._is_kept = self._has_ended = False
        self._heard = 0.0

    async def ask(self, request: bytes, answer: Answer, *, timeout_s: float) -> None:
        """Send, and wait until `answer` is whole; of no use afterwards if this fails or is cancelled."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self._parser, self._answer, self._done = HttpResponseParser(self), answer, loop.create_future()
        self._has_head = self._is_kept = False
        self._headers.clear()
        self._heard = clock()
        self._transport.write(request)
        timer = loop.create_task(self._watch(timeout_s))
        try:
            await self._done
        finally:
            timer.cancel()
            if not answer.is_whole:
                self._transport.abort()
            self._parser = self._answer = self._done = None

    @property
    def can_be_used_again(self) -> bool:
        """Whether the server keeps it for another request."""
        return self._is_kept and not self._has_ended

    def close(self) -> None:
        """Leave."""
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._heard = now = clock()
        if self._parser is None or self._answer is None:
            self._is_kept = False
            return
        self._answer.now = now
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail(RequestFailedError("garbled", "what came is no HTTP"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._has_ended = True
        is_open_ended = b"content-length" not in self._headers and b"transfer-encoding" not in self._headers
        has_all = self._answer is not None and self._answer.is_finished
        if has_all or (self._has_head and is_open_ended and exc is None):
            self._finish()
        else:
            self._fail(RequestFailedError(RequestFailedError.LOST, "the connection ended before the answer"))

    # --- httptools ---------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if not self._has_head:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """See httptools."""
        assert self._parser is not None
        assert self._answer is not None
        status = self._parser.get_status_code()
        if status in _INFORMATIONAL:
            self._headers.clear()
            return
        self._has_head, self._is_kept = True, self._parser.should_keep_alive()
        self._answer.begin(status, self._headers.get(b"content-type", b""))

    def on_body(self, piece: bytes) -> None:
        """See httptools."""
        if self._answer is not None:
            self._answer.feed(piece)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._has_head:
            self._finish()

    # --- inside ------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        if self._answer is not None and self._done is not None and not self._done.done():
            self._answer.end(clock())
            self._done.set_result(None)

    def _fail(self, error: RequestFailedError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    async def _watch(self, timeout_s: float) -> None:
        """One timer for the whole answer: one for each piece would cost more than the piece."""
        while (left_s := self._heard + timeout_s - clock()) > 0:
            await asyncio.sleep(left_s)
        self._fail(RequestFailedError("timeout", f"it said nothing for {timeout_s:g} s"))


def _reason(error: OSError) -> str:
    match error:
        case ConnectionRefusedError():
            return "nothing listens there"
        case socket.gaierror():
            return "no host has this name"
        case ssl.SSLCertVerificationError():
            return "its certificate is not one that this machine trusts"
        case ssl.SSLError():
            return "it does not speak https"
        # Of a name with several addresses, none of which answered.
        case _ if "Connect call failed" in str(error):
            return "nothing listens there"
        case _:
            return error.strerror or str(error)
