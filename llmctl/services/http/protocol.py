"""Uvicorn's HTTP/1.1, with an end to its patience: heads are bounded in size and time, faults are JSON.

An offer to go on in another protocol, which some clients make with each request, is passed over.

Needs httptools, which comes with `uvicorn[standard]`.
"""

import asyncio
import json
import sys
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmctl.services.http.errors import error_body

MAX_HEAD_BYTES = 64 * 1024
_FRAMING = (b"content-length", b"transfer-encoding")
HEAD_S = 30.0
"""How long a connection may be open without the whole head of a request."""


class PatientProtocol(HttpToolsProtocol):
    """One connection."""

    _is_in_head = False
    _num_head_bytes = 0
    _waiting: asyncio.TimerHandle | None = None
    _data = b""
    """What came last."""
    _unread: bytes | None = None
    """The head, as much of it as tells where its body ends, of a request that offers another protocol."""
    _is_replaying = False
    """Whether such a head is read again, by another parser, and nobody is to hear of it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn's is narrower than asyncio's
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It left."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        self._data = data
        super().data_received(data)
        self._data = b""
        if self._is_in_head:
            self._num_head_bytes += len(data)
            if self._num_head_bytes > MAX_HEAD_BYTES:
                told = f"the head of the request is too large: at most {MAX_HEAD_BYTES:,} bytes"
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, told)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._is_replaying:
            return
        super().on_message_begin()
        self._is_in_head = True
        self._num_head_bytes = 0
        if self._waiting is None:
            self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or one behind a body, which nobody has looked at when the request began."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_url(self, url: bytes) -> None:
        """A piece of the path."""
        if self._is_in_head:
            super().on_url(url)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._is_replaying:
            self._is_replaying = False
            return
        self._is_in_head = False
        self._stop_waiting()
        if self.parser.should_upgrade():
            framing = [b"%b: %b\r\n" % field for field in self.headers if field[0] in _FRAMING]
            self._unread = b"".join([b"POST / HTTP/1.1\r\n", *framing, b"\r\n"])
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is over, or was not read because the request offers another protocol."""
        if self._unread is None:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, "the request is not HTTP/1.1")

    def _unsupported_upgrade_warning(self) -> None:
        """Go on in HTTP: to the parser all that follows is the other protocol, so a new one reads it."""
        error = sys.exception()
        assert isinstance(error, httptools.HttpParserUpgrade)
        assert self._unread is not None
        self.parser = httptools.HttpRequestParser(self)
        head, self._unread, self._is_replaying = self._unread, None, True
        self.data_received(head + self._data[error.args[0] :])

    def _can_be_told(self) -> bool:
        """Whether an answer written now is the one that the client waits for."""
        cycle = self.cycle
        return not self._is_answering or (cycle.more_body and not cycle.response_started)

    @property
    def _is_answering(self) -> bool:
        # None before the first request, whatever its type says.
        return bool(self.cycle) and not self.cycle.response_complete

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer and close; in the middle of another answer, close."""
        if self._can_be_told():
            body = json.dumps(error_body(message, status=status, code=status.name.lower())).encode()
            head = (
                f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        if self._is_answering:
            # Nothing is to be written behind it.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(HEAD_S, self._lose_patience)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _lose_patience(self) -> None:
        self._waiting = None
        if self._is_answering:
            # The next request waits for this one, and so is not read.
            self._wait()
        elif self._is_in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the head of the request took over {HEAD_S:g} s")
        else:
            self.transport.close()
