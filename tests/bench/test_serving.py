"""The load that `bench serve` puts on a server, on servers that answer, refuse, fail and hang."""

import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.bench.answers import Answer, RequestFailedError
from llmctl.bench.asking import Asker, Way
from llmctl.bench.connection import Client, Server
from llmctl.bench.percentiles import Outcome, Spread, figures, percentile
from llmctl.bench.prompts import Endpoint, FilePrompts, Form, Prompts, RandomPrompts, read_prompts
from llmctl.bench.serving import Load, Measured, measure, opened
from llmctl.core.errors import (
    AccessError,
    BadFileError,
    BusyError,
    LlmctlError,
    NotFoundError,
    UnreachableError,
)
from tests.server import Reply, ScriptedServer
from tests.services.fake_worker import FakeWorker

LOAD = Load(num_requests=6, num_clients=2, num_output=3)
OF_IDS = Reply(pieces=["a", " b", " c"], usage=(5, 3))


def ignored(_outcome: Outcome) -> None:
    """Whoever does not want to hear of requests."""


def measured(
    url: str,
    load: Load = LOAD,
    *,
    prompts: Prompts | None = None,
    before: Callable[[], None] = lambda: None,
    tell: Callable[[Outcome], None] = ignored,
    **server: Any,
) -> Measured:
    """The first model of the server under `load`, or `fake`; `before` runs behind the warm-up."""
    model = server.pop("model", None)

    async def run() -> Measured:
        given = Server(base_url=url, **server)
        async with opened(given, prompts or RandomPrompts(5), load, model=model) as asker:
            before()
            return await measure(asker, load, tell)

    return asyncio.run(run())


# A load


def test_clients_come_back_on_their_own_connections_until_all_is_asked() -> None:
    with ScriptedServer(*[OF_IDS] * 7) as server:
        found = measured(server.url)
        asked = server.asked
    assert (found.figures.completed, found.figures.failed, found.is_whole) == (6, 0, True)
    assert (found.figures.total_input_tokens, found.figures.total_output_tokens) == (30, 18)
    assert (found.model, found.remarks) == ("scripted", ())
    assert len(asked) == 7
    assert len({seen.client_port for seen in asked}) == 2
    for seen in asked:
        assert seen.path == "/v1/completions"
        assert seen.body.keys() == {
            *("model", "prompt", "max_tokens", "temperature", "stream", "ignore_eos", "stream_options")
        }
        assert (seen.body["max_tokens"], seen.body["ignore_eos"]) == (3, True)
    prompts = [tuple(seen.body["prompt"]) for seen in asked]
    assert {len(prompt) for prompt in prompts} == {5}
    assert len(set(prompts)) == 7


def test_times_are_those_of_the_server() -> None:
    slow = Reply(pieces=["a", "b", "c"], delay_s=0.05)
    with ScriptedServer(*[slow] * 3) as server:
        found = measured(server.url, replace(LOAD, num_requests=2, num_clients=1)).figures
    assert found.ttft is not None
    assert found.itl is not None
    assert found.tpot is not None
    assert found.e2el is not None
    assert 50 <= found.ttft.median < 250
    assert 40 <= found.itl.median < 250
    assert found.itl.mean == pytest.approx(found.tpot.mean)
    # Three pieces, the finish, the usage and [DONE] come 50 ms after one another.
    assert 290 <= found.e2el.median < 1500
    assert found.duration >= 2 * 0.29


def test_requests_that_come_by_the_clock_do_not_wait_for_one_another() -> None:
    slow = Reply(pieces=["a", "b", "c"], silence_s=0.3)
    load = Load(num_requests=8, num_clients=None, rate=100.0, num_output=3)
    with ScriptedServer(*[slow] * 9) as server:
        found = measured(server.url, load)
    assert found.figures.completed == 8
    # One after the other they would take 2.4 s.
    assert found.figures.duration < 1.5


