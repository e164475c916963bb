"""The gateway between clients and workers that behave."""

import asyncio
import json

import pytest

from llmctl.services.wire import ModelState
from tests.services.api.gateway import CHAT, RunningGateway, run
from tests.services.fake_worker import FakeWorker

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize")


def test_a_stream_passes_through_byte_by_byte() -> None:
    async def work() -> tuple[bytes, bytes]:
        async with FakeWorker(rate=100) as worker, RunningGateway(worker) as gateway:
            through = await gateway.post(stream=True, max_tokens=5)
            gateway.port = worker.port
            direct = await gateway.post(stream=True, max_tokens=5)
            assert through.header("content-type") == direct.header("content-type")
            assert through.is_whole
            return through.body, direct.body

    through, direct = run(work())
    assert through == direct
    assert through.count(b"data: ") == 7


def test_each_event_is_sent_when_it_comes() -> None:
    async def work() -> list[int]:
        async with FakeWorker(rate=50) as worker, RunningGateway(worker) as gateway:
            reply = await gateway.post(stream=True, max_tokens=5)
            return [chunk.count(b"data: ") for chunk in reply.chunks]

    assert run(work()) == [1, 1, 1, 1, 1, 2]


def test_events_that_were_cut_reach_the_client_whole() -> None:
    async def work() -> list[bytes]:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway:
            return list((await gateway.post(stream=True, user="split")).chunks)

    chunks = run(work())
    assert len(chunks) > 2
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)


@pytest.mark.parametrize("path", PATHS)
def test_each_route_of_a_worker_is_there_and_its_body_goes_on_as_it_came(path: str) -> None:
    async def work() -> tuple[str, bytes, str]:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway:
            async with gateway.connect() as wire:
                raw = b'{ "model" : "fake",\t"unknown": [1e40, "\\u00e9"], "x": 1, "x": 2 }'
                wire.send(
                    b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(raw))
                )
                wire.send(raw)
                reply = await wire.reply()
            (asked,) = worker.asked
            assert asked.raw == raw
            assert asked.header("content-type") == ["application/json"]
            return asked.line, reply.body, reply.json["path"]

    line, _, told = run(work())
    assert line == f"POST {path} HTTP/1.1"
    assert told == path


def test_a_check_of_tokens_goes_to_the_worker_of_each_model() -> None:
    models = (ModelState(name="org/one"), ModelState(name="two", aliases=("zwei",)))
    prompts = [
        {"model": name, "prompt": f"p{number}", "max_tokens": number}
        for number, name in enumerate(("org/one", "zwei", "org/one"))
    ]

    async def work() -> tuple[list[int], list[list[str]], bytes]:
        async with FakeWorker() as worker, RunningGateway(worker, models=models) as gateway:
            reply = await gateway.post("/api/v1/token_check", prompts=prompts)
            asked = [[prompt["prompt"] for prompt in each.body["prompts"]] for each in worker.asked]
            alone = await gateway.post("/api/v1/token_check", prompts=prompts[:1])
            return [each["tokenCount"] for each in reply.json["prompts"]], asked, alone.body

    counts, asked, alone = run(work())
    assert counts == [0, 1, 2]
    assert asked == [["p0", "p2"], ["p1"]]
    assert json.loads(alone)["prompts"][0]["tokenCount"] == 0


@pytest.mark.parametrize(
    ("prompts", "param"),
    [
        (None, "prompts"),
        ([], "prompts"),
        ([{"model": "fake"}, 7], "prompts[1].model"),
        ([{"prompt": "x"}], "prompts[0].model"),
        ([{"model": f"m{number}"} for number in range(33)], "prompts"),
    ],
)
def test_a_check_of_tokens_that_names_no_models_is_refused(prompts: object, param: str) -> None:
    async def work() -> tuple[int, str]:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway:
            reply = await gateway.post("/api/v1/token_check", prompts=prompts)
            return reply.status, reply.error["param"]

    assert run(work()) == (400, param)


def test_models_are_those_of_all_workers_under_all_their_names() -> None:
    models = (ModelState(name="org/model:7b@main", aliases=("short",), context_length=4096),)

    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker, models=models) as gateway:
            listed = (await gateway.get("/v1/models")).json
            assert listed["object"] == "list"
            assert [each["id"] for each in listed["data"]] == ["org/model:7b@main", "short"]
            for path in ("org/model:7b@main", "org%2Fmodel%3A7b%40main", "short"):
                card = (await gateway.get(f"/v1/models/{path}")).json
                assert card["max_model_len"] == 4096
                assert set(card) >= {"id", "object", "created", "owned_by"}
            for name in ("org/model:7b@main", "short"):
                assert (await gateway.post(model=name)).status == 200

    run(work())


