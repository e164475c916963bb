"""Clients that try to get past the gateway, by bytes that two servers could read in two ways."""

import asyncio

import pytest

from tests.services.api.gateway import CHAT, RunningGateway, Wire, run
from tests.services.fake_worker import FakeWorker

BODY = b'{"model": "fake"}'
INNER = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n" + BODY
PATH = CHAT.encode()


async def everything(wire: Wire) -> bytes:
    """All that comes until the server closes, or is silent."""
    raw = b""
    try:
        async with asyncio.timeout(0.3):
            while piece := await wire.reader.read(65_536):
                raw += piece
    except (TimeoutError, ConnectionError):
        pass
    return raw


AMBIGUOUS = {
    "both lengths": b"Content-Length: 17\r\nTransfer-Encoding: chunked",
    "both lengths, the other way": b"Transfer-Encoding: chunked\r\nContent-Length: 17",
    "two lengths": b"Content-Length: 17\r\nContent-Length: 99",
    "two lengths in one": b"Content-Length: 17, 99",
    "a length with a sign": b"Content-Length: +17",
    "a length in hexadecimal": b"Content-Length: 0x11",
    "a negative length": b"Content-Length: -1",
    "a length that overflows": b"Content-Length: 99999999999999999999999",
    "chunked, and something behind it": b"Transfer-Encoding: chunked, identity",
    "a blank before the colon": b"Content-Length : 17",
    "chunked under a blank": b"Transfer-Encoding : chunked",
    "chunked with a control character": b"Transfer-Encoding: \x0bchunked",
    "a folded line": b"X-Folded: one\r\n two\r\nContent-Length: 17",
    "a name with a null": b"X\x00Y: 1\r\nContent-Length: 17",
    "a value with a null": b"X-Y: 1\x002\r\nContent-Length: 17",
    "a bare return": b"X-Y: 1\rX-Evil: 2\r\nContent-Length: 17",
}


@pytest.mark.parametrize("fields", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_request_that_can_be_read_in_two_ways_reaches_no_worker(fields: bytes) -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway, gateway.connect() as wire:
            wire.send(b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n" + BODY + INNER)
            raw = await everything(wire)
            assert raw.startswith(b"HTTP/1.1 4")
            assert raw.count(b"HTTP/1.1 ") == 1
            assert worker.asked == []
            assert (await gateway.post()).status == 200

    run(work())


@pytest.mark.parametrize("coding", [b"identity", b"gzip, chunked", b"xchunked"])
def test_a_body_in_an_odd_coding_is_no_second_request(coding: bytes) -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway, gateway.connect() as wire:
            wire.send(b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + coding + b"\r\n\r\n")
            wire.send(b"0\r\n\r\n" + INNER)
            await everything(wire)
            assert [each.line for each in worker.asked if each.raw != BODY] == []
            assert all("embeddings" in each.line for each in worker.asked)

    run(work())


@pytest.mark.parametrize("size", [b"11", b"11;name=value", b"0011"])
def test_a_chunked_body_reaches_the_worker_with_its_length(size: bytes) -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway, gateway.connect() as wire:
            wire.send(b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            wire.send(size + b"\r\n" + BODY + b"\r\n0\r\nX-Trailer: 1\r\n\r\n")
            assert (await wire.reply()).status == 200
            (asked,) = worker.asked
            assert asked.raw == BODY
            assert asked.header("content-length") == ["17"]
            assert asked.header("transfer-encoding") == asked.header("x-trailer") == []

    run(work())


@pytest.mark.parametrize("size", [b"-1", b"11 11", b"0x11", b"ffffffffffffffffff", b"zz", b""])
def test_a_chunk_of_an_impossible_size_ends_the_connection(size: bytes) -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway, gateway.connect() as wire:
            wire.send(b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            wire.send(size + b"\r\n" + BODY + b"\r\n0\r\n\r\n" + INNER)
            raw = await everything(wire)
            assert raw.count(b"HTTP/1.1 200") == 0
            assert worker.asked == []

    run(work())


@pytest.mark.parametrize(
    "field",
    [
        b"X-Request-Id: a\tb",
        b"X-Request-Id: " + b"x" * 1000,
        b"X-Request-Id: \xe4\xf6",
        b"X-Request-Id: one\r\nX-Request-Id: two",
        b"Content-Type: application/json; x=\xff",
        b"Accept: " + b"y" * 2000,
        b"User-Agent: \t\xc3\xa4",
        b"Host: evil\r\nX-Forwarded-Host: evil",
    ],
)
def test_odd_fields_of_a_client_do_not_reach_the_worker(field: bytes) -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway, gateway.connect() as wire:
            wire.send(b"POST " + PATH + b" HTTP/1.1\r\n" + field + b"\r\nContent-Length: 17\r\n\r\n" + BODY)
            assert (await wire.reply()).status == 200
            (asked,) = worker.asked
            assert asked.header("host") == [f"127.0.0.1:{worker.port}"]
            assert len(asked.header("x-request-id")) == 1
            assert all(value.isascii() and value.isprintable() for _, value in asked.headers)
            assert sum(len(value) for _, value in asked.headers) < 300

    run(work())


@pytest.mark.parametrize(
    "target", [b"/v1/chat/completions/../embeddings", b"//v1/embeddings", b"/v1/embeddings%00"]
)
def test_the_path_of_a_worker_is_the_gateways_own(target: bytes) -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway, gateway.connect() as wire:
            wire.send(b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n" + BODY)
            assert (await wire.reply()).status == 404
            wire.send(
                b"POST /v1/embeddings?x=%0d%0aX-Evil:1 HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n"
                + BODY
            )
            assert (await wire.reply()).status == 200
            assert [each.line for each in worker.asked] == ["POST /v1/embeddings HTTP/1.1"]

    run(work())


def test_web_pages_may_ask_only_from_where_it_is_allowed() -> None:
    preflight = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")

    async def work() -> None:
        async with FakeWorker() as worker:
            async with RunningGateway(worker) as gateway:
                reply = await gateway.post(CHAT, "Origin: https://a.example")
                assert not reply.header("access-control-allow-origin")
            async with RunningGateway(worker, keys=("k",), origins=("https://a.example",)) as gateway:
                for origin, status in (("https://a.example", 200), ("https://b.example", 400)):
                    reply = await gateway.get(CHAT, f"Origin: {origin}", *preflight, method="OPTIONS")
                    assert reply.status == status
                key = "Authorization: Bearer k"
                reply = await gateway.post(CHAT, "Origin: https://a.example", key, stream=True, max_tokens=2)
                assert reply.header("access-control-allow-origin") == "https://a.example"
                assert reply.body.endswith(b"data: [DONE]\n\n")
                assert (await gateway.post(CHAT, "Origin: https://a.example")).status == 401

    run(work())