def test_a_client_that_is_late_counts_it_as_waiting() -> None:
    """Coordinated omission: what a request waits for in a client that stands still is waited for."""
    load = Load(num_requests=12, num_clients=None, rate=100.0, num_output=3)
    stood = []

    def stand_still(_outcome: Outcome) -> None:
        if not stood:
            stood.append(time.sleep(0.4))

    with ScriptedServer(*[OF_IDS] * 13) as server:
        found = measured(server.url, load, tell=stand_still)
    assert found.figures.completed == 12
    assert found.figures.ttft is not None
    assert found.figures.ttft.p99 >= 250
    assert any(remark.startswith("this client was up to ") for remark in found.remarks)


def test_the_moments_of_an_open_loop_are_the_same_for_a_seed() -> None:
    load = Load(num_requests=4000, num_clients=None, rate=8.0, seed=3)
    arrivals = list(load.arrivals())
    assert arrivals == list(load.arrivals())
    assert arrivals != list(replace(load, seed=4).arrivals())
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    # An exponential distribution has a standard deviation that is its mean.
    assert statistics.fmean(gaps) == pytest.approx(1 / 8, rel=0.1)
    assert statistics.stdev(gaps) == pytest.approx(1 / 8, rel=0.1)


def test_ctrl_c_leaves_what_was_measured_until_then() -> None:
    heard = []

    async def run() -> Measured:
        async with FakeWorker(rate=200, num_tokens=3) as worker:
            load = Load(num_requests=1000, num_clients=4, num_output=3)
            server = Server(base_url=f"{worker.url}/v1")
            async with opened(server, RandomPrompts(5), load, model="fake") as asker:
                task = asyncio.create_task(measure(asker, load, heard.append))
                while len(heard) < 8:
                    await asyncio.sleep(0.01)
                task.cancel()
                found = await task
            await asyncio.sleep(0.05)
            assert not worker.streams
            return found

    found = asyncio.run(run())
    assert not found.is_whole
    assert found.figures.completed == len(heard)
    assert 0 < found.num_unfinished <= 4


def test_a_connection_that_the_server_has_left_is_no_failure() -> None:
    async def run() -> Measured:
        async with FakeWorker(rate=500, num_tokens=3) as worker:
            load = Load(num_requests=1, num_clients=1, num_output=3)
            server = Server(base_url=f"{worker.url}/v1")
            async with opened(server, RandomPrompts(5), load, model="fake") as asker:
                for connection in worker.connections:
                    connection.dies_at_next = True
                found = await measure(asker, load, ignored)
            assert worker.num_connections == 2
            return found

    assert asyncio.run(run()).figures.completed == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("reset", "connection lost"),
        ("close", "connection lost"),
        ("head", "connection lost"),
        ("cut:2", "connection lost"),
        ("torn:2", "connection lost"),
        ("crash:2", "connection lost"),
        ("hang", "timeout"),
        ("hang:2", "timeout"),
        ("status:503", "HTTP 503"),
        ("garbage", "garbled"),
        ("size:99", "no stream"),
        ("done", None),
        ("stale", None),
        ("split", None),
        # Whole, but no streams.
        ("old", "no stream"),
        ("interim", "no stream"),
    ],
)
def test_every_failure_is_counted_by_its_kind(fault: str, kind: str | None) -> None:
    async def run() -> Measured:
        async with FakeWorker(rate=500, num_tokens=3) as worker:
            load = replace(LOAD, num_requests=2)
            server = Server(base_url=f"{worker.url}/v1", timeout_s=0.3)
            async with opened(server, RandomPrompts(5), load, model="fake") as asker:
                worker.fault = fault
                return await measure(asker, load, ignored)

    found = asyncio.run(run()).figures
    assert [(each.kind, each.count) for each in found.failures] == ([] if kind is None else [(kind, 2)])
    assert (found.completed, found.failed) == ((2, 0) if kind is None else (0, 2))