@pytest.mark.parametrize("model", ["nope", "org/nope", "a\r\nX-Evil: 1", "\u2028", "x" * 5000])
def test_a_model_that_nobody_serves_is_named(model: str) -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway:
            reply = await gateway.post(model=model)
            assert reply.status == 404
            assert reply.error["code"] == "model_not_found"
            assert reply.error["param"] == "model"
            assert "fake" in reply.error["message"]
            assert not reply.header("x-evil")
            assert worker.asked == []
            assert (await gateway.get("/v1/models/nope/nope")).status == 404

    run(work())


def test_without_a_name_the_only_model_is_meant() -> None:
    two = (ModelState(name="one"), ModelState(name="two"))

    async def work() -> None:
        async with FakeWorker() as worker:
            async with RunningGateway(worker) as gateway:
                assert (await gateway.post("/tokenize", model=None, prompt="x")).status == 200
            async with RunningGateway(worker, models=two) as gateway:
                reply = await gateway.post("/tokenize", model=None, prompt="x")
                assert (reply.status, reply.error["param"]) == (400, "model")
                assert "one, two" in reply.error["message"]

    run(work())


@pytest.mark.parametrize("model", [7, "", [], {}, True])
def test_a_model_that_is_no_name_is_refused(model: object) -> None:
    async def work() -> tuple[int, str]:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway:
            reply = await gateway.post(model=model)
            return reply.status, reply.error["param"]

    assert run(work()) == (400, "model")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"model": "fake"', b"[" * 100_000, b"NaN"]
)
def test_what_is_no_json_object_is_refused_and_reaches_no_worker(raw: bytes) -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway, gateway.connect() as wire:
            wire.send(
                b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(raw))
            )
            wire.send(raw)
            reply = await wire.reply()
            assert reply.status == 400
            assert reply.error["type"] == "invalid_request_error"
            assert worker.asked == []

    run(work())


def test_a_request_id_goes_with_the_request_and_comes_back_once() -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway:
            reply = await gateway.post(CHAT, "X-Request-Id: mine-7")
            assert reply.header("x-request-id") == "mine-7"
            own = (await gateway.post(user="hop")).header("x-request-id")
            assert [each.header("x-request-id") for each in worker.asked] == [["mine-7"], [own]]

    run(work())


def test_headers_of_one_connection_stay_on_it() -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway:
            sent = (
                "Connection: X-Hop",
                "X-Hop: 1",
                "Cookie: a=b",
                "Accept: x/y",
                "Traceparent: 00-0",
                "TE: trailers",
            )
            reply = await gateway.post(CHAT, *sent, user="hop")
            got = {name for name, _ in worker.asked[0].headers}
            names = {name for name, _ in reply.headers}
            assert got == {"host", "content-type", "content-length", "x-request-id", "accept", "traceparent"}
            assert reply.header("x-kept") == ""
            assert not names & {"keep-alive", "upgrade", "connection"}
            assert reply.header("date") != "then"
            assert reply.header("server") != "fake"

    run(work())


def test_the_clients_key_is_replaced_by_the_clusters_token() -> None:
    async def work() -> None:
        async with (
            FakeWorker() as worker,
            RunningGateway(worker, token="cluster", keys=("k1", "k2")) as gateway,
        ):
            assert (await gateway.post()).status == 401
            assert (await gateway.post(CHAT, "Authorization: Bearer no")).status == 401
            assert (await gateway.get("/v1/models")).status == 401
            assert (await gateway.get("/health")).status == 200
            for key in ("Authorization: Bearer k1", "x-api-key: k2"):
                assert (await gateway.post(CHAT, key)).status == 200
            assert [each.header("authorization") for each in worker.asked] == [["Bearer cluster"]] * 2
            assert [each.header("x-api-key") for each in worker.asked] == [[], []]

    run(work())


def test_many_requests_on_one_connection_share_a_connection_to_the_worker() -> None:
    async def work() -> int:
        async with (
            FakeWorker(rate=1000) as worker,
            RunningGateway(worker) as gateway,
            gateway.connect() as wire,
        ):
            for number in range(100):
                reply = await wire.post(CHAT, model="fake", stream=number % 3 == 0, max_tokens=2)
                assert reply.is_whole
                assert reply.status == 200
            return worker.num_connections

    assert run(work()) == 1


