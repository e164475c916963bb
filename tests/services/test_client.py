"""A model behind a server is a backend like any other."""

import asyncio
import gzip
import json
import logging
from typing import Any

import pytest

from llmctl.core.errors import LlmctlError, UnreachableError
from llmctl.core.types import (
    Candidate,
    ChatRequest,
    CompletionRequest,
    Delta,
    GenerationRequest,
    Message,
    SamplingParams,
    TokenLogprob,
    Usage,
)
from llmctl.services.client import HttpBackend
from llmctl.services.upstream import connection
from tests.server import Reply, ScriptedServer
from tests.services.answers import ask, chat, collected, finish, reasoning, run, text

DONE = b"data: [DONE]\n\n"
FINISHED = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'


def content(said: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": said}}]}).encode() + b"\n\n"


def sent(**choice: Any) -> Reply:
    """A stream of one chunk with this choice, and an end."""
    return Reply(raw=[b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n", FINISHED, DONE])


def test_an_answer_streams_piece_by_piece(server: ScriptedServer) -> None:
    deltas = ask(server, Reply(pieces=["Hel", "lo ", "wörld😀"], usage=(5, 3)))
    assert [delta.text for delta in deltas] == ["Hel", "lo ", "wörld😀", ""]
    assert (finish(deltas).reason, finish(deltas).usage) == (
        "stop",
        Usage(prompt_tokens=5, completion_tokens=3),
    )
    assert server.asked[0].body["messages"] == [{"role": "user", "content": "hello there"}]
    assert server.asked[0].body["model"] == "scripted"


def test_the_first_piece_comes_before_the_last_is_made(server: ScriptedServer) -> None:
    server.queue(Reply(pieces=["a", "b"], stall_after=1))

    async def work(backend: HttpBackend) -> Delta:
        stream = backend.generate(chat())
        first = await anext(stream)
        await stream.aclose()
        return first

    assert run(work, server.url) == Delta(text="a")


def test_times_are_measured(server: ScriptedServer) -> None:
    timings = finish(ask(server, Reply(pieces=["a", "b"], delay_s=0.05))).timings
    assert 0.05 <= timings.first_token_s < timings.total_s
    assert timings.total_s >= 0.15


def test_an_answer_without_text_has_times_too(server: ScriptedServer) -> None:
    last = finish(ask(server, Reply()))
    assert last.timings.first_token_s == last.timings.total_s
    assert last.usage is not None
    assert last.usage.completion_tokens == 0


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_comes_apart(server: ScriptedServer, name: str) -> None:
    both = {"delta": {name: "why", "content": None}}
    deltas = ask(server, sent(**both))
    assert (reasoning(deltas), text(deltas)) == ("why", "")


def test_reasoning_that_comes_under_both_names_counts_once(server: ScriptedServer) -> None:
    deltas = ask(server, sent(delta={"reasoning": "why", "reasoning_content": "why", "content": "so"}))
    assert (reasoning(deltas), text(deltas)) == ("why", "so")


def test_blank_lines_between_reasoning_and_text_belong_to_neither(server: ScriptedServer) -> None:
    deltas = ask(server, Reply(reasoning=["\n", "why"], pieces=["\n\n", "\n<think>so", "</think>\n"]))
    assert (reasoning(deltas), text(deltas)) == ("\nwhy", "<think>so</think>\n")


def test_reasoning_inside_of_the_text_is_told_apart(server: ScriptedServer) -> None:
    deltas = ask(server, Reply(pieces=["<th", "ink>why</thi", "nk>\n", "\nso"]))
    assert (reasoning(deltas), text(deltas)) == ("why", "so")


def test_what_was_held_back_comes_at_the_end(server: ScriptedServer) -> None:
    deltas = ask(server, Reply(pieces=["<thi"]))
    assert text(deltas) == "<thi"
    assert finish(deltas)


def test_an_answer_that_is_gone_on_with_has_no_reasoning(server: ScriptedServer) -> None:
    messages = (Message(role="user", content="hi"), Message(role="assistant", content="Use "))
    request = ChatRequest(messages=messages, continues_last=True)
    assert text(ask(server, Reply(pieces=["<think>", "!"]), request=request)) == "<think>!"
    assert server.asked[0].body["continue_final_message"] is True


def test_a_completion_streams(server: ScriptedServer) -> None:
    deltas = ask(server, Reply(pieces=["<think>", " a time"]), request=CompletionRequest(prompt=(1, 2)))
    assert text(deltas) == "<think> a time"
    assert (server.asked[0].path, server.asked[0].body["prompt"]) == ("/v1/completions", [1, 2])


@pytest.mark.parametrize(("told", "reason"), [("stop", "stop"), ("eos_token", "stop"), ("length", "length")])
def test_how_the_answer_ended_is_told(server: ScriptedServer, told: str, reason: str) -> None:
    assert finish(ask(server, Reply(pieces=["a"], finish_reason=told))).reason == reason


def test_a_limit_that_nobody_set_is_warned_of(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    ask(server, Reply(pieces=["a"], finish_reason="length"), request=chat(max_new_tokens=1))
    assert "limit" not in caplog.text
    ask(server, Reply(pieces=["a"], finish_reason="length"))
    assert "at a limit of its own" in caplog.text


@pytest.mark.parametrize(
    ("request_", "logprobs"),
    [
        (
            chat(logprobs=1),
            {
                "content": [
                    {
                        "token": "a",
                        "logprob": -1,
                        "top_logprobs": [{"token": "b", "logprob": -0.5, "bytes": []}],
                    }
                ]
            },
        ),
        (
            CompletionRequest(prompt="x", sampling=SamplingParams(logprobs=1)),
            {"tokens": ["a"], "token_logprobs": [-1], "top_logprobs": [{"b": -0.5}], "text_offset": [0]},
        ),
    ],
)
def test_log_probabilities_come_in_both_shapes(
    server: ScriptedServer, request_: GenerationRequest, logprobs: dict[str, Any]
) -> None:
    deltas = ask(server, sent(delta={"content": "a"}, logprobs=logprobs), request=request_)
    want = TokenLogprob(
        chosen=Candidate(token_id=-1, token="a", logprob=-1.0),
        top=(Candidate(token_id=-1, token="b", logprob=-0.5),),
    )
    assert [entry for delta in deltas for entry in delta.logprobs] == [want]


def test_legacy_candidates_come_likeliest_first(server: ScriptedServer) -> None:
    logprobs = {"tokens": ["a"], "token_logprobs": [-1], "top_logprobs": [{"a": -1, "b": -0.5, "c": -2}]}
    deltas = ask(server, sent(text="a", logprobs=logprobs), request=CompletionRequest(prompt="x"))
    assert [candidate.token for candidate in deltas[0].logprobs[0].top] == ["b", "a", "c"]


def test_log_probabilities_without_candidates_come_too(server: ScriptedServer) -> None:
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [-1, -2], "top_logprobs": None}
    deltas = ask(server, sent(text="ab", logprobs=logprobs), request=CompletionRequest(prompt="x"))
    assert [(entry.chosen.logprob, entry.top) for entry in deltas[0].logprobs] == [(-1, ()), (-2, ())]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"delta": {"content": None}}, ""),
        ({"delta": None}, ""),
        ({"delta": {"role": "assistant", "content": "a", "tool_calls": [], "function_call": None}}, "a"),
        ({"delta": {"refusal": "I cannot"}}, "I cannot"),
        ({"delta": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}, "ab"),
        ({"index": 1, "delta": {"content": "another choice"}}, ""),
        ({"index": None, "delta": {"content": "a"}, "logprobs": None}, "a"),
    ],
)
def test_deltas_are_read_in_the_shapes_that_servers_give_them(
    server: ScriptedServer, choice: dict[str, Any], said: str
) -> None:
    assert text(ask(server, sent(**choice))) == said


