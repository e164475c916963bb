"""Events come out of bytes the same, however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.services.sse import Event, EventTooLongError, SseParser


def parsed(*pieces: bytes) -> list[Event]:
    parser = SseParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    last = parser.finish()
    return events if last is None else [*events, last]


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data:a\r\n\r\ndata:b\r\n\r\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data: a\r\n\ndata: b\n\r\n", ["a", "b"]),
        (b"data:  a \n\n", [" a "]),
        (b"data: a\ndata: b\ndata\n\n", ["a\nb\n"]),
        (b": a comment\n\n:\n\ndata: a\n: another\n\n", ["a"]),
        (b"id: 7\nretry: 10\nnonsense\ndata: a\n\n", ["a"]),
        (b"event: ping\n\ndata: a\n\n", ["a"]),
        (b"data:\n\n", [""]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        ("data: é€😀\n\n".encode(), ["é€😀"]),
        ("data: a\u2028b\u0085c\x0b\n\n".encode(), ["a\u2028b\u0085c\x0b"]),
        (b"data: \xff\xfe\n\n", ["\ufffd\ufffd"]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_events_are_read_by_the_standard(body: bytes, data: list[str]) -> None:
    assert [event.data for event in parsed(body)] == data
    assert [event.data for event in parsed(*(body[i : i + 1] for i in range(len(body))))] == data


def test_an_event_tells_its_kind() -> None:
    assert parsed(b"event: error\ndata: x\n\ndata: y\n\n") == [Event("x", "error"), Event("y", "message")]


def test_an_event_is_given_as_soon_as_its_blank_line_comes() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\r\n") == []
    assert parser.feed(b"\r") == [Event("a")]
    assert parser.feed(b"\ndata: b\r\n\r\n") == [Event("b")]


@pytest.mark.parametrize("body", [b"data: a", b"data: a\n", b"data: a\r"])
def test_what_the_end_broke_off_is_told_apart(body: bytes) -> None:
    parser = SseParser()
    assert parser.feed(body) == []
    assert parser.finish() == Event("a")


LINES = st.sampled_from(["data: é", "data:x", ": c", "event: error", "", "data", "id: 1", "junk"])
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=12), st.lists(st.integers(0, 120)))
def test_cuts_change_nothing(lines: list[tuple[str, str]], cuts: list[int]) -> None:
    body = "".join(line + end for line, end in lines).encode()
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(bounds)]
    assert parsed(*pieces) == parsed(body)


@pytest.mark.parametrize("piece", [b"x" * 10, b"data: xxxx\n", b"data\n"])
def test_an_event_that_never_ends_is_refused(piece: bytes) -> None:
    parser = SseParser(max_event_bytes=100)
    with pytest.raises(EventTooLongError, match="more than 100 bytes"):
        list(map(parser.feed, [piece] * 101))


def test_many_events_are_not_one_long_one() -> None:
    parser = SseParser(max_event_bytes=20)
    assert sum(len(parser.feed(b"event: a\ndata: xxxx\n: comment\n\n")) for _ in range(100)) == 100
