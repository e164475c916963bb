"""Server-sent events on the way out: the head waits for the first one, so that failures keep their status."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmctl.core.errors import LlmctlError, NoWorkerError
from llmctl.services.http.errors import STOPPING, body_of
from llmctl.services.http.leaving import end, left

log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_S = 15.0
"""So much silence is broken by a comment, lest somebody between takes the connection for dead."""
_FAREWELL_S = 1.0
_BODY = "http.response.body"


def frame(data: str | bytes) -> bytes:
    """An event of one line."""
    return b"data: %b\n\n" % (data.encode() if isinstance(data, str) else data)


def error_frames(error: BaseException) -> bytes:
    """The last events of a stream that failed."""
    return frame(json.dumps(body_of(error))) + DONE


class EventStream(Response):
    """The events that `frames` yields, as bytes; it is closed at once when the client leaves.

    What is raised before the first event is raised here, and can still become an answer of its own; what is
    raised later is told in the last event but one.
    """

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes, None], *, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._frames = frames
        self._keep_alive_s = keep_alive_s
        self._is_begun = False
        self._is_sending = False
        self._last_sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        pumping, leaving = asyncio.ensure_future(self._pump(send)), asyncio.ensure_future(left(receive))
        self._last_sent = asyncio.get_running_loop().time()
        try:
            while not pumping.done() and not leaving.done():
                await asyncio.wait(
                    (pumping, leaving), timeout=self._patience_s(), return_when=asyncio.FIRST_COMPLETED
                )
                await self._keep_alive(send)
        except asyncio.CancelledError:
            # The server ends.
            await end(pumping, leaving)
            await self._say_goodbye(send)
            raise
        # In this order: what `frames` holds is let go before anything else is done.
        await end(pumping, leaving)
        error = None if pumping.cancelled() else pumping.exception()
        if error is not None:
            await self._fail(error, send)

    async def _pump(self, send: Send) -> None:
        """All of it, but for what is sent when it fails. The path of every token: as few steps as can be."""
        clock = asyncio.get_running_loop().time
        async with aclosing(self._frames) as frames:
            async for data in frames:
                self._is_sending = True
                if not self._is_begun:
                    await self._begin(send)
                await send({"type": _BODY, "body": data, "more_body": True})
                self._is_sending = False
                self._last_sent = clock()
        await self._finish(b"", send)

    async def _begin(self, send: Send) -> None:
        self._is_begun = True
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": list(self.raw_headers)}
        )

    async def _finish(self, data: bytes, send: Send) -> None:
        self._is_sending = True
        if not self._is_begun:
            await self._begin(send)
        await send({"type": _BODY, "body": data, "more_body": False})

    def _patience_s(self) -> float:
        silence_s = asyncio.get_running_loop().time() - self._last_sent
        return max(self._keep_alive_s - silence_s, 0.001)

    async def _keep_alive(self, send: Send) -> None:
        """Break a silence. A client that does not read what was sent needs no comments either."""
        now = asyncio.get_running_loop().time()
        if now - self._last_sent < self._keep_alive_s:
            return
        self._last_sent = now
        if self._is_begun and not self._is_sending:
            await send({"type": _BODY, "body": KEEP_ALIVE, "more_body": True})

    async def _fail(self, error: BaseException, send: Send) -> None:
        if not self._is_begun:
            raise error
        if isinstance(error, LlmctlError):
            log.warning("a stream broke off: %s", error.message)
        else:
            log.error("a stream broke off", exc_info=error)
        await self._finish(error_frames(error), send)

    async def _say_goodbye(self, send: Send) -> None:
        if self._is_begun:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self._finish(error_frames(NoWorkerError(STOPPING)), send)
