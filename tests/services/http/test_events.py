"""Streams of events on the wire, and what becomes of them when somebody leaves or fails."""

import time

import pytest

from llmctl.services.http.events import DONE, KEEP_ALIVE, frame
from tests.services.http.part import SECRET, ServedPart, Wire, error_of, events, head, until


def test_an_event_is_one_line_and_an_empty_one() -> None:
    assert frame("a") == frame(b"a") == b"data: a\n\n"
    assert frame("é") == "data: é\n\n".encode()
    assert frame("[DONE]") == DONE


def test_a_stream_is_chunks_of_events(wire: Wire) -> None:
    wire.send(head("GET /stream?n=2"))
    top = wire.until(b"\r\n\r\n").lower()
    assert top.startswith(b"http/1.1 200 ok\r\n")
    for line in (
        b"content-type: text/event-stream; charset=utf-8",
        b"cache-control: no-cache",
        b"x-accel-buffering: no",
        b"transfer-encoding: chunked",
    ):
        assert line in top.split(b"\r\n")
    assert wire.until(b"0\r\n\r\n") == b"9\r\ndata: 0\n\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n"
    assert wire.ask("GET /health").status == 200


def test_an_event_is_sent_when_it_is_there(wire: Wire) -> None:
    wire.send(head("GET /stream?n=2&pause=0.1"))
    wire.until(b"data: 0\n\n\r\n")
    assert wire.held == b""
    wire.until(b"data: 1\n\n\r\n")


def test_a_stream_may_have_no_events(wire: Wire) -> None:
    reply = wire.ask("GET /stream?n=0")
    assert (reply.status, reply.body, reply.is_whole) == (200, b"", True)


@pytest.mark.parametrize(("how", "status"), [("busy", 429), ("parameter", 400), ("defect", 500)])
def test_a_failure_before_the_first_event_is_an_answer(wire: Wire, how: str, status: int) -> None:
    reply = wire.ask(f"GET /stream?early={how}")
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    assert reply.error["code"]
    assert wire.ask("GET /health").status == 200


@pytest.mark.parametrize(("how", "code"), [("nobody", "no_worker"), ("defect", "internal_error")])
def test_a_later_failure_is_the_last_event_but_one(wire: Wire, how: str, code: str) -> None:
    reply = wire.ask(f"GET /stream?n=2&late={how}")
    *_, told, done = events(reply.body)
    assert (reply.status, reply.is_whole, done) == (200, True, b"[DONE]")
    assert error_of(told)["code"] == code
    assert SECRET.encode() not in reply.body
    assert wire.ask("GET /health").status == 200


def test_silence_is_broken_by_comments_between_events_only(wire: Wire) -> None:
    reply = wire.ask("GET /stream?before=0.4&n=2&pause=0.4")
    first, second, third = reply.body.split(b"data: ")
    # Before the first event there is no head, and so nothing to be said.
    assert first == b""
    assert 2 <= second.count(KEEP_ALIVE) <= 3
    assert second.replace(KEEP_ALIVE, b"") == b"0\n\n"
    assert third.replace(KEEP_ALIVE, b"") == b"1\n\n"


def test_events_that_come_often_need_no_comments(wire: Wire) -> None:
    reply = wire.ask("GET /stream?n=8&pause=0.05")
    assert KEEP_ALIVE not in reply.body


@pytest.mark.parametrize("query", ["n=1000&pause=0.01", "n=2&pause=60", "before=60"])
def test_a_client_that_leaves_ends_the_stream_at_once(part: ServedPart, query: str) -> None:
    before = part.seen.num_closed
    with part.connect() as wire:
        wire.send(head(f"GET /stream?{query}"))
        if "before" in query:
            time.sleep(0.1)
        else:
            wire.until(b"data: 0")
        assert part.seen.num_closed == before
    assert until(lambda: part.seen.num_closed > before, within_s=2) < 0.1


def test_a_client_that_leaves_ends_work_without_a_stream_too(part: ServedPart) -> None:
    before = part.seen.num_closed
    with part.connect() as wire:
        wire.send(head("GET /long"))
        time.sleep(0.1)
        assert part.seen.num_closed == before
    assert until(lambda: part.seen.num_closed > before, within_s=2) < 0.1


def test_a_client_that_does_not_read_is_waited_for(part: ServedPart) -> None:
    count, size = 100, 200_000
    before = part.seen.num_pulled
    with part.connect() as wire:
        wire.send(head(f"GET /stream?n={count}&size={size}"))
        time.sleep(0.3)
        pulled = part.seen.num_pulled - before
        # Buffers of two sockets and of the server, and no more: the rest is not made yet.
        assert pulled < count
        time.sleep(0.2)
        assert part.seen.num_pulled - before == pulled
        reply = wire.reply()
    assert reply.is_whole
    assert sum(1 for _ in events(reply.body)) == count
    assert KEEP_ALIVE not in reply.body


def test_a_client_that_does_not_read_and_leaves_is_forgotten(part: ServedPart) -> None:
    before = part.seen.num_closed
    with part.connect() as wire:
        wire.send(head("GET /stream?n=5000&size=10000"))
        time.sleep(0.2)
    until(lambda: part.seen.num_closed > before, within_s=2)


def test_many_streams_run_side_by_side(part: ServedPart) -> None:
    wires = [part.connect() for _ in range(20)]
    begin = time.monotonic()
    for wire in wires:
        wire.send(head("GET /stream?n=3&pause=0.1"))
    assert all(list(events(wire.reply().body)) == [b"0", b"1", b"2"] for wire in wires)
    assert time.monotonic() - begin < 2
    for wire in wires:
        wire.socket.close()
