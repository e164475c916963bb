"""The JSON objects of a response's body: the events of a stream, or one object where nothing streams."""

import json
from collections.abc import Iterator
from typing import Any

from llmctl.services.sse import MAX_EVENT_BYTES, Event, EventTooLongError, SseParser
from llmctl.services.upstream.faults import Faults

_DONE = "[DONE]"
# What a stream of events can begin with. Servers mislabel: the bytes tell better than the Content-Type.
_SSE_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_WHITE_SPACE = b" \t\r\n\xef\xbb\xbf"
_WHAT = "an answer of the OpenAI protocol"


class ChunkDecoder:
    """Takes a body piece by piece and gives its JSON values."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._head = b""
        """What came before it was clear what the body is."""
        self._sse: SseParser | None = None
        self._json: list[bytes] | None = None
        self._num_json_bytes = 0
        self.is_whole = False
        """Whether the body has said that it is at its end."""

    def feed(self, piece: bytes) -> list[Any]:
        """The values that `piece` completes. Raises `LlmctlError` for what is no JSON and no event."""
        if self._sse is None and self._json is None:
            piece = self._head + piece
            if not self._begin(piece):
                self._head = piece.lstrip(_WHITE_SPACE)
                return []
        if self._sse is not None:
            try:
                return list(self._values(self._sse.feed(piece)))
            except EventTooLongError as error:
                raise self._faults.too_long(MAX_EVENT_BYTES) from error
        assert self._json is not None
        self._json.append(piece)
        self._num_json_bytes += len(piece)
        if self._num_json_bytes > MAX_EVENT_BYTES:
            raise self._faults.too_long(MAX_EVENT_BYTES)
        return []

    def finish(self) -> list[Any]:
        """What the end of the body completes."""
        if self._json is not None:
            self.is_whole = True
            return [self._parsed(b"".join(self._json).strip(_WHITE_SPACE).decode(errors="replace"))]
        if self._sse is None:
            raise self._faults.garbage(_WHAT, self._head.decode(errors="replace"))
        event = self._sse.finish()
        if event is None or (event.data != _DONE and _json_or_none(event.data) is None):
            return []
        return list(self._values([event]))

    def _begin(self, head: bytes) -> bool:
        """Settle what the body is, if `head` tells."""
        start = head.lstrip(_WHITE_SPACE)
        if start[:1] in (b"{", b"["):
            self._json = []
        elif start.startswith(_SSE_STARTS):
            self._sse = SseParser(max_event_bytes=MAX_EVENT_BYTES)
        elif start and not any(each.startswith(start) for each in _SSE_STARTS):
            raise self._faults.garbage(_WHAT, start.decode(errors="replace"))
        return self._sse is not None or self._json is not None

    def _values(self, events: list[Event]) -> Iterator[Any]:
        for event in events:
            if self.is_whole or event.data == _DONE:
                self.is_whole = True
            elif event.data:
                value = self._parsed(event.data) if event.kind != "error" else _json_or_none(event.data)
                yield value if event.kind != "error" else _as_error(value, event.data)

    def _parsed(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._faults.garbage("JSON", text) from error


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _as_error(value: Any, text: str) -> Any:
    """The data of an event that calls itself an error, in the shape of the others."""
    return value if isinstance(value, dict) and value.get("error") else {"error": value or text}
