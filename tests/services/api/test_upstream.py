"""The client of the gateway against a worker that misbehaves on the wire."""

import asyncio
import json
import time
from collections.abc import Coroutine
from contextlib import closing
from typing import Any, TypeVar

import pytest

from llmctl.services.api.faults import (
    GarbledError,
    LostError,
    RefusedError,
    SilentError,
    StalledError,
    UpstreamError,
)
from llmctl.services.api.upstream import Answer, Call, Upstream
from tests.services.fake_worker import FakeWorker

T = TypeVar("T")
TIMEOUT_S = 5.0


def run(work: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(limited())


def call(fault: str = "", *, stream: bool = True, **body: Any) -> Call:
    raw = json.dumps({"model": "fake", "stream": stream, "user": fault} | body).encode()
    return Call("/v1/chat/completions", [(b"Content-Type", b"application/json")], raw)


async def read_into(pieces: list[bytes], answer: Answer) -> None:
    while piece := await answer.read():
        pieces.append(piece)


async def read_all(answer: Answer) -> bytes:
    pieces: list[bytes] = []
    await read_into(pieces, answer)
    return b"".join(pieces)


async def exchange(
    upstream: Upstream, worker: FakeWorker, asked: Call, timeout_s: float = TIMEOUT_S
) -> bytes:
    """The whole body of an answer."""
    with closing(await upstream.post(worker.url, asked, timeout_s=timeout_s)) as answer:
        return await read_all(answer)


def test_a_stream_comes_in_the_pieces_that_the_worker_wrote() -> None:
    async def work() -> list[bytes]:
        async with FakeWorker(rate=50) as worker:
            with closing(
                await Upstream().post(worker.url, call(max_tokens=3), timeout_s=TIMEOUT_S)
            ) as answer:
                assert answer.status == 200
                assert answer.header(b"content-type").startswith(b"text/event-stream")
                pieces = [await answer.read() for _ in range(4)]
                assert await read_all(answer) == b""
                return pieces

    first, second, third, last = run(work())
    assert [piece.count(b"data: ") for piece in (first, second, third, last)] == [1, 1, 1, 2]
    assert b"token 0 " in first
    assert b"token 2 " in third
    assert last.endswith(b"data: [DONE]\n\n")


def test_requests_one_after_the_other_share_a_connection() -> None:
    async def work() -> tuple[int, list[int]]:
        async with FakeWorker() as worker:
            upstream = Upstream()
            bodies = [await exchange(upstream, worker, call(stream=False)) for _ in range(20)]
            bodies.append(await exchange(upstream, worker, call(max_tokens=2)))
            bodies.append(await exchange(upstream, worker, call(stream=False)))
            return worker.num_connections, [len(body) for body in bodies]

    num_connections, sizes = run(work())
    assert num_connections == 1
    assert len(set(sizes[:20] + sizes[-1:])) == 1


def test_requests_at_the_same_time_get_their_own_answers() -> None:
    async def work() -> list[int]:
        async with FakeWorker(rate=500) as worker:
            upstream = Upstream()
            asked = [exchange(upstream, worker, call(max_tokens=length)) for length in range(1, 33)]
            return [body.count(b"token") for body in await asyncio.gather(*asked)]

    assert run(work()) == list(range(1, 33))


def test_the_request_is_written_as_given() -> None:
    async def work() -> Any:
        async with FakeWorker() as worker:
            headers = [(b"Content-Type", b"application/json"), (b"Authorization", b"Bearer secret")]
            await exchange(Upstream(), worker, Call("/v1/embeddings", headers, b'{"model":  "x"}'))
            return worker.asked, worker.port

    (asked,), port = run(work())
    assert asked.line == "POST /v1/embeddings HTTP/1.1"
    assert asked.raw == b'{"model":  "x"}'
    assert asked.header("host") == [f"127.0.0.1:{port}"]
    assert asked.header("authorization") == ["Bearer secret"]
    assert asked.header("content-length") == ["15"]


def test_a_url_may_have_a_path() -> None:
    async def work() -> str:
        async with FakeWorker() as worker:
            upstream = Upstream()
            with closing(await upstream.post(f"{worker.url}/gpu0/", call(), timeout_s=TIMEOUT_S)):
                return worker.asked[0].line

    assert run(work()) == "POST /gpu0/v1/chat/completions HTTP/1.1"


@pytest.mark.parametrize("num_before", [1, 3])
def test_kept_connections_that_the_worker_closed_are_replaced_unseen(num_before: int) -> None:
    async def work() -> tuple[int, int]:
        async with FakeWorker() as worker:
            upstream = Upstream()
            answers = [exchange(upstream, worker, call(stream=False)) for _ in range(num_before)]
            await asyncio.gather(*answers)
            for connection in list(worker.connections):
                # Reset the next request instead of the idle connection: the client cannot know before.
                connection.dies_at_next = True
            return len(await exchange(upstream, worker, call(stream=False))), worker.num_connections

    size, num_connections = run(work())
    assert size > 10
    assert num_connections == num_before + 1


def test_an_idle_connection_that_the_worker_closes_is_forgotten() -> None:
    async def work() -> tuple[int, int]:
        async with FakeWorker() as worker:
            upstream = Upstream()
            await exchange(upstream, worker, call("stale", stream=False))
            await asyncio.sleep(0.15)
            size = len(await exchange(upstream, worker, call(stream=False)))
            return size, worker.num_connections

    assert run(work())[1] == 2


def test_bytes_that_nobody_asked_for_end_an_idle_connection() -> None:
    async def work() -> int:
        async with FakeWorker() as worker:
            upstream = Upstream()
            await exchange(upstream, worker, call(stream=False))
            for connection in worker.connections:
                connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            await asyncio.sleep(0.05)
            assert b"evil" not in await exchange(upstream, worker, call(stream=False))
            return worker.num_connections

    assert run(work()) == 2


FAILURES = {
    "reset": LostError,
    "close": LostError,
    "head": LostError,
    "cut:2": LostError,
    "torn:2": LostError,
    "crash:2": LostError,
    "done": LostError,
    "half": LostError,
    "garbage": GarbledError,
    "hang": SilentError,
    "hang:2": SilentError,
    "flood": GarbledError,
}


@pytest.mark.parametrize(("fault", "error"), FAILURES.items())
def test_what_goes_wrong_has_a_name_and_is_not_kept(fault: str, error: type[UpstreamError]) -> None:
    async def work() -> None:
        async with FakeWorker() as worker:
            upstream = Upstream()
            with pytest.raises(error):
                await exchange(upstream, worker, call(fault), timeout_s=0.3)
            assert await exchange(upstream, worker, call(stream=False))
            assert worker.num_connections == 2

    run(work())


@pytest.mark.parametrize(("fault", "num_frames"), [("cut:3", 3), ("crash:3", None), ("hang:2", 2)])
def test_what_came_before_the_failure_is_read_first(fault: str, num_frames: int | None) -> None:
    async def work() -> int:
        async with FakeWorker(rate=50) as worker:
            answer = await Upstream().post(worker.url, call(fault), timeout_s=0.5)
            pieces: list[bytes] = []
            with closing(answer), pytest.raises(UpstreamError):
                await read_into(pieces, answer)
            return b"".join(pieces).count(b"\n\n")

    came = run(work())
    assert came == num_frames if num_frames is not None else came > 0


def test_nobody_listening_is_told_apart() -> None:
    async def work() -> None:
        async with FakeWorker() as worker:
            pass
        with pytest.raises(RefusedError, match="cannot be reached"):
            await Upstream().post(worker.url, call(), timeout_s=TIMEOUT_S)

    run(work())


def test_closing_an_answer_early_is_seen_by_the_worker_at_once() -> None:
    async def work() -> float:
        async with FakeWorker(rate=100) as worker:
            answer = await Upstream().post(worker.url, call(max_tokens=10_000), timeout_s=TIMEOUT_S)
            await answer.read()
            started = time.monotonic()
            answer.close()
            await worker.left.wait()
            return time.monotonic() - started

    assert run(work()) < 0.2


def test_cancelling_before_the_head_is_seen_by_the_worker_at_once() -> None:
    async def work() -> float:
        async with FakeWorker() as worker:
            asking = asyncio.create_task(Upstream().post(worker.url, call("hang"), timeout_s=TIMEOUT_S))
            while not worker.asked:
                await asyncio.sleep(0.01)
            started = time.monotonic()
            asking.cancel()
            await worker.left.wait()
            return time.monotonic() - started

    assert run(work()) < 0.2


def test_a_reader_that_is_slow_holds_the_worker_back() -> None:
    size = 64 * 1024 * 1024

    async def work() -> tuple[int, int]:
        async with FakeWorker() as worker:
            answer = await Upstream().post(worker.url, call(f"size:{size}"), timeout_s=TIMEOUT_S)
            await asyncio.sleep(0.2)
            first = len(await answer.read())
            (connection,) = worker.connections
            left = connection.transport.get_write_buffer_size()
            with closing(answer):
                return left, first + len(await read_all(answer))

    left, num_bytes = run(work())
    assert left > size // 2
    assert num_bytes == size


def test_a_reader_that_does_not_come_back_frees_the_worker() -> None:
    async def work() -> None:
        async with FakeWorker(rate=200) as worker:
            answer = await Upstream().post(worker.url, call(max_tokens=10_000), timeout_s=0.2)
            await worker.left.wait()
            with closing(answer), pytest.raises(StalledError):
                await read_all(answer)

    run(work())


def test_a_reader_that_takes_its_time_is_no_fault_of_the_worker() -> None:
    async def work() -> int:
        async with FakeWorker(rate=200) as worker:
            answer = await Upstream().post(worker.url, call(max_tokens=100), timeout_s=0.4)
            num_frames = 0
            with closing(answer):
                while piece := await answer.read():
                    num_frames += piece.count(b"\n\n")
                    await asyncio.sleep(0.25)
            return num_frames

    assert run(work()) == 102


def test_a_shorter_limit_may_hold_once_an_answer_has_begun() -> None:
    async def work() -> float:
        async with FakeWorker(rate=200) as worker:
            answer = await Upstream().post(worker.url, call("hang:2"), timeout_s=TIMEOUT_S)
            await answer.read()
            started = time.monotonic()
            answer.expect_within(0.3)
            with closing(answer), pytest.raises(SilentError, match=r"0\.3 s"):
                await read_all(answer)
            return time.monotonic() - started

    assert 0.2 < run(work()) < 2


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async def work() -> bytes:
        async with FakeWorker() as worker:
            return await exchange(Upstream(), worker, call("old"))

    assert run(work()) == b"until the end"


def test_an_interim_answer_is_passed_over() -> None:
    async def work() -> tuple[int, bytes]:
        async with FakeWorker() as worker:
            with closing(await Upstream().post(worker.url, call("interim"), timeout_s=TIMEOUT_S)) as answer:
                return answer.status, await read_all(answer)

    assert run(work()) == (200, b"{}")


def test_pools_of_workers_that_are_gone_are_closed() -> None:
    async def work() -> list[int]:
        async with FakeWorker() as one, FakeWorker() as other:
            upstream = Upstream()
            for worker in (one, other):
                await exchange(upstream, worker, call(stream=False))
            upstream.keep_only([one.url])
            await asyncio.sleep(0.05)
            left = [len(one.connections), len(other.connections)]
            upstream.close()
            await asyncio.sleep(0.05)
            return [*left, len(one.connections)]

    assert run(work()) == [1, 0, 0]
