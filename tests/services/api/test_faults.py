"""The gateway between clients and workers that misbehave, and clients that leave."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.services.api.gateway import CHAT, Reply, RunningGateway, run
from tests.services.fake_worker import FakeWorker

BEFORE_THE_BODY = [
    "reset",
    "close",
    "head",
    "garbage",
    "flood",
    "status:503",
    "status:429",
    "status:401",
    "hang",
]
AFTER_THE_BODY_BEGAN = ["cut:2", "torn:2", "hang:2"]


async def counters(gateway: RunningGateway) -> dict[str, float]:
    """The gateway's own figures, those of all labels together."""
    sums: dict[str, float] = {}
    for line in (await gateway.get("/metrics")).body.decode().splitlines():
        if line.startswith("llmctl_gateway_"):
            name, _, value = line.partition(" ")
            key = name.partition("{")[0].removeprefix("llmctl_gateway_")
            sums[key] = sums.get(key, 0.0) + float(value)
    return sums


# Before the first byte


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("fault", BEFORE_THE_BODY)
def test_what_fails_before_its_answer_begins_is_asked_of_another_worker(fault: str, is_stream: bool) -> None:
    async def work() -> tuple[Reply, list[int], float]:
        async with (
            FakeWorker(fault=fault) as bad,
            FakeWorker() as good,
            RunningGateway(bad, good, timeout_s=0.3) as gateway,
        ):
            reply = await gateway.post(stream=is_stream, max_tokens=4)
            return reply, [len(bad.asked), len(good.asked)], (await counters(gateway))["retries_total"]

    reply, asked, num_retries = run(work())
    assert reply.status == 200
    assert reply.is_whole
    assert asked == [1, 1]
    assert num_retries == 1
    assert reply.body.endswith(b"data: [DONE]\n\n") == is_stream


def test_half_of_a_json_answer_is_asked_of_another_worker() -> None:
    async def work() -> Reply:
        async with (
            FakeWorker(fault="half") as bad,
            FakeWorker() as good,
            RunningGateway(bad, good) as gateway,
        ):
            return await gateway.post()

    assert run(work()).json["object"] == "answer"


def test_a_worker_that_is_gone_is_passed_over() -> None:
    async def work() -> list[int]:
        async with FakeWorker() as gone, FakeWorker() as good, RunningGateway(gone, good) as gateway:
            await gone.stop()
            statuses = [(await gateway.post()).status for _ in range(5)]
            # It failed once, and is not tried first again.
            assert (await counters(gateway))["worker_failures_total"] == 1
            return statuses

    assert run(work()) == [200] * 5


def test_at_most_three_workers_are_tried() -> None:
    async def work() -> tuple[int, list[int]]:
        async with (
            FakeWorker(fault="close") as one,
            FakeWorker(fault="close") as two,
            FakeWorker(fault="close") as three,
            FakeWorker() as four,
            RunningGateway(one, two, three, four) as gateway,
        ):
            reply = await gateway.post()
            return reply.status, [len(each.asked) for each in (one, two, three, four)]

    assert run(work()) == (502, [1, 1, 1, 0])


def test_a_request_that_takes_too_long_is_not_handed_round_the_whole_fleet() -> None:
    async def work() -> tuple[Reply, list[int]]:
        async with (
            FakeWorker(fault="hang") as one,
            FakeWorker(fault="hang") as two,
            FakeWorker() as three,
            RunningGateway(one, two, three, timeout_s=0.2) as gateway,
        ):
            return await gateway.post(), [len(each.asked) for each in (one, two, three)]

    reply, asked = run(work())
    assert reply.status == 504
    assert reply.error["code"] == "worker_timeout"
    assert asked == [1, 1, 0]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("reset", 502, "worker_failed"),
        ("garbage", 502, "worker_failed"),
        ("status:401", 502, "worker_failed"),
        ("hang", 504, "worker_timeout"),
        ("gone", 503, "no_worker"),
    ],
)
def test_without_another_worker_the_client_is_told(fault: str, status: int, code: str) -> None:
    async def work() -> None:
        async with FakeWorker(fault=fault) as worker, RunningGateway(worker, timeout_s=0.2) as gateway:
            if fault == "gone":
                await worker.stop()
            reply = await gateway.post(stream=True)
            assert (reply.status, reply.error["code"]) == (status, code)
            assert reply.error["type"] == "server_error"
            assert bool(reply.header("retry-after")) == (status == 503)
            assert str(worker.port) not in reply.error["message"]
            # The next one has nobody else to go to, and is tried there again.
            worker.fault = ""
            if fault != "gone":
                assert (await gateway.post()).status == 200

    run(work())


