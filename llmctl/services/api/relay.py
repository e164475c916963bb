"""Passes a worker's answer on to the client: events as they come, a JSON body whole.

The client never sees half an event, nor half of a JSON body that fits into memory: what breaks off before
that can still be asked of another worker.
"""

import asyncio
import contextlib
import json

from starlette.types import Send

from llmctl.core.errors import LlmctlError, NoWorkerError
from llmctl.services.api.connection import Headers
from llmctl.services.api.faults import GarbledError, LostError, UpstreamError
from llmctl.services.api.upstream import Answer
from llmctl.services.http.errors import STOPPING
from llmctl.services.http.events import DONE, error_frames

MAX_WHOLE_BYTES = 1024 * 1024
"""A JSON body up to this size is sent only when it is complete."""
EVENT_SILENCE_S = 60.0
"""Between events a worker breaks a silence of 15 s by a comment: without any it hangs."""
_MAX_EVENT_BYTES = 1024 * 1024
_NO_ANSWER = "the worker answered neither JSON nor events"
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
_FAREWELL_S = 1.0
_BODY = "http.response.body"
_PASSED = frozenset({b"allow", b"cache-control", b"content-type", b"retry-after", b"x-accel-buffering"})
"""What a worker may say to a client: cookies and leave for web pages are not its business."""


def is_events(answer: Answer) -> bool:
    """Whether the answer is a stream of server-sent events."""
    return answer.header(b"content-type").lower().startswith(b"text/event-stream")


async def beginning(answer: Answer) -> bytes:
    """The first bytes of a stream of events, or as much of another body as is sent in one piece.

    Raises `UpstreamError`: nothing was told to the client yet.
    """
    first = await answer.read()
    if not first or is_events(answer):
        return first
    pieces, num_bytes = [first], len(first)
    while num_bytes < MAX_WHOLE_BYTES and (piece := await answer.read()):
        pieces.append(piece)
        num_bytes += len(piece)
    return b"".join(pieces)


def check(answer: Answer, first: bytes) -> None:
    """Raise `GarbledError` for what no worker of ours says, while another may be asked.

    That is a stream of events or JSON, and with an error's status the object that tells it.
    """
    if is_events(answer) and answer.status == 200:
        return
    is_json = answer.header(b"content-type").lower().startswith(b"application/json")
    if not is_json or 300 <= answer.status < 400:
        raise GarbledError(_NO_ANSWER)
    if answer.status >= 400 and not _tells_error(first):
        raise GarbledError(_NO_ANSWER)


def _tells_error(body: bytes) -> bool:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("error"), dict)


async def relay(answer: Answer, first: bytes, send: Send) -> UpstreamError | None:
    """Send the head, `first` and what follows; the error that broke it off, which the client was told.

    Raises `UpstreamError` where no honest end can be written: the connection to the client must break then.
    """
    await send({"type": "http.response.start", "status": answer.status, "headers": _head(answer, first)})
    if is_events(answer):
        answer.expect_within(EVENT_SILENCE_S)
        return await EventRelay(answer, send).run(first)
    while not answer.is_over:
        await send({"type": _BODY, "body": first, "more_body": True})
        first = await answer.read()
    await send({"type": _BODY, "body": first, "more_body": False})
    return None


async def send_json(send: Send, value: object) -> None:
    """Send an answer of the gateway's own."""
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": _BODY, "body": body, "more_body": False})


def _head(answer: Answer, first: bytes) -> Headers:
    headers = [(name, value) for name, value in answer.headers if name in _PASSED]
    if is_events(answer) and not _is_complete(first):
        # More may have to be said than the worker sent.
        return headers
    if answer.is_over:
        headers.append((b"content-length", b"%d" % len(first)))
    elif length := answer.header(b"content-length"):
        headers.append((b"content-length", length))
    return headers


def _is_complete(events: bytes) -> bool:
    return events.rstrip().endswith(DONE.rstrip())


class EventRelay:
    """One stream of events on its way."""

    def __init__(self, answer: Answer, send: Send) -> None:
        self._answer = answer
        self._send = send
        self._held = b""
        """The beginning of an event whose end has not come."""
        self._last = b""
        """What was sent last."""

    async def run(self, first: bytes) -> UpstreamError | None:
        """Pass all on; the error that ended it early, which the client was told."""
        try:
            await self._pass_on(first)
        except UpstreamError as error:
            await self._end(b"" if self._last.endswith(DONE) else self._told(error))
            return error
        except asyncio.CancelledError:
            # The gateway stops, or the client has left and hears nothing.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self._end(self._told(NoWorkerError(STOPPING)))
            raise
        if _is_complete(self._last + self._held):
            await self._end(self._held)
            return None
        # It closed the connection as if all were said.
        lost = LostError()
        await self._end(self._told(lost))
        return lost

    async def _pass_on(self, data: bytes) -> None:
        """The path of every token: a few steps, and one `send` for all that came in one read."""
        read, send = self._answer.read, self._send
        while data:
            if self._held or not data.endswith(_EVENT_ENDS):
                data = self._whole(data)
            if data:
                await send({"type": _BODY, "body": data, "more_body": True})
                self._last = data
            data = await read()

    def _whole(self, data: bytes) -> bytes:
        """The whole events of what is held and `data`; the rest is held."""
        data = self._held + data
        end = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in _EVENT_ENDS)
        self._held = data[end:]
        if len(self._held) > _MAX_EVENT_BYTES:
            self._held, end = b"", len(data)
        return data[:end]

    def _told(self, error: LlmctlError) -> bytes:
        """The error as the last event but one."""
        gap = b"\n\n" if self._last and not self._last.endswith(_EVENT_ENDS) else b""
        return gap + error_frames(error)

    async def _end(self, data: bytes) -> None:
        await self._send({"type": _BODY, "body": data, "more_body": False})
