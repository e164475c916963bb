"""Whatever a server does wrong ends in one clear line, behind the text that came."""

import asyncio
import json
from typing import Any

import pytest

from llmctl.core.errors import (
    AccessError,
    ContextOverflowError,
    DoesNotFitError,
    LlmctlError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from llmctl.core.types import CompletionRequest
from llmctl.services import sse
from llmctl.services.client import HttpBackend
from llmctl.services.upstream import chunks
from tests.server import Reply, ScriptedServer
from tests.services.answers import chat, collected, failure, run

NESTED: Any = json.loads("[" * 600 + "]" * 600)
DONE = b"data: [DONE]\n\n"


def event(value: Any, kind: str = "") -> bytes:
    return (f"event: {kind}\n" if kind else "").encode() + f"data: {json.dumps(value)}\n\n".encode()


def said(text: str) -> bytes:
    return event({"choices": [{"delta": {"content": text}}]})


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (400, UsageError, None),
        (401, AccessError, "--api-key-file"),
        (402, AccessError, "account"),
        (403, AccessError, "LLMCTL_API_KEY"),
        (404, NotFoundError, "/v1"),
        (405, NotFoundError, "/v1"),
        (408, UnreachableError, "try again"),
        (413, DoesNotFitError, "shorten"),
        (418, UsageError, None),
        (422, UsageError, None),
        (429, UnreachableError, "try again"),
        (499, UsageError, None),
        (500, LlmctlError, "log"),
        (501, LlmctlError, "log"),
        (502, UnreachableError, "try again"),
        (503, UnreachableError, "try again"),
        (504, UnreachableError, "try again"),
        (599, LlmctlError, "log"),
    ],
)
def test_a_refusal_has_the_class_of_its_status_and_the_servers_words(
    server: ScriptedServer, status: int, kind: type[LlmctlError], hint: str | None
) -> None:
    _, error = failure(server, Reply(status=status, body={"error": {"message": "because\x1b[2J\nof it"}}))
    assert type(error) is kind
    assert error.message.startswith(f"{server.url} answers HTTP {status}")
    assert error.message.endswith(": because\ufffd[2J of it")
    assert (hint or "") in str(error.hint)


@pytest.mark.parametrize(("body", "end"), [("", "HTTP 503 Service Unavailable"), ("<html>", "Unavailable")])
def test_a_refusal_without_words_names_the_status(server: ScriptedServer, body: str, end: str) -> None:
    assert failure(server, Reply(status=503, body=body))[1].message.endswith(end)


def test_long_words_are_cut(server: ScriptedServer) -> None:
    _, error = failure(server, Reply(status=500, body="long " * 100_000))
    assert 300 < len(error.message) < 400


@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_a_server_asks_for_is_told(server: ScriptedServer, status: int) -> None:
    _, error = failure(server, Reply(status=status, headers={"Retry-After": "7"}))
    assert error.hint == "try again in 7 s"


def test_a_field_that_the_server_does_not_know_is_traced_to_its_flag(server: ScriptedServer) -> None:
    detail = [{"loc": ["body", "min_p"], "msg": "Extra inputs are not permitted"}]
    _, error = failure(server, Reply(status=422, body={"detail": detail}), request=chat(min_p=0.1))
    assert isinstance(error, UsageError)
    assert error.message.endswith(": body.min_p: Extra inputs are not permitted")
    assert error.hint == "leave out or change --min-p"


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_prompt_too_long_is_told_in_numbers(server: ScriptedServer, status: int) -> None:
    told = {"message": "request (5000 tokens) exceeds the available context size (4096 tokens)"}
    _, error = failure(server, Reply(status=status, body={"error": told}))
    assert isinstance(error, ContextOverflowError)
    assert (error.prompt_tokens, error.context_length) == (5000, 4096)
    assert "shorten" in str(error.hint)


def test_an_answer_asked_for_that_is_too_long_is_told_by_its_flag(server: ScriptedServer) -> None:
    told = (
        "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length "
        "is 4096 tokens and your request has 30 input tokens (5000 > 4096 - 30)."
    )
    _, error = failure(server, Reply(status=400, body={"message": told}), request=chat(max_new_tokens=5000))
    assert isinstance(error, ContextOverflowError)
    assert "--max-new-tokens 4066" in str(error.hint)
    assert len(server.asked) == 1


def test_an_answer_that_is_cut_off_is_told_behind_its_text(server: ScriptedServer) -> None:
    came, error = failure(server, Reply(pieces=["a", "b", "c"], cut_after=2))
    assert came == "ab"
    assert isinstance(error, UnreachableError)
    assert error.message.startswith(f"{server.url} cut the answer off")


