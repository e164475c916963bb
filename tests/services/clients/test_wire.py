"""The rules of streams, in the bytes that a fleet's gateway and its workers send."""

import json
import time
from collections import defaultdict
from typing import Any

import pytest

from tests.services.clients.fleet import ANSWER, MESSAGES, MODEL, Fleet, until
from tests.services.clients.raw import CHAT, TEXT, Answer, ask, connected, get

GREEDY = {"model": MODEL, "temperature": 0}
ASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": MESSAGES}),
    "chat of three": (CHAT, {"messages": MESSAGES, "n": 3, "temperature": 1, "seed": 5, "max_tokens": 9}),
    "chat with logprobs": (CHAT, {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2}),
    "chat cut short": (CHAT, {"messages": MESSAGES, "max_completion_tokens": 3}),
    "chat that says nothing": (CHAT, {"messages": MESSAGES, "stop": ["The"]}),
    "text": (TEXT, {"prompt": "The capital of France is", "max_tokens": 8}),
    "texts": (TEXT, {"prompt": ["The capital of", "A word"], "n": 2, "temperature": 1, "max_tokens": 8}),
    "ids": (TEXT, {"prompt": [[90, 91, 92], [93]], "max_tokens": 4}),
    "text with echo": (TEXT, {"prompt": "The capital", "echo": True, "logprobs": 1, "max_tokens": 4}),
    "text of noise": (TEXT, {"prompt": "a", "temperature": 2, "ignore_eos": True, "max_tokens": 200}),
}


@pytest.fixture(params=["gateway", "worker"])
def port(request: pytest.FixtureRequest, fleet: Fleet) -> int:
    """Of each part that answers clients."""
    return fleet.one(request.param).port


@pytest.fixture
def key(fleet: Fleet) -> str:
    """The header that opens all parts."""
    return f"Authorization: Bearer {fleet.token}"


