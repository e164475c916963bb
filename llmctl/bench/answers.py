"""What comes back on one request of `bench serve`: the times of its pieces of text, its counts, a fault."""

import json
import re
from typing import Any, ClassVar

_MAX_LINE_BYTES = 4 * 1024 * 1024
_MAX_RAW_BYTES = 256 * 1024
_MAX_CHARACTERS = 200
_DONE = b"[DONE]"
_SPACES = re.compile(r"\s+")


class RequestFailedError(Exception):
    """A request without a whole answer; failures are counted by `kind`."""

    LOST: ClassVar[str] = "connection lost"

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = _one_line(message)


class Answer:
    """Takes an answer as it arrives; whoever feeds it sets `now` to when that was."""

    def __init__(self, *, secret: str | None = None) -> None:
        """`secret` is shown in no message."""
        self.now = 0.0
        self.status = 0
        """0 before its head is there."""
        self.times: list[float] = []
        """When each piece of text came, seconds of `connection.clock`."""
        self.ended = 0.0
        self.prompt_tokens: int | None = None
        """As the server tells; None where it does not, as with the next."""
        self.completion_tokens: int | None = None
        self.raw = b""
        """The body, where it is no stream of events; its beginning where it is long."""
        self.is_whole = False
        """Whether the body has come to its end."""
        self.is_finished = False
        """Whether the stream has said that the answer is at its end."""
        self._secret = secret
        self._is_stream = False
        self._line = b""
        self._fault: RequestFailedError | None = None

    def begin(self, status: int, kind: bytes) -> None:
        """The head is there; `kind` is its Content-Type."""
        self.status = status
        self._is_stream = kind.lower().startswith(b"text/event-stream")

    def feed(self, piece: bytes) -> None:
        """A part of the body."""
        if not self._is_stream:
            self.raw += piece[: max(0, _MAX_RAW_BYTES - len(self.raw))]
            return
        *lines, self._line = (self._line + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._take(line[5:].strip())
        if len(self._line) > _MAX_LINE_BYTES:
            self._fail("garbled", "an event has no end")
            self._line = b""

    def end(self, now: float) -> None:
        """The body is whole."""
        self.ended, self.is_whole = now, True

    def check(self) -> None:
        """Raise `RequestFailedError` unless this is a whole stream."""
        if self.status != 200:
            raise self._error(f"HTTP {self.status}", _told(self.raw))
        if not self._is_stream:
            raise RequestFailedError("no stream", "the answer came as one piece")
        if self._fault is not None:
            raise self._fault
        if not self.is_finished:
            raise RequestFailedError("cut off", "the stream ended before the answer")
        if not self.times and self.completion_tokens is None:
            raise RequestFailedError("no text", "the answer is empty")

    def _take(self, data: bytes) -> None:
        if data == _DONE:
            self.is_finished = True
            return
        try:
            self._read(json.loads(data))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            self._fail("garbled", data.decode(errors="replace"))

    def _read(self, chunk: dict[str, Any]) -> None:
        if error := chunk.get("error"):
            self._fail("error event", _message(error))
            return
        if choices := chunk.get("choices"):
            choice = choices[0]
            delta = choice.get("delta") or choice
            if (
                delta.get("content")
                or delta.get("text")
                or delta.get("reasoning_content")
                or delta.get("reasoning")
            ):
                self.times.append(self.now)
            if choice.get("finish_reason"):
                self.is_finished = True
        if usage := chunk.get("usage"):
            self.prompt_tokens = int(usage["prompt_tokens"])
            self.completion_tokens = int(usage["completion_tokens"])

    def _fail(self, kind: str, message: str) -> None:
        self._fault = self._fault or self._error(kind, message)

    def _error(self, kind: str, message: str) -> RequestFailedError:
        return RequestFailedError(kind, message.replace(self._secret, "***") if self._secret else message)


def _told(raw: bytes) -> str:
    """The words of a refusal."""
    text = raw.decode(errors="replace")
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return "" if text.lstrip().startswith("<") else text
    return _message(told)


def _message(told: Any) -> str:
    """OpenAI's `{"error": {"message"}}`, FastAPI's `{"detail"}`, or text."""
    for _ in range(3):
        if not isinstance(told, dict):
            break
        told = next((told[key] for key in ("error", "message", "detail") if told.get(key)), str(told))
    return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False, default=str)


def _one_line(text: str) -> str:
    """`text` for a terminal."""
    line = "".join(each if each.isprintable() else "\ufffd" for each in _SPACES.sub(" ", text).strip())
    return line if len(line) <= _MAX_CHARACTERS else f"{line[: _MAX_CHARACTERS - 1]}…"