def test_requests_that_are_written_at_once_are_answered_in_their_order() -> None:
    async def work() -> list[int]:
        async with (
            FakeWorker(rate=200) as worker,
            RunningGateway(worker) as gateway,
            gateway.connect() as wire,
        ):
            for length in (3, 1, 2):
                wire.send_json(CHAT, model="fake", stream=True, max_tokens=length)
            return [(await wire.reply()).body.count(b"token") for _ in range(3)]

    assert run(work()) == [3, 1, 2]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("HEAD", "/v1/models", 200, None),
        ("HEAD", "/health", 200, None),
        ("HEAD", CHAT, 405, "POST"),
        ("GET", CHAT, 405, "POST"),
        ("DELETE", "/v1/models", 405, "GET"),
        ("GET", "/v1/nothing", 404, None),
    ],
)
def test_methods_that_a_path_does_not_take_are_refused(
    method: str, path: str, status: int, allow: str | None
) -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway, gateway.connect() as wire:
            reply = await wire.get(path, method=method)
            assert reply.status == status
            assert allow is None or allow in reply.header("allow")
            # The connection is as good as before.
            assert (await wire.get("/v1/models")).status == 200

    run(work())


def test_requests_are_spread_over_workers() -> None:
    async def work() -> list[int]:
        async with FakeWorker() as one, FakeWorker() as two, RunningGateway() as gateway:
            gateway.tell(one, two, is_even=True)
            replies = [gateway.post(stream=True, max_tokens=20) for _ in range(16)]
            for reply in await asyncio.gather(*replies):
                assert reply.is_whole
            return [len(one.asked), len(two.asked)]

    assert run(work()) == [8, 8]


def test_prompts_that_begin_alike_go_to_one_worker_where_that_is_wished() -> None:
    async def work() -> list[set[int]]:
        async with FakeWorker() as one, FakeWorker() as two, RunningGateway() as gateway:
            gateway.fleet._method = "prefix"
            gateway.tell(one, two, is_even=True)
            found = []
            for number in range(12):
                system = {"role": "system", "content": f"{number} " * 600}
                asked = [[system, {"role": "user", "content": text}] for text in ("one", "two", "three")]
                found.append({(await gateway.post(messages=messages)).json["by"] for messages in asked})
            return found

    found = run(work())
    assert all(len(ports) == 1 for ports in found)
    assert len(set.union(*found)) == 2


def test_a_large_body_passes_and_one_beyond_the_limit_does_not() -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway:
            assert (await gateway.post(prompt="x" * 10_000_000)).status == 200
            assert len(worker.asked[0].raw) > 10_000_000
            async with gateway.connect() as wire:
                wire.send(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{")
                reply = await wire.reply()
            assert reply.status == 413
            assert len(worker.asked) == 1

    run(work())


def test_a_large_answer_is_passed_on_as_the_client_takes_it() -> None:
    size = 64 * 1024 * 1024

    async def work() -> tuple[int, int]:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway, gateway.connect() as wire:
            wire.send_json(CHAT, model="fake", user=f"size:{size}")
            status, headers = await wire.head()
            assert (status, dict(headers)["content-length"]) == (200, str(size))
            await asyncio.sleep(0.3)
            (connection,) = worker.connections
            left = connection.transport.get_write_buffer_size()
            return left, len(await wire.reader.readexactly(size))

    left, num_bytes = run(work())
    assert left > size // 2
    assert num_bytes == size


def test_a_json_answer_that_comes_byte_by_byte_is_sent_as_one() -> None:
    async def work() -> None:
        async with FakeWorker() as worker, RunningGateway(worker) as gateway:
            reply = await gateway.post(user="slow")
            assert (reply.json, reply.header("content-length")) == ({"object": "slow"}, "18")

    run(work())


def test_readiness_follows_the_fleet() -> None:
    async def work() -> list[int]:
        async with FakeWorker() as worker, RunningGateway() as gateway:
            before = (await gateway.get("/ready")).status
            gateway.tell(worker)
            return [before, (await gateway.get("/ready")).status, (await gateway.get("/health")).status]

    assert run(work()) == [503, 200, 200]


def test_the_description_tells_all_routes() -> None:
    async def work() -> set[str]:
        async with RunningGateway() as gateway:
            return set((await gateway.get("/openapi.json")).json["paths"])

    assert run(work()) >= {
        *PATHS,
        "/v1/models",
        "/v1/models/{id}",
        "/api/v1/token_check",
        "/health",
        "/metrics",
    }
