"""A lean HTTP/1.1 client for workers: a pool of kept connections for each, bodies in the pieces that came."""

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from llmctl.services.api.connection import Connection, Headers
from llmctl.services.api.faults import LostError, RefusedError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
_MAX_IDLE = 256
"""Connections that are kept for one worker."""


@dataclass(frozen=True, slots=True)
class Call:
    """A POST to a worker; header names and values hold no line ends."""

    path: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


class Answer:
    """The head of an answer and a way to its body; to be closed, whatever happens."""

    def __init__(self, connection: Connection, pool: "Pool") -> None:
        self.status: int = connection.status
        self.headers: Headers = connection.headers
        self.read = connection.read
        """See `Connection.read`; not after `close`."""
        self.expect_within = connection.expect_within
        """See `Connection.expect_within`; not after `close`."""
        self._connection: Connection | None = connection
        self._pool = pool

    @property
    def is_over(self) -> bool:
        """Whether the whole body was read."""
        return self._connection is None or self._connection.is_over

    def header(self, name: bytes) -> bytes:
        """The first value under a name in lower case, b"" for none."""
        return next((value for key, value in self.headers if key == name), b"")

    def close(self) -> None:
        """Keep the connection for the next request, or close it at once if the body is not over."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)


@dataclass(slots=True)
class Pool:
    """The connections to one worker."""

    url: str
    """`http://HOST:PORT`, without a slash at its end."""
    tls: ssl.SSLContext | None
    idle: list[Connection] = field(default_factory=list)
    """The one used last comes last: it is the least likely to be stale."""
    is_closed: bool = False

    async def post(self, call: Call, *, timeout_s: float) -> Answer:
        """The answer's head. Raises `UpstreamError`.

        A kept connection that the worker closed meanwhile is replaced by a new one, unseen.
        """
        request = _request(self.url, call)
        if self.idle:
            kept = self.idle.pop()
            try:
                return await self._ask(kept, request, timeout_s=timeout_s)
            except LostError:
                if kept.has_heard:
                    raise
                log.debug("a kept connection to %s was stale", self.url)
        return await self._ask(await self._connect(), request, timeout_s=timeout_s)

    def give_back(self, connection: Connection) -> None:
        """Take a connection after its answer."""
        if connection.can_be_used_again and not self.is_closed and len(self.idle) < _MAX_IDLE:
            connection.rest()
            self.idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        self.is_closed = True
        while self.idle:
            self.idle.pop().abort()

    async def _ask(self, connection: Connection, request: bytes, *, timeout_s: float) -> Answer:
        with ExitStack() as stack:
            stack.callback(connection.abort)
            await connection.ask(request, timeout_s=timeout_s)
            stack.pop_all()
        return Answer(connection, self)

    async def _connect(self) -> Connection:
        parts = urlsplit(self.url)
        port = parts.port or (80 if self.tls is None else 443)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._forget), parts.hostname or "", port, ssl=self.tls
                )
        except TimeoutError as error:
            raise RefusedError(f"no connection within {CONNECT_TIMEOUT_S:g} s") from error
        except OSError as error:
            raise RefusedError(_reason(error)) from error
        return connection

    def _forget(self, connection: Connection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)


class Upstream:
    """The pools of all workers."""

    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}

    async def post(self, url: str, call: Call, *, timeout_s: float) -> Answer:
        """The head of the answer that the worker at `url` gives.

        `timeout_s` is for each silence until the answer ends. Raises `UpstreamError`.
        """
        return await self._pool(url.rstrip("/")).post(call, timeout_s=timeout_s)

    def keep_only(self, urls: Sequence[str]) -> None:
        """Close what is idle of workers that are gone."""
        for url in self._pools.keys() - {url.rstrip("/") for url in urls}:
            self._pools.pop(url).close()

    def close(self) -> None:
        """Close all that is idle."""
        self.keep_only(())

    def _pool(self, url: str) -> Pool:
        pool = self._pools.get(url)
        if pool is None:
            pool = Pool(url, tls=self._tls if url.startswith("https:") else None)
            self._pools[url] = pool
        return pool

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()


def _reason(error: OSError) -> str:
    """Why no connection was made; asyncio's own words hold the address."""
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ssl.SSLError):
        return "its certificate is not good, or it does not speak TLS"
    return os.strerror(error.errno).lower() if error.errno else "no connection"


def _request(url: str, call: Call) -> bytes:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    lines = [f"POST {parts.path}{call.path} HTTP/1.1\r\nHost: {host}\r\n".encode()]
    lines += [b"%s: %s\r\n" % header for header in call.headers]
    lines.append(b"Content-Length: %d\r\n\r\n" % len(call.body))
    lines.append(call.body)
    return b"".join(lines)
