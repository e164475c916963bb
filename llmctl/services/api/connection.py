"""One HTTP/1.1 connection to a worker: one request at a time, the answer's body in the pieces that came.

Made for streams: what lies in one read of the socket is one piece, and nothing is read ahead of a reader
that is slow. Pools and second tries are `upstream`'s.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from llmctl.services.api.faults import GarbledError, LostError, SilentError, StalledError, UpstreamError

Headers = list[tuple[bytes, bytes]]

_MAX_HELD_BYTES = 256 * 1024
"""Above it the socket is not read until somebody takes what is there."""
_MAX_HEAD_BYTES = 64 * 1024
_PROBES = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds and a count; systems that do not know one of them have their own."""
_INFORMATIONAL = range(100, 200)


class Connection(asyncio.Protocol):
    """A connection that `upstream` opened; `on_lost` is called once, when it can no longer be used."""

    status: int
    headers: Headers
    """Of the last answer, names in lower case."""
    is_whole: bool
    """Whether the answer has come to its end, read or not."""
    has_heard: bool
    """Whether a byte came since the request was sent."""
    _timeout_s: float
    """For each silence, before anybody expected something sooner."""
    _silence_s: float
    """For each silence of the server."""
    _taken_at: float
    """When the timer last saw that pieces are taken."""

    def __init__(self, on_lost: "Callable[[Connection], None]") -> None:
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._is_open = True
        self._fault: UpstreamError | None = None
        self._pieces: list[bytes] = []
        self._num_reads = self._num_reads_seen = 0
        self._num_held, self._limit = 0, _MAX_HEAD_BYTES
        self._reset(timeout_s=0.0)

    # --- what the gateway does with it -------------------------------------------------------------------

    async def ask(self, request: bytes, *, timeout_s: float) -> None:
        """Send a whole request and wait until the head of the answer is there.

        `timeout_s` is for each silence of the server, until the answer ends. Raises `UpstreamError`; the
        connection is of no use then, nor after a cancellation.
        """
        self._reset(timeout_s=timeout_s)
        self._parser = HttpResponseParser(self)
        transport = self._transport
        if not self._is_open or transport is None:
            raise LostError
        transport.write(request)
        self._waits_since = self._loop.time()
        self._taken_at = self._waits_since
        self._timer = self._loop.call_later(timeout_s, self._watch)
        while not self._has_head:
            self._raise_fault()
            await self._wait()

    async def read(self) -> bytes:
        """What came of the body since the last call, at least a byte; b"" at its end.

        Raises `UpstreamError` when the body breaks off, after all that came before.
        """
        while not self._pieces:
            if self.is_whole:
                return b""
            self._raise_fault()
            await self._wait()
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._num_held = 0
        self._num_reads += 1
        if self._is_paused:
            self._resume()
        return piece

    def expect_within(self, silence_s: float) -> None:
        """Take a shorter limit for each silence of the server, until this answer ends."""
        if silence_s < self._silence_s and not self.is_whole:
            self._silence_s = silence_s
            self._stop_watching()
            self._timer = self._loop.call_later(silence_s, self._watch)

    @property
    def is_over(self) -> bool:
        """Whether the whole body was read."""
        return self.is_whole and not self._pieces

    @property
    def can_be_used_again(self) -> bool:
        """Whether the answer ended as it should and the server keeps the connection."""
        return self.is_whole and self._is_open and self._is_kept and not self._transport_is_busy()

    def rest(self) -> None:
        """Forget the last answer; the connection waits for the next request."""
        self._stop_watching()
        self._parser = None
        self._pieces.clear()
        self._num_held = 0
        if self._is_paused:
            self._resume()

    def abort(self) -> None:
        """Close at once: the server sees its client leave."""
        self._stop_watching()
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        _keep_alive(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        parser = self._parser
        if parser is None or self.is_whole:
            # Nobody asked: whatever it is, the next answer would be taken for another.
            self.abort()
            return
        self.has_heard = True
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail(GarbledError())
            return
        self._num_held += len(data)
        if self._num_held > self._limit:
            self._hold()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._is_open = False
        self._stop_watching()
        if self._has_head and not self._has_length and exc is None:
            self.is_whole = True
        if not self.is_whole and self._fault is None:
            self._fault = LostError()
        self._wake()
        self._on_lost(self)

    # --- httptools ---------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if self._has_head:
            return  # trailers say nothing that a client waits for
        name = name.lower()
        self.headers.append((name, value))
        if name in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        """See httptools."""
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if self.status in _INFORMATIONAL:
            self.headers.clear()
            return
        self._is_kept = self._parser.should_keep_alive()
        self._has_head = True
        self._num_held = 0
        self._limit = _MAX_HELD_BYTES

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._has_head:
            self.is_whole = True
            self._stop_watching()

    # --- inside ------------------------------------------------------------------------------------------

    def _reset(self, *, timeout_s: float) -> None:
        self.status = 0
        self.headers = []
        self.is_whole = False
        self.has_heard = False
        self._num_reads, self._num_reads_seen = 0, -1
        self._timeout_s = self._silence_s = timeout_s
        self._waits_since = self._taken_at = 0.0
        self._has_head = False
        self._has_length = False
        self._is_kept = False
        self._fault = None
        self._pieces = []
        self._num_held = 0
        self._limit = _MAX_HEAD_BYTES

    async def _wait(self) -> None:
        self._waits_since = self._loop.time()
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _fail(self, fault: UpstreamError) -> None:
        self._fault = fault
        self.abort()
        self._wake()

    def _watch(self) -> None:
        """A timer for the whole answer, as one for each piece would cost more than the piece."""
        now, left_s = self._loop.time(), self._silence_s
        if self._num_reads != self._num_reads_seen or self._waiter is not None:
            self._num_reads_seen, self._taken_at = self._num_reads, now
        if self._waiter is not None:
            left_s -= now - self._waits_since
        else:
            left_s = min(left_s, self._timeout_s - (now - self._taken_at))
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._watch)
        elif self._waiter is not None:
            self._fail(SilentError(self._silence_s))
        else:
            self._fail(StalledError(self._timeout_s))

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hold(self) -> None:
        if not self._has_head:
            self._fail(GarbledError())
        elif not self._is_paused and self._transport is not None and not self.is_whole:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._is_paused = False
        if self._is_open and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _transport_is_busy(self) -> bool:
        """Whether the server answered before it had taken the whole request."""
        transport = self._transport
        return transport is None or transport.is_closing() or transport.get_write_buffer_size() > 0


def _keep_alive(connected: socket.socket) -> None:
    """A machine that is gone says nothing: the kernel asks whether it is there."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