@pytest.mark.parametrize(
    ("reply", "kind", "example"),
    [
        (Reply(pieces=["a"], error={"message": "out of\nmemory"}), "error event", "out of memory"),
        (Reply(pieces=["a"], finish_reason=None, has_done=False), "cut off", "the stream ended"),
        (Reply(raw=[b"data: {oops\n\n"]), "garbled", "{oops"),
        (Reply(raw=[b"data: [1]\n\n"]), "garbled", "[1]"),
        (Reply(usage=None), "no text", "the answer is empty"),
        (Reply(status=429, body={"error": {"message": "full, k-secret"}}), "HTTP 429", "full, ***"),
        (Reply(status=500, body={"detail": "no\x1b[31m"}), "HTTP 500", "no\ufffd[31m"),
        (Reply(status=502, body="<html>bad</html>"), "HTTP 502", ""),
        (Reply(status=502, body="x" * 999), "HTTP 502", "x" * 199 + "…"),
    ],
)
def test_a_failure_has_an_example_on_one_line(reply: Reply, kind: str, example: str) -> None:
    with ScriptedServer(OF_IDS, reply, OF_IDS, reply) as server:
        load = replace(LOAD, num_requests=3, num_clients=1)
        found = measured(server.url, load, api_key="k-secret").figures
    assert (found.completed, found.failed) == (1, 2)
    assert [(each.kind, each.count) for each in found.failures] == [(kind, 2)]
    assert found.failures[0].example.startswith(example)
    assert len(found.failures[0].example) <= 200


# How a server wants to be asked


def refusing(*fields: str, paths: tuple[str, ...] = ()) -> Callable[[Any], Reply]:
    """What a server says that does not know some fields, token ids (`ids`) or paths."""

    def reply(seen: Any) -> Reply:
        has_ids = "ids" in fields and isinstance(seen.body.get("prompt"), list)
        if has_ids or any(name in seen.body for name in fields) or seen.path in paths:
            return Reply(status=422, body={"detail": "no"})
        return OF_IDS

    return reply


class PickyServer(ScriptedServer):
    """Answers by a rule."""

    def __init__(self, rule: Callable[[Any], Reply]) -> None:
        super().__init__()
        self._rule = rule

    def _reply(self, seen: Any) -> Reply:
        return self._rule(seen)


@pytest.mark.parametrize(
    ("rule", "way", "remarks"),
    [
        (refusing(), Way(Form("completions", has_ids=True)), []),
        (
            refusing("ignore_eos"),
            Way(Form("completions", has_ids=True), ignores_eos=False),
            ["it does not take ignore_eos"],
        ),
        (
            refusing("stream_options"),
            Way(Form("completions", has_ids=True), tells_usage=False),
            ["it does not take stream_options"],
        ),
        (refusing("ids"), Way(Form("completions")), ["it takes no token ids"]),
        (
            refusing("ids", "ignore_eos", "stream_options", paths=("/v1/completions",)),
            Way(Form("chat"), ignores_eos=False, tells_usage=False),
            ["it takes no token ids", "it does not take ignore_eos", "it does not take stream_options"],
        ),
    ],
)
def test_what_a_server_does_not_take_is_left_out_and_told(
    rule: Callable[[Any], Reply], way: Way, remarks: list[str]
) -> None:
    with PickyServer(rule) as server:
        found = measured(server.url)
    assert (found.way, found.figures.completed) == (way, 6)
    assert len(found.remarks) == len(remarks)
    for told, begin in zip(found.remarks, remarks, strict=True):
        assert told.startswith(begin)


def test_tokens_are_pieces_of_text_where_nobody_counts_them() -> None:
    with PickyServer(lambda _: Reply(pieces=["a", "b"], usage=None)) as server:
        found = measured(server.url)
    assert found.figures.total_output_tokens == 6 * 2
    assert found.remarks == ("6 of 6 answers have fewer than 3 tokens",)