@pytest.mark.parametrize("last", [b"", b'data: {"choices":[{"del', b": comment\n\n"])
def test_a_stream_that_ends_without_an_end_is_cut_off(server: ScriptedServer, last: bytes) -> None:
    came, error = failure(server, Reply(raw=[said("a"), last]))
    assert (came, error.code) == ("a", "unreachable")
    assert "cut the answer off" in error.message


def test_a_connection_that_breaks_before_the_answer_is_told(server: ScriptedServer) -> None:
    came, error = failure(server, Reply(pieces=["a"], cut_after=0))
    assert (came, error.code) == ("", "unreachable")


def test_a_server_that_went_between_two_turns_is_told() -> None:
    async def work(backend: HttpBackend) -> None:
        await collected(backend, chat())
        await asyncio.to_thread(server.stop)
        with pytest.raises(UnreachableError, match="nothing listens there"):
            await collected(backend, chat())

    with ScriptedServer() as server:
        run(work, server.url)


@pytest.mark.parametrize(
    ("reply", "came"),
    [
        (Reply(pieces=["a"], silence_s=5), ""),
        (Reply(pieces=["a", "b"], stall_after=1), "a"),
        (Reply(pieces=["a", "b"], stall_after=0), ""),
    ],
)
def test_silence_is_not_waited_for_longer_than_the_timeout(
    server: ScriptedServer, reply: Reply, came: str
) -> None:
    text, error = failure(server, reply, timeout_s=0.4)
    assert text == came
    assert isinstance(error, UnreachableError)
    assert error.message == f"{server.url} said nothing for 0.4 s"
    assert error.hint == "wait longer with --timeout SECONDS"
    assert server.asked[0].disconnected.wait(2)


@pytest.mark.parametrize(
    ("told", "kind", "message"),
    [
        (
            {"message": "out of\x07 memory", "code": "oom"},
            LlmctlError,
            "broke off with an error: out of\ufffd memory",
        ),
        ("out of memory", LlmctlError, "broke off with an error: out of memory"),
        ({"message": "busy", "code": 503}, UnreachableError, "HTTP 503 Service Unavailable: busy"),
        ({"message": "no", "code": "context_length_exceeded"}, ContextOverflowError, "no"),
        ({"message": "bad", "code": 400}, UsageError, "HTTP 400 Bad Request: bad"),
    ],
)
def test_an_error_inside_of_a_stream_is_told_behind_the_text(
    server: ScriptedServer, told: Any, kind: type[LlmctlError], message: str
) -> None:
    came, error = failure(server, Reply(pieces=["a"], error=told))
    assert came == "a"
    assert type(error) is kind
    assert error.message.endswith(message)


@pytest.mark.parametrize(
    "broken",
    [
        event({"message": "broken"}, kind="error"),
        event({"error": {"message": "broken"}}, kind="error"),
        b"event: error\ndata: broken\n\n",
        event({"object": "error", "message": "broken", "code": 50001}),
        event({"text": "broken", "error_code": 50001}),
        event({"error": {"error": {"message": "broken"}}}),
    ],
)
def test_errors_are_known_in_all_their_shapes(server: ScriptedServer, broken: bytes) -> None:
    came, error = failure(server, Reply(raw=[said("a"), broken, said("b"), DONE]))
    assert came == "a"
    assert error.message.endswith("broke off with an error: broken")


def test_an_error_without_words_is_one_too(server: ScriptedServer) -> None:
    _, error = failure(server, Reply(raw=[event({"error": NESTED}), DONE]))
    assert error.message.endswith("broke off with an error")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(
            raw=[
                said("a"),
                event({"choices": [{"delta": {"tool_calls": [{"function": {"name": "f"}}]}}]}),
                DONE,
            ]
        ),
        Reply(raw=[said("a"), event({"choices": [{"delta": {"function_call": {"name": "f"}}}]}), DONE]),
        Reply(
            raw=[said("a"), event({"choices": [{"message": {"tool_calls": [{"function": {"name": "f"}}]}}]})]
        ),
    ],
)
def test_a_call_of_a_tool_is_named(server: ScriptedServer, reply: Reply) -> None:
    came, error = failure(server, reply)
    assert came == "a"
    assert "calls the tool 'f': tools are not supported yet" in error.message


