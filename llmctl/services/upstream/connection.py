"""HTTP with one server: a pool of connections, its answers as they come, its refusals as errors."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2

from llmctl import __version__
from llmctl.core.errors import LlmctlError, UsageError
from llmctl.services.upstream import payload, refusal
from llmctl.services.upstream.address import Address, without_credentials
from llmctl.services.upstream.chunks import ChunkDecoder
from llmctl.services.upstream.faults import Faults
from llmctl.services.upstream.payload import Body
from llmctl.services.upstream.refusal import Refusal

log = logging.getLogger(__name__)

_MAX_CONNECT_S = 10.0
# Below the 5 s after which most servers close an idle connection: a request must not meet that moment.
_LIMITS = httpx2.Limits(max_connections=None, keepalive_expiry=2.5)
_MAX_REFUSAL_BYTES = 64 * 1024
# How long the end of a body may take once the answer is complete.
_USAGE_WAIT_S = 5.0
_DRAIN_WAIT_S = 0.1


class Connection:
    """What the backends of one server share."""

    def __init__(self, address: Address, *, api_key: str | None, timeout_s: float) -> None:
        """Raises `UsageError` when the environment names a proxy or certificates that cannot be used."""
        self.url = address.base_url
        self.faults = Faults(url=address.base_url, timeout_s=timeout_s, api_key=api_key)
        self._quirks: set[str] = set()
        headers = {
            "User-Agent": f"llmctl/{__version__}",
            "Accept": "text/event-stream, application/json",
            # A compressed stream comes in lumps.
            "Accept-Encoding": "identity",
        }
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        try:
            self._client = httpx2.AsyncClient(
                headers=headers,
                timeout=_timeout(timeout_s),
                limits=_LIMITS,
                transport=_direct(address) if address.is_loopback else None,
            )
        except (ImportError, ValueError, OSError, httpx2.InvalidURL) as error:
            reason = without_credentials(refusal.one_line(str(error)))
            raise UsageError(
                f"the environment's proxy or certificates cannot be used: {reason}",
                hint="check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
            ) from error

    def wait_at_most(self, timeout_s: float) -> None:
        """Take another limit for each silence of the server, from the next request on."""
        self._client.timeout = _timeout(timeout_s)
        self.faults = replace(self.faults, timeout_s=timeout_s)

    async def get(self, path: str) -> Any:
        """The JSON that a GET gives, None when there is nothing under `path` (HTTP 404 and 405)."""
        decoder = ChunkDecoder(self.faults)
        with self.faults.translated():
            async with self._client.stream("GET", self.url + path) as response:
                if response.status_code in (404, 405):
                    return None
                if not response.is_success:
                    raise self._refused(response, await _refusal(response), {})
                async with aclosing(response.aiter_bytes()) as pieces:
                    async for piece in pieces:
                        decoder.feed(piece)
            values = decoder.finish()
        if len(values) != 1:
            raise self.faults.garbage("JSON", "a stream of events")
        return values[0]

    async def post(
        self, path: str, body: Body, decoder: ChunkDecoder, *, is_answered: Callable[[], bool]
    ) -> AsyncGenerator[Any, None]:
        """The JSON values that the answer to `body` brings, as `decoder` finds them.

        Closing the generator closes the connection. Once `is_answered`, the body's end is not waited for
        long, and a connection that breaks is no error. Raises httpx2's errors as they are.
        """
        async with self._sent(path, body) as response, aclosing(response.aiter_bytes()) as pieces:
            while (piece := await _next(pieces, is_answered)) is not None:
                for value in decoder.feed(piece):
                    yield value
                if decoder.is_whole:
                    await _drain(pieces)
                    return
            for value in decoder.finish():
                yield value

    async def close(self) -> None:
        """Close all connections; may be called twice."""
        await self._client.aclose()

    @asynccontextmanager
    async def _sent(self, path: str, body: Body) -> AsyncIterator[httpx2.Response]:
        """The response to `body`, put in another way where the server turns out not to know this one."""
        while True:
            fitting = payload.adapted(body, self._quirks)
            content = payload.encode(fitting)
            async with self._client.stream(
                "POST", self.url + path, content=content, headers={"Content-Type": "application/json"}
            ) as response:
                if response.is_success:
                    yield response
                    return
                told = await _refusal(response)
            quirk = payload.quirk(fitting, told.message) if told.status in (400, 422) else None
            if quirk is None:
                raise self._refused(response, told, fitting)
            log.info("%s wants its requests in another way: %s", self.url, quirk)
            self._quirks.add(quirk)

    def _refused(self, response: httpx2.Response, told: Refusal, body: Body) -> LlmctlError:
        if response.is_redirect:
            return self.faults.redirected(response.status_code, response.headers.get("Location", ""))
        return self.faults.refused(told, flags=payload.blamed_flags(body, told.message))


def _timeout(timeout_s: float) -> httpx2.Timeout:
    return httpx2.Timeout(timeout_s, connect=min(timeout_s, _MAX_CONNECT_S))


def _direct(address: Address) -> httpx2.AsyncHTTPTransport:
    """To this machine: no proxy knows its services."""
    # Reading the certificates takes longer than an answer, and without https there is none to check.
    return httpx2.AsyncHTTPTransport(limits=_LIMITS, verify=address.is_encrypted)


async def _refusal(response: httpx2.Response) -> Refusal:
    body = b""
    async with aclosing(response.aiter_bytes()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > _MAX_REFUSAL_BYTES:
                break
    return refusal.from_response(response.status_code, response.headers, body[:_MAX_REFUSAL_BYTES])


async def _next(pieces: AsyncGenerator[bytes, None], is_answered: Callable[[], bool]) -> bytes | None:
    try:
        async with asyncio.timeout(_USAGE_WAIT_S if is_answered() else None):
            return await anext(pieces, None)
    except (TimeoutError, httpx2.TransportError) as error:
        if not is_answered():
            raise
        log.info("the answer is there, the end of its stream is not: %s", type(error).__name__)
        return None


async def _drain(pieces: AsyncGenerator[bytes, None]) -> None:
    """Read to the end, which is near: only then the connection can be used again."""
    with contextlib.suppress(TimeoutError, httpx2.TransportError):
        async with asyncio.timeout(_DRAIN_WAIT_S):
            async for _ in pieces:
                pass
