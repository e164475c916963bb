"""Connections whose clients do not speak HTTP/1.1 as one should, or hardly speak at all."""

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from llmctl.services.http import protocol
from tests.services.http.part import ServedPart, Wire, head


@pytest.fixture
def hurried(part: ServedPart, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    with part.connect() as wire:
        yield wire


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello there\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_http_is_told_so_and_cut_off(wire: Wire, garbage: bytes) -> None:
    wire.send(garbage)
    reply = wire.reply()
    assert (reply.status, reply.error["code"]) == (400, "bad_request")
    assert wire.rest() == b""


def test_a_chunk_that_is_none_is_refused(wire: Wire) -> None:
    wire.send(head("POST /echo", Transfer_Encoding="chunked") + b"zz\r\n{}\r\n0\r\n\r\n")
    assert b"HTTP/1.1 400" in wire.rest()


@pytest.mark.parametrize("size", [1009, 70_000])
@pytest.mark.parametrize("what", ["field", "fields", "path"])
def test_a_head_has_an_end(wire: Wire, what: str, size: int) -> None:
    start = {
        "field": b"GET /health HTTP/1.1\r\nX: ",
        "fields": b"GET /health HTTP/1.1\r\n",
        "path": b"GET /",
    }[what]
    raw = start + (b"X: yyyyyyyyyyyyy\r\n" if what == "fields" else b"y" * 18) * 4000
    # Not a byte more than shows it: what is not read when a connection is closed takes the answer away.
    raw = raw[: protocol.MAX_HEAD_BYTES + 1]
    for begin in range(0, len(raw), size):
        wire.send(raw[begin : begin + size])
        time.sleep(0.001)
    reply = wire.reply()
    assert (reply.status, reply.error["code"]) == (431, "request_header_fields_too_large")
    assert wire.rest() == b""


def test_a_head_of_the_usual_size_may_come_in_pieces(wire: Wire) -> None:
    raw = head("GET /health", Cookie="c" * 8000)
    for begin in range(0, len(raw), 500):
        wire.send(raw[begin : begin + 500])
    assert wire.reply().status == 200


def test_a_head_that_stops_is_not_waited_for(hurried: Wire) -> None:
    hurried.send(b"GET /health HTTP/1.1\r\nHo")
    reply = hurried.reply()
    assert (reply.status, reply.error["code"]) == (408, "request_timeout")
    assert hurried.rest() == b""


def test_a_head_that_trickles_is_not_waited_for(hurried: Wire) -> None:
    begin = time.monotonic()
    hurried.send(b"GET /health HTTP/1.1\r\nX: ")
    with suppress(ConnectionError):
        while time.monotonic() - begin < 5:
            hurried.send(b"y")
            time.sleep(0.02)
    assert time.monotonic() - begin < 2


def test_a_second_head_that_stops_is_not_waited_for(hurried: Wire) -> None:
    assert hurried.ask("GET /health").status == 200
    hurried.send(b"GET /health HTTP/1.1\r\nHo")
    assert hurried.reply().status == 408


def test_a_connection_on_which_nothing_comes_is_closed(hurried: Wire) -> None:
    assert hurried.rest() == b""


def test_a_long_answer_is_not_hurried(hurried: Wire) -> None:
    reply = hurried.ask("GET /stream?n=6&pause=0.1")
    assert (reply.body.count(b"data: "), reply.is_whole) == (6, True)


def test_a_part_of_the_next_request_does_not_hurt_this_one(hurried: Wire) -> None:
    hurried.send(head("GET /stream?n=6&pause=0.1") + b"GET /hea")
    assert hurried.reply().is_whole
    hurried.send(b"lth HTTP/1.1\r\nHost: x\r\n\r\n")
    assert hurried.reply().status == 200


def test_requests_may_be_sent_ahead(wire: Wire) -> None:
    wire.send(head("GET /stream?n=2&pause=0.05") + head("GET /nothing") + head("GET /health"))
    assert [wire.reply().status for _ in range(3)] == [200, 404, 200]


def test_garbage_behind_a_request_does_not_get_into_its_answer(wire: Wire) -> None:
    wire.send(head("GET /stream?n=3&pause=0.1"))
    wire.until(b"data: 0\n\n\r\n")
    wire.send(b"garbage\r\n\r\n")
    assert b"400" not in wire.rest()


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
@pytest.mark.parametrize("has_length", [True, False])
def test_who_offers_another_protocol_is_answered_in_this_one(
    wire: Wire, upgrade: str, has_length: bool
) -> None:
    # Java's client offers h2c with every request.
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": upgrade, "HTTP2_Settings": "AAMAAA"}
    for number in range(3):
        body = b'{"a": %d}' % number
        if has_length:
            wire.send(head("POST /echo", body, **offer) + body)
        else:
            chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            wire.send(head("POST /echo", Transfer_Encoding="chunked", **offer) + chunks)
        reply = wire.reply()
        assert (reply.status, reply.json) == (200, {"got": {"a": number}})
        assert wire.ask("GET /thing", X_Request_Id=f"id-{number}", **offer).json["request"] == f"id-{number}"
    assert wire.ask("GET /health").status == 200


def test_a_body_behind_an_offer_may_come_later_and_other_requests_with_it(wire: Wire) -> None:
    wire.send(head("POST /echo", b'{"a": 1}', Connection="Upgrade", Upgrade="h2c"))
    time.sleep(0.05)
    wire.send(b'{"a"')
    time.sleep(0.05)
    wire.send(b": 1}" + head("GET /thing", Connection="Upgrade", Upgrade="h2c") + head("GET /nothing"))
    assert wire.reply().json == {"got": {"a": 1}}
    assert [wire.reply().status for _ in range(2)] == [200, 404]


def test_a_tunnel_is_not_to_be_had(wire: Wire) -> None:
    wire.send(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
    assert wire.reply().status == 400
    assert wire.rest() == b""


def test_http_1_0_is_answered_and_closed(wire: Wire) -> None:
    wire.send(b"GET /health HTTP/1.0\r\n\r\n")
    assert wire.rest().endswith(b'{"status":"ok"}')


def test_a_star_is_no_path(wire: Wire) -> None:
    wire.send(head("OPTIONS *"))
    assert wire.reply().status == 404


def test_an_answer_names_no_software(wire: Wire) -> None:
    assert "server" not in wire.ask("GET /health").headers