@pytest.mark.parametrize(
    ("pieces", "said"), [(["\ud83d", "\ude00!"], "😀!"), (["\ud83d", "a"], "\ufffda"), (["\ud83d"], "\ufffd")]
)
def test_a_character_that_json_cut_in_two_is_whole(
    server: ScriptedServer, pieces: list[str], said: str
) -> None:
    deltas = ask(server, Reply(raw=[*map(content, pieces), FINISHED, DONE]))
    assert text(deltas) == said
    assert all(delta.text.encode() for delta in deltas if delta.text)


BODY = content("né") + b": ping\r\n\r\n" + content("e😀") + FINISHED + USAGE + DONE


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_bytes_may_be_cut_anywhere(server: ScriptedServer, size: int) -> None:
    body = BODY.replace(rb"\u00e9", "é".encode())
    deltas = ask(server, Reply(raw=[body[at : at + size] for at in range(0, len(body), size)]))
    assert text(deltas) == "née😀"
    assert finish(deltas).usage == Usage(prompt_tokens=3, completion_tokens=4)


@pytest.mark.parametrize(
    ("raw", "remark"),
    [
        ([content("a"), FINISHED, USAGE, DONE], None),
        ([content("a"), FINISHED, USAGE], None),
        ([content("a"), USAGE, DONE], "no finish_reason"),
        ([content("a"), USAGE, DONE.rstrip()], "no finish_reason"),
        ([content("a"), USAGE, DONE, content("not any more")], "no finish_reason"),
        ([content("a"), USAGE, DONE + content("not any more")], "no finish_reason"),
        ([b"\n\n\xef\xbb\xbf", content("a"), FINISHED, USAGE, DONE], None),
        ([b"data:\n\n", content("a"), FINISHED, USAGE, DONE], None),
        ([content("a"), FINISHED, USAGE.replace(b"\n", b"")], None),
        ([content("a"), FINISHED, DONE], "no usage"),
        (
            [content("a"), FINISHED, b'data: {"choices":[],"usage":{"prompt_tokens":"3"}}\n\n', DONE],
            "no usage",
        ),
    ],
)
def test_streams_that_lack_a_part_are_understood(
    server: ScriptedServer, raw: list[bytes], remark: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "llmctl"):
        deltas = ask(server, Reply(raw=raw))
    assert (text(deltas), finish(deltas).reason) == ("a", "stop")
    told = None if remark == "no usage" else Usage(prompt_tokens=3, completion_tokens=4)
    assert finish(deltas).usage == told
    assert (remark or "") in caplog.text
    assert bool(caplog.text) == bool(remark)