@pytest.fixture(params=list(ASKS))
def asked(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """A path and the body to send there."""
    path, body = ASKS[request.param]
    return path, GREEDY | body


def text_of(choice: dict[str, Any]) -> str:
    """What a choice of a chunk says."""
    return str((choice["delta"].get("content") or "") if "delta" in choice else choice["text"])


def by_choice(chunks: list[Any]) -> dict[int, list[Any]]:
    """The choices of all chunks, each with its index."""
    found: dict[int, list[Any]] = defaultdict(list)
    for chunk in chunks:
        for choice in chunk["choices"]:
            found[choice["index"]].append(choice)
    return found


def num_choices(body: dict[str, Any]) -> int:
    prompt = body.get("prompt")
    return (len(prompt) if isinstance(prompt, list) else 1) * body.get("n", 1)


def test_a_stream_is_events_of_one_line_and_ends_with_done(
    port: int, key: str, asked: tuple[str, dict[str, Any]]
) -> None:
    path, body = asked
    answer = ask(port, path, key, **body, stream=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-request-id"]
    assert answer.events.count(b"[DONE]") == 1
    # Some clients take U+2028 for the end of a line.
    assert answer.body.isascii()
    # A client reads chunk by chunk: none ends within an event.
    assert all(chunk.endswith(b"\n\n") for chunk in answer.chunks)
    heads = {(each["id"], each["created"], each["model"], each["object"]) for each in answer.streamed}
    assert len(heads) == 1
    assert "usage" not in {name for each in answer.streamed for name in each}


def test_each_choice_opens_once_and_ends_once(port: int, key: str, asked: tuple[str, dict[str, Any]]) -> None:
    path, body = asked
    choices = by_choice(ask(port, path, key, **body, stream=True).streamed)
    assert sorted(choices) == list(range(num_choices(body)))
    for pieces in choices.values():
        *before, last = pieces
        assert last["finish_reason"] in ("stop", "length")
        assert text_of(last) == ""
        assert all(each["finish_reason"] is None for each in before)
        assert all("logprobs" in each for each in pieces)
        if path == CHAT:
            assert last["delta"] == {}
            assert before[0]["delta"] == {"role": "assistant", "content": ""}
            assert all("role" not in each["delta"] for each in before[1:])


def test_counts_come_last_and_only_when_asked_for(
    port: int, key: str, asked: tuple[str, dict[str, Any]]
) -> None:
    path, body = asked
    answer = ask(port, path, key, **body, stream=True, stream_options={"include_usage": True})
    *before, last = answer.streamed
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == (
        last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]
    )
    assert last["usage"]["completion_tokens"] > 0
    assert all(each["usage"] is None and each["choices"] for each in before)


def test_counts_come_with_each_chunk_when_asked_for(port: int, key: str) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    answer = ask(port, CHAT, key, **GREEDY, messages=MESSAGES, stream=True, stream_options=options)
    counted = [each["usage"]["completion_tokens"] for each in answer.streamed]
    assert counted == sorted(counted)
    assert len({each["usage"]["prompt_tokens"] for each in answer.streamed}) == 1
    assert answer.streamed[-1]["choices"] == []


@pytest.mark.parametrize(
    "name", ["chat", "chat with logprobs", "chat cut short", "text", "text with echo", "ids"]
)
def test_a_stream_says_what_a_whole_answer_says(port: int, key: str, name: str) -> None:
    path, body = ASKS[name]
    whole = ask(port, path, key, **GREEDY | body).json
    options = {"include_usage": True}
    chunks = ask(port, path, key, **GREEDY | body, stream=True, stream_options=options).streamed
    pieces = by_choice(chunks)
    for choice in whole["choices"]:
        said = choice["message"]["content"] if path == CHAT else choice["text"]
        streamed = pieces[choice["index"]]
        assert "".join(map(text_of, streamed)) == said
        assert streamed[-1]["finish_reason"] == choice["finish_reason"]
    assert chunks[-1]["usage"] == whole["usage"]


def test_log_probabilities_are_told_for_all_that_is_said(port: int, key: str) -> None:
    body = GREEDY | ASKS["chat with logprobs"][1]
    (choices,) = by_choice(ask(port, CHAT, key, **body, stream=True).streamed).values()
    told = [token for each in choices if each["logprobs"] for token in each["logprobs"]["content"]]
    # The last token ends the answer and is no part of its text.
    assert "".join(each["token"] for each in told).startswith(ANSWER)
    assert bytes(byte for each in told for byte in each["bytes"]).decode().startswith(ANSWER)
    assert all(len(each["top_logprobs"]) == 2 and each["logprob"] <= 0 for each in told)
    body = GREEDY | ASKS["text with echo"][1]
    (choices,) = by_choice(ask(port, TEXT, key, **body, stream=True).streamed).values()
    firsts = next(each["logprobs"] for each in choices if each["logprobs"])
    assert firsts["token_logprobs"][0] is None
    tokens = [token for each in choices if each["logprobs"] for token in each["logprobs"]["tokens"]]
    assert "".join(tokens).startswith("".join(map(text_of, choices)))


def test_events_come_one_by_one(port: int, key: str) -> None:
    body = GREEDY | {"messages": MESSAGES, "ignore_eos": True, "max_tokens": 600, "stream": True}
    with connected(port) as wire:
        wire.send(CHAT, key, **body)
        wire.head()
        begin = time.monotonic()
        times = [time.monotonic() - begin for _ in wire.chunks()]
    # On a busy machine several come in one read, and go on as one chunk.
    assert len(times) > 5
    assert times[2] < times[-1] / 2


def test_a_connection_serves_several_answers(port: int, key: str) -> None:
    with connected(port) as wire:
        for streams in (True, False, True):
            wire.send(CHAT, key, **GREEDY, messages=MESSAGES, stream=streams)
            assert wire.answer().status == 200


def test_a_client_that_leaves_ends_the_work(fleet: Fleet, port: int, key: str) -> None:
    body = GREEDY | {"messages": MESSAGES, "ignore_eos": True, "max_tokens": 900, "stream": True}
    with connected(port) as wire:
        wire.send(CHAT, key, **body)
        wire.head()
        next(wire.chunks())
        assert num_running(fleet, key) == 1
    assert until(lambda: num_running(fleet, key) == 0, within_s=5) < 1.0


def num_running(fleet: Fleet, key: str) -> int:
    """Requests that all workers work on."""
    pages = [get(each.port, "/metrics", key).body.decode() for each in fleet.parts("worker")]
    lines = [line for page in pages for line in page.splitlines()]
    return sum(int(float(x.split()[-1])) for x in lines if x.startswith("vllm:num_requests_running{"))


WRONG: dict[str, tuple[str, dict[str, Any], int, str | None]] = {
    "no messages": (CHAT, {"model": MODEL}, 400, "messages"),
    "a model that is not there": (CHAT, {"model": "gone", "messages": MESSAGES}, 404, "model"),
    "a field too large": (CHAT, {"model": MODEL, "messages": MESSAGES, "top_p": 9}, 400, "top_p"),
    "tools": (CHAT, {"model": MODEL, "messages": MESSAGES, "tools": [{"type": "function"}]}, 400, "tools"),
    "a form": (
        CHAT,
        {"model": MODEL, "messages": MESSAGES, "response_format": {"type": "json_object"}},
        400,
        "response_format",
    ),
    "an unknown field": (CHAT, {"model": MODEL, "messages": MESSAGES, "temprature": 1}, 400, "temprature"),
    "a prompt too long": (TEXT, {"model": MODEL, "prompt": "word " * 3000}, 400, None),
    "vectors": ("/v1/embeddings", {"model": MODEL, "input": "hi"}, 400, None),
}


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_is_told_by_status_and_field(port: int, key: str, name: str, streams: bool) -> None:
    path, body, status, param = WRONG[name]
    answer = ask(port, path, key, **body, **({"stream": True} if streams and "input" not in body else {}))
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.error["param"] == param
    assert answer.error["message"]


@pytest.mark.parametrize("name", ["prompt_logprobs", "logprobs", "n", "max_tokens", "top_k", "seed"])
def test_whole_numbers_may_be_written_as_floats(port: int, key: str, name: str) -> None:
    body = GREEDY | {"prompt": "a", "echo": True, "max_tokens": 2, name: 1.0}
    answer = ask(port, TEXT, key, **body)
    assert answer.status == 200, answer.body


def test_too_long_a_prompt_is_told_in_the_code_and_words_that_clients_know(port: int, key: str) -> None:
    error = ask(port, TEXT, key, model=MODEL, prompt="word " * 3000).error
    assert error["code"] == "context_length_exceeded"
    assert "prompt is too long" in error["message"]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"model":"demo","model"', b"\xff\xfe", b"[" * 5000]
)
def test_a_body_that_is_no_object_is_refused(port: int, key: str, raw: bytes) -> None:
    with connected(port) as wire:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{key}\r\nContent-Length: {len(raw)}\r\n\r\n"
        wire.send_raw(head.encode() + raw)
        answer = wire.answer()
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(("path", "status"), [("/v1/responses", 404), ("/v1/models/gone/for/good", 404)])
def test_what_is_not_there_is_told(port: int, key: str, path: str, status: int) -> None:
    assert get(port, path, key).error["type"] == "not_found_error"
    assert get(port, path, key).status == status


def test_a_method_that_a_path_does_not_take_is_told(port: int, key: str) -> None:
    answer = get(port, CHAT, key)
    assert answer.status == 405
    assert answer.headers["allow"] == "OPTIONS, POST"
    assert answer.error["code"] == "method_not_allowed"


def test_workers_want_the_token_and_the_gateway_of_a_laptop_wants_none(fleet: Fleet) -> None:
    refused = ask(fleet.one("worker").port, CHAT, **GREEDY, messages=MESSAGES)
    assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    answer: Answer = ask(fleet.port, CHAT, **GREEDY, messages=MESSAGES)
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == ANSWER