@pytest.mark.parametrize("call", [[None], ["x"], [{"function": None}], {"name": 5}, True])
def test_a_call_without_a_name_is_told_too(server: ScriptedServer, call: Any) -> None:
    raw = [event({"choices": [{"delta": {"tool_calls": call}}]}), DONE]
    assert "calls a tool" in failure(server, Reply(raw=raw))[1].message


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        ("tool_calls", "tools are not supported"),
        ("content_filter", "ended the answer early: 'content_filter'"),
        ("abort", "ended the answer early: 'abort'"),
        ("\x1b[2J", "ended the answer early: '\ufffd[2J'"),
    ],
)
def test_an_end_that_is_none_of_ours_is_no_silent_one(server: ScriptedServer, reason: str, what: str) -> None:
    came, error = failure(server, Reply(pieces=["a"], finish_reason=reason))
    assert came == "a"
    assert what in error.message


@pytest.mark.parametrize(
    "value",
    [
        5,
        [],
        "text",
        {"choices": 5},
        {"choices": ["a"]},
        {"choices": [{"delta": "a"}]},
        {"choices": [{"delta": {"content": 5}}]},
        {"choices": [{"delta": {"content": [{"type": "image"}]}}]},
        {"choices": [{"delta": {"content": ["a"]}}]},
        {"choices": [{"delta": {"reasoning": {"a": 1}}}]},
        {"choices": [{"finish_reason": 5}]},
        {"choices": [{"logprobs": 5}]},
        {"choices": [{"logprobs": {"content": [{"token": "a", "logprob": 10**400}]}}]},
        {"choices": NESTED},
        {"choices": [{"logprobs": {"content": [{}]}}]},
        {"choices": [{"logprobs": {"content": [{"token": "a", "logprob": None}]}}]},
        {"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": []}}]},
    ],
)
def test_json_that_is_no_chunk_is_shown(server: ScriptedServer, value: Any) -> None:
    came, error = failure(server, Reply(raw=[said("a"), event(value), DONE]))
    assert came == "a"
    assert "sent what is not a chunk of an answer: " in error.message


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ([b"data: {oops\x1b[2J}\n\n"], "not JSON: '{oops\ufffd[2J}'"),
        ([b'data: {"error": "a "quoted" word"}\n\n'], "not JSON"),
        ([b"<html>\n<p>Hello", b"</html>"], "not an answer of the OpenAI protocol: '<html> <p>Hello"),
        ([b"\x00\x01\x02\xff" * 100], "not an answer of the OpenAI protocol: '\ufffd"),
        ([b"dat", b"abase error"], "'database error'"),
        ([b"da"], "'da'"),
        ([b'{"choices": ['], "not JSON"),
        ([b"   \n"], "sent an empty answer"),
        ([], "sent an empty answer"),
        ([DONE], "sent an empty answer"),
        (
            [event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}), DONE],
            "empty answer",
        ),
    ],
)
def test_bytes_that_are_no_answer_are_shown(server: ScriptedServer, raw: list[bytes], shown: str) -> None:
    _, error = failure(server, Reply(raw=raw))
    assert shown in error.message
    assert error.message.isprintable()
    assert len(error.message) < 200
    assert error.hint


def test_a_body_that_is_not_compressed_as_it_says_is_told(server: ScriptedServer) -> None:
    _, error = failure(server, Reply(raw=[said("a"), DONE], headers={"Content-Encoding": "gzip"}))
    assert "Content-Encoding" in error.message


@pytest.mark.parametrize("start", [b"data: ", b"{"])
def test_a_line_without_an_end_is_refused(
    server: ScriptedServer, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MAX_EVENT_BYTES", 2 << 20)
    _, error = failure(server, Reply(raw=[start] + [b"x" * 65536] * 64))
    assert "sent more than 2 MB at once" in error.message


def test_the_limit_of_a_line_is_large() -> None:
    assert sse.MAX_EVENT_BYTES == 16 << 20


def test_a_redirect_is_not_followed(server: ScriptedServer) -> None:
    with ScriptedServer() as stranger:
        url = f"{stranger.url}/chat/completions"
        _, error = failure(server, Reply(status=307, headers={"Location": url}), api_key="sk-secret")
        assert stranger.requests == []
    assert f"it sends on to {url}" in error.message
    assert "--url" in str(error.hint)


def test_a_server_without_completions_is_told(server: ScriptedServer) -> None:
    reply = Reply(status=404, body={"detail": "Not Found"})
    _, error = failure(server, reply, request=CompletionRequest(prompt="x"))
    assert isinstance(error, NotFoundError)


def test_half_a_character_is_not_sent(server: ScriptedServer) -> None:
    _, error = failure(server, request=chat("\ud83d"))
    assert isinstance(error, UsageError)
    assert server.asked == []