def test_prompts_of_words_are_made_as_long_as_they_should_be() -> None:
    """A server whose words have two tokens each, and whose template has 10."""

    def rule(seen: Any) -> Reply:
        return Reply(pieces=["a", "b", "c"], usage=(10 + 2 * len(seen.last_user_message.split()), 3))

    with PickyServer(rule) as server:
        found = measured(server.url, prompts=RandomPrompts(50, endpoint="chat"))
        assert {seen.path for seen in server.asked} == {"/v1/chat/completions"}
    assert found.figures.total_input_tokens / 6 == pytest.approx(50, abs=5)


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (Reply(status=401, body={"error": {"message": "no key"}}), AccessError, "HTTP 401: no key"),
        (Reply(status=429, body="full"), BusyError, "HTTP 429: full"),
        (Reply(status=404, body={"error": {"message": "no such model"}}), NotFoundError, "no such model"),
        (Reply(raw=[b"data: {}\n\n"]), LlmctlError, "cut off: the stream ended"),
    ],
)
def test_a_server_that_cannot_be_measured_is_told_before_the_load(
    reply: Reply, kind: type[LlmctlError], message: str
) -> None:
    with PickyServer(lambda _: reply) as server, pytest.raises(kind, match=message):
        measured(server.url)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(body={"data": []}), "offers no model"),
        (Reply(body="[]"), "offers no model"),
        (Reply(status=404), "does not list its models"),
    ],
)
def test_without_a_list_of_models_one_must_be_named(reply: Reply, message: str) -> None:
    with ScriptedServer(on_models=reply) as server:
        with pytest.raises(NotFoundError, match=message):
            measured(server.url)
        server.queue(*[OF_IDS] * 7)
        assert measured(server.url, model="mine").model == "mine"


def test_nobody_at_the_address_is_told() -> None:
    with pytest.raises(UnreachableError, match=r"cannot reach http://127\.0\.0\.1:9/v1: nothing listens"):
        measured("http://127.0.0.1:9/v1")


def test_the_key_is_shown_to_the_server_alone() -> None:
    with ScriptedServer(*[OF_IDS] * 7, api_key="k-secret") as server:
        assert measured(server.url, api_key="k-secret").figures.completed == 6
        assert "k-secret" not in repr(Server(base_url=server.url, api_key="k-secret"))


# Prompts


def test_a_file_holds_a_prompt_a_line_or_json() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert read_prompts("one \n\n{two}\n", called="f") == ["one", "{two}"]
    text = json.dumps({"prompt": "a\u2028b", "id": 7}) + "\n" + json.dumps({"messages": messages})
    assert read_prompts(text, called="f") == ["a\u2028b", messages]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n", "f holds no prompt"),
        ('{"prompt": "a"}\nplain', "f, line 2 is no JSON object, as the first line is: 'plain'"),
        ('{"text": "a"}', 'f, line 1 has neither a text as "prompt" nor'),
        ('{"prompt": ""}', "f, line 1 has neither"),
        ('\n{"prompt": "a", "messages": [1]}', "f, line 2 has neither"),
        ('{"messages": []}', "f, line 1 has neither"),
    ],
)
def test_a_file_of_something_else_is_refused_by_the_line(text: str, message: str) -> None:
    with pytest.raises(BadFileError) as caught:
        read_prompts(text, called="f")
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("endpoint", "path", "asked"),
    [
        (None, "/v1/chat/completions", {"messages": [{"role": "user", "content": "two"}]}),
        ("completions", "/v1/completions", {"prompt": "two"}),
    ],
)
def test_prompts_of_a_file_are_asked_in_turn_and_again(
    endpoint: Endpoint | None, path: str, asked: dict[str, Any]
) -> None:
    with PickyServer(refusing()) as server:
        prompts = FilePrompts(["one", "two", "three"], endpoint=endpoint)
        found = measured(server.url, replace(LOAD, num_clients=1), prompts=prompts)
        seen = server.asked
    assert {each.path for each in seen} == {path}
    assert asked.items() <= seen[1].body.items()
    assert [each.last_user_message for each in seen] == ["one", "two", "three"] * 2 + ["one"]
    assert found.remarks[0].startswith("the same 3 prompts came again")


def test_messages_are_asked_as_they_are() -> None:
    messages = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "y"}]},
    ]
    prompts = FilePrompts(["one", messages])
    assert prompts.forms == (Form("chat"),)
    prompts.draw(Form("chat"))
    assert prompts.draw(Form("chat")) == {"messages": messages}
    assert FilePrompts([messages], endpoint="completions").forms == ()