@pytest.mark.parametrize(("fault", "status"), [("status:429", 429), ("status:503", 503)])
def test_when_all_workers_are_full_their_own_word_is_passed_on(fault: str, status: int) -> None:
    async def work() -> None:
        async with (
            FakeWorker(fault=fault) as one,
            FakeWorker(fault=fault) as two,
            RunningGateway(one, two) as gateway,
        ):
            reply = await gateway.post(stream=True)
            assert (reply.status, reply.header("retry-after")) == (status, "7")
            assert reply.error["message"] == f"fault {status}"
            assert [len(one.asked), len(two.asked)] == [1, 1]

    run(work())


def test_a_full_worker_says_more_than_one_that_is_gone() -> None:
    async def work() -> int:
        async with (
            FakeWorker(fault="status:429") as full,
            FakeWorker() as gone,
            RunningGateway(full, gone) as gateway,
        ):
            await gone.stop()
            return (await gateway.post()).status

    assert run(work()) == 429


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_other_errors_of_a_worker_are_its_answer(status: int) -> None:
    async def work() -> tuple[int, str, int]:
        async with (
            FakeWorker(fault=f"status:{status}") as worker,
            FakeWorker() as other,
            RunningGateway(worker, other) as gateway,
        ):
            reply = await gateway.post(stream=True)
            return reply.status, reply.error["message"], len(other.asked)

    assert run(work()) == (status, f"fault {status}", 0)


@pytest.mark.parametrize("status", [302, 500, 507])
def test_a_worker_that_fails_is_replaced_and_told_of_where_there_is_no_other(status: int) -> None:
    async def work() -> tuple[int, int]:
        async with FakeWorker(fault=f"status:{status}") as bad:
            async with FakeWorker() as good, RunningGateway(bad, good) as gateway:
                both = [(await gateway.post()).status for _ in range(4)]
            async with RunningGateway(bad) as gateway:
                alone = await gateway.post()
        assert both == [200] * 4
        return alone.status, len(bad.asked)

    told, num_asked = run(work())
    assert told == (502 if status == 302 else status)
    assert num_asked > 1


def test_a_stream_that_ends_without_its_end_is_told_of() -> None:
    async def work() -> bytes:
        async with FakeWorker(fault="quiet") as worker, RunningGateway(worker) as gateway:
            return (await gateway.post(stream=True)).body

    body = run(work())
    *_, told, done, rest = body.split(b"\n\n")
    assert (b"worker_failed" in told, done, rest) == (True, b"data: [DONE]", b"")


def test_without_workers_the_client_is_told_to_come_back() -> None:
    async def work() -> None:
        async with RunningGateway() as gateway:
            for path in (CHAT, "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize"):
                reply = await gateway.post(path)
                assert (reply.status, reply.error["code"]) == (503, "no_worker")
                assert int(reply.header("retry-after")) >= 1
            assert (await gateway.get("/v1/models")).json == {"object": "list", "data": []}

    run(work())


# After it


@pytest.mark.parametrize("fault", AFTER_THE_BODY_BEGAN)
def test_a_stream_that_breaks_ends_with_an_error_event(fault: str) -> None:
    async def work() -> None:
        async with (
            FakeWorker(rate=100, fault=fault) as bad,
            FakeWorker() as good,
            RunningGateway(bad, good, timeout_s=0.3) as gateway,
            gateway.connect() as wire,
        ):
            reply = await wire.post(CHAT, model="fake", stream=True)
            assert reply.status == 200
            assert reply.is_whole
            *texts, error, done = reply.events
            assert len(texts) == 2
            assert done == b"[DONE]"
            told = json.loads(error)["error"]
            assert set(told) == {"message", "type", "param", "code"}
            assert told["type"] == "server_error"
            assert str(bad.port) not in told["message"]
            assert good.asked == []
            # The client's connection is good, and the next request is asked of the other.
            assert (await wire.post(CHAT, model="fake")).json["by"] == good.port
            assert (await counters(gateway))["broken_answers_total"] == 1

    run(work())


def test_a_stream_that_is_reset_ends_with_an_error_event() -> None:
    async def work() -> list[bytes]:
        async with FakeWorker(rate=20, fault="crash:2") as worker, RunningGateway(worker) as gateway:
            return (await gateway.post(stream=True)).events

    *texts, error, done = run(work())
    assert len(texts) == 2
    assert "error" in json.loads(error)
    assert done == b"[DONE]"