def test_a_connection_that_breaks_behind_the_finish_reason_costs_nothing(server: ScriptedServer) -> None:
    deltas = ask(server, Reply(raw=[content("a"), FINISHED, USAGE, DONE], cut_after=2))
    assert (text(deltas), finish(deltas).reason) == ("a", "stop")


@pytest.mark.parametrize("end", [FINISHED, FINISHED + DONE])
def test_a_stream_that_stays_open_behind_its_end_is_left(
    server: ScriptedServer, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_USAGE_WAIT_S", 0.1)
    deltas = ask(server, Reply(raw=[content("a"), end, b""], stall_after=2))
    assert text(deltas) == "a"
    assert finish(deltas).timings.total_s < 4


def test_a_server_that_does_not_stream_gives_one_piece(server: ScriptedServer) -> None:
    deltas = ask(server, Reply(pieces=["<think>why</think>", "a"], usage=(5, 6), is_plain=True))
    assert (reasoning(deltas), text(deltas)) == ("why", "a")
    assert finish(deltas).usage == Usage(prompt_tokens=5, completion_tokens=6)


def test_a_completion_that_does_not_stream_gives_one_piece(server: ScriptedServer) -> None:
    deltas = ask(server, Reply(pieces=["a", "b"], is_plain=True), request=CompletionRequest(prompt="x"))
    assert text(deltas) == "ab"


def test_a_compressed_answer_is_read(server: ScriptedServer) -> None:
    packed = gzip.compress(content("a") + FINISHED + USAGE + DONE)
    deltas = ask(server, Reply(raw=[packed[:20], packed[20:]], headers={"Content-Encoding": "gzip"}))
    assert (text(deltas), finish(deltas).usage.prompt_tokens) == ("a", 3)


def test_comments_keep_a_slow_answer_alive(server: ScriptedServer) -> None:
    slow = Reply(raw=[b": wait\n\n"] * 8 + [content("a"), FINISHED, DONE], delay_s=0.1)
    assert text(ask(server, slow, timeout_s=0.6)) == "a"


@pytest.mark.parametrize("refused", ["Unrecognized request argument supplied: stream_options"])
def test_a_server_that_does_not_know_stream_options_is_asked_without(
    server: ScriptedServer, refused: str
) -> None:
    server.queue(
        Reply(status=400, body={"error": {"message": refused}}), Reply(pieces=["a"]), Reply(pieces=["b"])
    )

    async def work(backend: HttpBackend) -> str:
        return text([*await collected(backend, chat()), *await collected(backend, chat())])

    assert run(work, server.url) == "ab"
    assert ["stream_options" in seen.body for seen in server.asked] == [True, False, False]


def test_other_refusals_are_not_tried_again(server: ScriptedServer) -> None:
    with pytest.raises(LlmctlError, match="no such field"):
        ask(server, Reply(status=400, body={"error": "no such field"}), Reply(pieces=["a"]))
    assert len(server.asked) == 1


def test_two_streams_may_be_open_together(server: ScriptedServer) -> None:
    server.by_message = {"slow": Reply(pieces=["1", "2", "3"], delay_s=0.02)}

    async def work(backend: HttpBackend) -> list[str]:
        streams = (collected(backend, chat(said)) for said in ("slow", "quick one"))
        return [text(deltas) for deltas in await asyncio.gather(*streams)]

    assert run(work, server.url) == ["123", "quick one"]


def test_turns_share_a_connection(server: ScriptedServer) -> None:
    async def work(backend: HttpBackend) -> None:
        for _ in range(3):
            await collected(backend, chat())

    run(work, server.url)
    assert len({seen.client_port for seen in server.requests}) == 1


@pytest.mark.parametrize("is_task", [False, True])
def test_the_server_sees_that_a_reader_leaves(server: ScriptedServer, is_task: bool) -> None:
    server.queue(Reply(pieces=["a", "b"], stall_after=1))

    async def work(backend: HttpBackend) -> None:
        stream = backend.generate(chat())
        await anext(stream)
        if is_task:
            task = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await stream.aclose()
        assert await asyncio.to_thread(server.asked[0].disconnected.wait, 2)
        assert text(await collected(backend, chat())) == "hello there"

    run(work, server.url)


def test_a_backend_may_be_closed_twice_and_under_an_open_stream(server: ScriptedServer) -> None:
    server.queue(Reply(pieces=["a", "b"], stall_after=1))

    async def work(backend: HttpBackend) -> None:
        stream = backend.generate(chat())
        await anext(stream)
        await backend.close()
        await backend.close()
        await stream.aclose()

    run(work, server.url)
    assert server.asked[0].disconnected.wait(2)


def test_the_limit_for_silence_can_be_changed(server: ScriptedServer) -> None:
    server.queue(Reply(silence_s=5))

    async def work(backend: HttpBackend) -> None:
        backend.wait_at_most(0.2)
        with pytest.raises(UnreachableError, match=r"said nothing for 0\.2 s"):
            await collected(backend, chat())

    run(work, server.url)