# What is read and counted

FRAMES = (
    b': hello\r\n\r\ndata: {"choices":[{"delta":{"role":"assistant","content":""}}]}\r\n\r\n'
    b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n'
    b'data:{"choices":[{"delta":{"content":"a"},"finish_reason":null}],"usage":null}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
)


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, len(FRAMES)), max_size=20))
def test_a_stream_is_read_alike_wherever_it_is_cut(cuts: list[int]) -> None:
    answer = Answer()
    answer.begin(200, b"text/event-stream; charset=utf-8")
    places = sorted({0, *cuts, len(FRAMES)})
    for begin, end in itertools.pairwise(places):
        answer.now = float(end)
        answer.feed(FRAMES[begin:end])
    answer.check()
    # Neither the role nor the end is text.
    assert len(answer.times) == 2
    assert (answer.prompt_tokens, answer.completion_tokens) == (4, 2)


def test_an_event_without_an_end_is_not_kept() -> None:
    answer = Answer()
    answer.begin(200, b"text/event-stream")
    for _ in range(6):
        answer.feed(b"x" * 2**20)
    with pytest.raises(RequestFailedError, match="an event has no end"):
        answer.check()


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=60))
def test_percentiles_are_those_of_the_standard_library(values: list[float]) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    for share in (50, 90, 99):
        assert percentile(sorted(values), share / 100) == pytest.approx(cuts[share - 1], abs=1e-6)


def test_figures_of_answers_by_hand() -> None:
    good = [
        Outcome(planned=0.0, ended=2.0, times=(1.0, 1.5, 2.0), num_prompt=10, num_output=5),
        Outcome(planned=1.0, ended=4.0, times=(2.0,), num_prompt=10, num_output=1),
        Outcome(planned=1.0, ended=3.0, num_prompt=10, num_output=4),
    ]
    lost = Outcome(planned=0.0, ended=9.0, times=(5.0,), failure=RequestFailedError("timeout", "long"))
    found = figures([*good, lost], duration=4.0)
    assert (found.completed, found.failed) == (3, 1)
    assert (found.request_throughput, found.output_throughput) == (0.75, 2.5)
    assert found.total_token_throughput == 10.0
    assert found.ttft == Spread(1000, 1000, 1000, 1000)
    assert found.itl == Spread(500, 500, 500, 500)
    assert found.tpot == Spread(250, 250, 250, 250)
    assert found.e2el is not None
    assert (found.e2el.mean, found.e2el.median) == (pytest.approx(7000 / 3), 2000)


def test_nothing_measured_is_null() -> None:
    found = figures([], duration=0.0).as_dict()
    assert (found["completed"], found["mean_ttft_ms"], found["p99_e2el_ms"]) == (0, None, None)
    assert found["output_throughput"] == 0


def test_requests_are_for_the_place_that_the_address_names() -> None:
    server = Server(base_url="https://[::1]/openai/v1", api_key="k")
    head, _, body = server.post("/completions", b"{}").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert server.place == ("::1", 443)
    assert lines[0] == "POST /openai/v1/completions HTTP/1.1"
    assert {"Host: [::1]", "Authorization: Bearer k", "Content-Length: 2"} <= set(lines)
    assert body == b"{}"
    assert Server(base_url="http://a.b:81/v1").place == ("a.b", 81)


def test_a_text_that_utf8_cannot_hold_is_asked_all_the_same() -> None:
    async def run() -> bytes:
        async with Client(Server(base_url="http://a/v1")) as client:
            prompts = FilePrompts(["x\ud800"])
            form = prompts.forms[0]
            return Asker(client=client, model="m", prompts=prompts, num_output=1, way=Way(form)).request()

    assert b'"content":"x?"' in asyncio.run(run())


def test_it_needs_no_torch() -> None:
    code = "import sys, llmctl.bench.serving, llmctl.cli.bench_serve_view; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
