"""What reaches the client of a stream, however its bytes were cut on the way."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.services.api.faults import LostError, UpstreamError
from llmctl.services.api.relay import EventRelay, beginning, relay

EVENTS = [
    b'data: {"text": "one"}\n\n',
    b": keep-alive\n\n",
    b'data: {"text": "two\\n"}\n\n',
    b"data: [DONE]\n\n",
]
DONE = EVENTS[-1]


class Cut:
    """An answer whose body comes in given pieces, and ends or fails behind them."""

    status = 200

    def __init__(
        self, pieces: Sequence[bytes], error: UpstreamError | None = None, kind: bytes = b"text/event-stream"
    ) -> None:
        self.headers = [(b"content-type", kind)]
        self.pieces = [piece for piece in pieces if piece]
        self.error = error

    @property
    def is_over(self) -> bool:
        return not self.pieces and self.error is None

    def header(self, name: bytes) -> bytes:
        return dict(self.headers).get(name, b"")

    def expect_within(self, silence_s: float) -> None:
        pass

    async def read(self) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.error is not None:
            raise self.error
        return b""


class Client:
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def __call__(self, message: Any) -> None:
        assert not self.sent or self.sent[-1].get("more_body", True), "sent behind the end"
        self.sent.append(message)

    @property
    def pieces(self) -> list[bytes]:
        return [each["body"] for each in self.sent if each["type"] == "http.response.body" and each["body"]]

    @property
    def body(self) -> bytes:
        assert self.sent[-1]["more_body"] is False
        return b"".join(self.pieces)


def passed(answer: Cut) -> tuple[Client, UpstreamError | None]:
    """What a client gets of an answer."""

    async def work() -> tuple[Client, UpstreamError | None]:
        client = Client()
        first = await answer.read()
        return client, await EventRelay(answer, client).run(first)  # type: ignore[arg-type]

    return asyncio.run(work())


def cut(raw: bytes, ends: Sequence[int]) -> list[bytes]:
    """`raw` in pieces."""
    marks = [0, *sorted(end % (len(raw) + 1) for end in ends), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(marks)]


@given(st.lists(st.integers(0, 1000)), st.sampled_from([b"\n", b"\r\n"]))
def test_events_reach_the_client_whole_however_they_were_cut(ends: list[int], line_end: bytes) -> None:
    raw = b"".join(EVENTS).replace(b"\n", line_end)
    client, error = passed(Cut(cut(raw, ends)))
    assert error is None
    assert client.body == raw
    assert all(piece.endswith(line_end * 2) for piece in client.pieces)


@given(st.lists(st.integers(0, 1000)), st.integers(1, 1000))
def test_a_stream_that_breaks_ends_with_an_error_event(ends: list[int], length: int) -> None:
    raw = b"".join(EVENTS[:-1])[:length]
    client, error = passed(Cut(cut(raw, ends), LostError()))
    assert isinstance(error, LostError)
    *events, told, done, rest = client.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert json.loads(told.removeprefix(b"data: "))["error"]["code"] == "worker_failed"
    assert events == raw.split(b"\n\n")[:-1]


@given(st.lists(st.integers(0, 1000)))
def test_a_stream_that_breaks_behind_its_last_event_is_complete(ends: list[int]) -> None:
    raw = b"".join(EVENTS)
    client, _ = passed(Cut(cut(raw, ends), LostError()))
    assert client.body == raw


def test_an_event_without_end_is_not_held_for_ever() -> None:
    pieces = [b"data: " + b"x" * 600_000, b"x" * 600_000, b"x" * 600_000 + b"\n\n", DONE]
    client, _ = passed(Cut(list(pieces)))
    assert client.body == b"".join(pieces)
    assert len(client.pieces[0]) == 1_200_006


def test_an_error_behind_such_an_event_stands_on_lines_of_its_own() -> None:
    client, _ = passed(Cut([b"data: " + b"x" * 1_200_000], LostError()))
    assert client.body.partition(b"\n\n")[2].startswith(b'data: {"error"')


def test_the_end_of_a_stream_without_a_blank_line_is_passed_on() -> None:
    client, _ = passed(Cut([EVENTS[0], b"data: [DONE]"]))
    assert client.body == EVENTS[0] + b"data: [DONE]"


def test_a_server_that_stops_says_so() -> None:
    class Hanging(Cut):
        async def read(self) -> bytes:
            return self.pieces.pop(0) if self.pieces else await asyncio.get_running_loop().create_future()

    async def work() -> Client:
        client = Client()
        answer = Hanging([EVENTS[0]])
        task = asyncio.create_task(EventRelay(answer, client).run(await answer.read()))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return client

    client = asyncio.run(work())
    assert b"shutting down" in client.body
    assert client.body.endswith(DONE)


@pytest.mark.parametrize("size", [1, 1000, 1024 * 1024, 3 * 1024 * 1024 + 5])
def test_a_json_body_is_sent_whole_or_with_its_length(size: int) -> None:
    raw = b"x" * size

    async def work() -> tuple[Client, int]:
        answer = Cut(
            [raw[start : start + 65_536] for start in range(0, size, 65_536)], kind=b"application/json"
        )
        answer.headers.append((b"content-length", str(size).encode()))
        client = Client()
        first = await beginning(answer)  # type: ignore[arg-type]
        assert await relay(answer, first, client) is None  # type: ignore[arg-type]
        return client, len(first)

    client, num_first = asyncio.run(work())
    assert client.body == raw
    assert num_first == min(size, 1024 * 1024)
    assert dict(client.sent[0]["headers"])[b"content-length"] == str(size).encode()


def test_a_json_body_that_breaks_early_reaches_no_client() -> None:
    answer = Cut([b'{"half": '], LostError(), kind=b"application/json")
    with pytest.raises(LostError):
        asyncio.run(beginning(answer))  # type: ignore[arg-type]