def test_a_stream_that_breaks_behind_its_last_event_is_complete() -> None:
    async def work() -> Reply:
        async with FakeWorker(fault="done") as worker, RunningGateway(worker) as gateway:
            return await gateway.post(stream=True, max_tokens=3)

    reply = run(work())
    assert reply.is_whole
    assert reply.body.count(b"[DONE]") == 1
    assert b"error" not in reply.body


def test_a_large_json_answer_that_breaks_does_not_look_whole() -> None:
    async def work() -> Reply:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway, gateway.connect() as wire:
            wire.send_json(CHAT, model="fake", user=f"size:{64 * 1024 * 1024}")
            while not worker.connections:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            for connection in worker.connections:
                connection.transport.abort()
            return await wire.reply()

    reply = run(work())
    assert reply.status == 200
    assert not reply.is_whole


# Clients that leave


async def mid_stream(gateway: RunningGateway, worker: FakeWorker) -> None:
    async with gateway.connect() as wire:
        wire.send_json(CHAT, model="fake", stream=True, max_tokens=100_000)
        await wire.head()
        await wire.chunk()


async def before_the_first_byte(gateway: RunningGateway, worker: FakeWorker) -> None:
    async with gateway.connect() as wire:
        wire.send_json(CHAT, model="fake", stream=True, user="hang")
        while not worker.asked:
            await asyncio.sleep(0.01)


async def without_stream(gateway: RunningGateway, worker: FakeWorker) -> None:
    async with gateway.connect() as wire:
        wire.send_json(CHAT, model="fake", user="hang")
        while not worker.asked:
            await asyncio.sleep(0.01)


async def with_a_reset(gateway: RunningGateway, worker: FakeWorker) -> None:
    async with gateway.connect() as wire:
        wire.send_json(CHAT, model="fake", stream=True, max_tokens=100_000)
        await wire.head()
        wire.writer.transport.abort()


@pytest.mark.parametrize("leave", [mid_stream, before_the_first_byte, without_stream, with_a_reset])
def test_a_client_that_leaves_cancels_at_the_worker_at_once(
    leave: Callable[[RunningGateway, FakeWorker], Awaitable[None]],
) -> None:
    async def work() -> float:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway:
            await leave(gateway, worker)
            started = time.monotonic()
            await worker.left.wait()
            took_s = time.monotonic() - started
            assert (await counters(gateway))["departures_total"] == 1
            assert (await counters(gateway))["worker_failures_total"] == 0
            assert (await gateway.post()).status == 200
            return took_s

    assert run(work()) < 0.2


def test_a_client_that_does_not_read_holds_its_worker_back_and_then_frees_it() -> None:
    async def work() -> float:
        async with FakeWorker(rate=100_000) as worker, RunningGateway(worker, timeout_s=0.5) as gateway:
            async with gateway.connect() as wire:
                wire.send_json(CHAT, model="fake", stream=True, max_tokens=10_000_000)
                started = time.monotonic()
                await worker.left.wait()
                took_s = time.monotonic() - started
            # It is no fault of the worker's.
            assert (await counters(gateway))["worker_failures_total"] == 0
            assert (await gateway.post()).status == 200
            return took_s

    assert 0.4 < run(work()) < 10


def test_many_clients_that_come_and_go_leave_nothing_behind() -> None:
    async def work() -> None:
        async with (
            FakeWorker(rate=100) as one,
            FakeWorker(rate=100) as two,
            RunningGateway(one, two) as gateway,
        ):
            gateway.tell(one, two, is_even=True)
            leaving = [mid_stream(gateway, one) for _ in range(40)]
            staying = [gateway.post(stream=True, max_tokens=20) for _ in range(20)]
            await asyncio.gather(*leaving)
            for reply in await asyncio.gather(*staying):
                assert reply.body.count(b"token") == 20
            await asyncio.sleep(0.05)
            assert not one.streams | two.streams
            assert {each.num_running for each in gateway.fleet._traffic.values()} == {0}
            assert (await counters(gateway))["departures_total"] == 40

    run(work())


def test_a_gateway_that_stops_ends_its_streams_in_order() -> None:
    async def work() -> Reply:
        async with (
            FakeWorker(rate=50) as worker,
            RunningGateway(worker) as gateway,
            gateway.connect() as wire,
        ):
            wire.send_json(CHAT, model="fake", stream=True, max_tokens=10_000)
            status, headers = await wire.head()
            first = await wire.chunk()
            gateway.service.stop()
            chunks = [first]
            while chunks[-1]:
                chunks.append(await wire.chunk())
            await worker.left.wait()
            return Reply(status, headers, b"".join(chunks))

    *texts, error, done = run(work()).events
    assert texts
    assert "shutting down" in json.loads(error)["error"]["message"]
    assert done == b"[DONE]"
