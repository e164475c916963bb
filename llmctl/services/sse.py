"""Server-sent events, read from bytes as they come, by the rules of the HTML standard.

Only what the OpenAI protocol needs: `id` and `retry` are passed over, nothing reconnects.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_EVENT_BYTES = 16 * 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLongError(ValueError):
    """A line or an event never ends."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a server sent between two blank lines."""

    data: str
    kind: str = "message"


class SseParser:
    """Turns bytes, cut anywhere, into events."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._kind = b""
        self._num_bytes = 0
        """Held in `_line` and `_data`."""
        self._is_first_line = True
        self._is_behind_cr = False

    def feed(self, piece: bytes) -> list[Event]:
        """The events that `piece` completes. Raises `EventTooLongError`, which ends the parser's use."""
        return [event for line in self._lines(piece) if (event := self._take(line)) is not None]

    def finish(self) -> Event | None:
        """The event that the end of the stream broke off.

        The standard drops it. Servers that forget the last blank line mean it, so the caller decides.
        """
        if line := b"".join(self._line):
            self._take(line)
        self._line.clear()
        return self._dispatch()

    def _lines(self, piece: bytes) -> Iterator[bytes]:
        if not piece:
            return
        if self._is_behind_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        self._is_behind_cr = piece.endswith(b"\r")
        first, *others = _LINE_END.split(piece)
        self._hold(first)
        for other in others:
            line = b"".join(self._line)
            self._line.clear()
            self._num_bytes -= len(line)
            yield line
            self._hold(other)

    def _hold(self, part: bytes) -> None:
        self._line.append(part)
        self._count(part)

    def _count(self, part: bytes) -> None:
        self._num_bytes += len(part)
        if self._num_bytes > self._max_event_bytes:
            raise EventTooLongError(f"an event of more than {self._max_event_bytes} bytes")

    def _take(self, line: bytes) -> Event | None:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value + b"\n")
            self._count(self._data[-1])
        elif name == b"event":
            self._kind = value
        return None

    def _dispatch(self) -> Event | None:
        data, kind = self._data, self._kind.decode(errors="replace") or "message"
        self._num_bytes -= sum(map(len, data))
        self._data, self._kind = [], b""
        return Event(b"".join(data)[:-1].decode(errors="replace"), kind) if data else None
