"""Deltas into answers of chat, whole and as bytes of a stream."""

from typing import Any

import pytest

from llmctl.core.types import Delta
from llmctl.services.openai.answers import ChatCompletion, ChatCompletionChunk
from llmctl.services.openai.chat import PREFIX, ChatAnswer, ChatStream
from llmctl.services.openai.head import Head
from tests.services.openai.given import HEAD, chat, end, events, piece, token


def answered(*deltas: Delta, **fields: Any) -> dict[str, Any]:
    answer = ChatAnswer(chat(**fields), HEAD)
    for delta in deltas:
        answer.push(delta)
    whole = answer.whole()
    ChatCompletion.model_validate(whole)
    return whole


def streamed(*deltas: Delta, prompt_tokens: int | None = None, **fields: Any) -> list[dict[str, Any]]:
    stream = ChatStream(chat(stream=True, **fields), HEAD)
    stream.num_prompt_tokens = prompt_tokens
    said = events(b"".join(map(stream.push, deltas)) + stream.end())
    for each in said:
        ChatCompletionChunk.model_validate(each)
    return said


def test_an_answer_is_one_object() -> None:
    assert answered(piece("Hel"), piece("lo"), end(5, 2)) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "demo",
        "system_fingerprint": HEAD.as_dict("x")["system_fingerprint"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def test_the_bytes_of_a_stream_are_known() -> None:
    stream = ChatStream(chat(stream=True), HEAD)
    sent = stream.push(piece("Hél\u2028")), stream.push(end(text="lo", reason="length")), stream.end()
    start = (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"demo",'
        b'"system_fingerprint":"' + HEAD.as_dict("x")["system_fingerprint"].encode() + b'",'
        b'"choices":[{"index":0,'
    )
    rest = b',"logprobs":null,"finish_reason":null}]}\n\n'
    assert sent == (
        start + b'"delta":{"role":"assistant","content":""}' + rest
        + start + b'"delta":{"content":"H\\u00e9l\\u2028"}' + rest,
        start + b'"delta":{"content":"lo"}' + rest
        + start + b'"delta":{},"logprobs":null,"finish_reason":"length"}]}\n\n',
        b"data: [DONE]\n\n",
    )  # fmt: skip


def test_each_choice_opens_with_a_role_and_ends_with_a_reason_alone() -> None:
    said = streamed(
        piece("a"), piece("x", index=1), end(index=0, reason="length"), piece("y", index=1), end(index=1), n=2
    )
    for index, text, reason in ((0, "a", "length"), (1, "xy", "stop")):
        choices = [each["choices"][0] for each in said if each["choices"][0]["index"] == index]
        first, *pieces, last = choices
        assert first["delta"] == {"role": "assistant", "content": ""}
        assert "".join(each["delta"]["content"] for each in pieces) == text
        assert (last["delta"], last["finish_reason"]) == ({}, reason)
        assert all(each["finish_reason"] is None for each in choices[:-1])
        assert all("role" not in each["delta"] for each in choices[1:])
    assert len({(each["id"], each["created"], each["model"]) for each in said}) == 1


def test_an_answer_without_text_has_an_opening_and_an_end() -> None:
    said = streamed(end())
    assert [each["choices"][0]["delta"] for each in said] == [{"role": "assistant", "content": ""}, {}]
    assert answered(end())["choices"][0]["message"]["content"] == ""


def test_what_tells_nothing_is_not_sent() -> None:
    stream = ChatStream(chat(stream=True), HEAD)
    stream.push(piece("a"))
    assert stream.push(piece("")) == b""


def test_usage_comes_last_and_only_when_asked_for() -> None:
    deltas = (piece("a"), piece("b", index=1), end(7, 2), end(7, 3, index=1))
    assert all("usage" not in each for each in streamed(*deltas, n=2))
    *others, last = streamed(*deltas, n=2, stream_options={"include_usage": True})
    assert (last["choices"], last["usage"]) == (
        [],
        {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    )
    assert all(each["usage"] is None and each["choices"] for each in others)
    assert all(
        "usage" not in each for each in streamed(*deltas, n=2, stream_options={"include_usage": False})
    )


def test_usage_is_left_out_when_nobody_tells_it() -> None:
    from dataclasses import replace

    told = end()
    assert told.finish is not None
    silent = replace(told, finish=replace(told.finish, usage=None))
    said = streamed(piece("a"), silent, stream_options={"include_usage": True})
    assert [each["usage"] for each in said] == [None] * 3
    assert answered(silent)["usage"] is None


def test_counts_so_far_come_in_every_chunk() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    deltas = piece("a"), piece("b"), end(4, 3)
    said = streamed(*deltas, prompt_tokens=4, stream_options=options)
    assert [each["usage"]["completion_tokens"] for each in said] == [1, 1, 2, 3, 3]
    assert {each["usage"]["prompt_tokens"] for each in said} == {4}
    unknown = streamed(*deltas, stream_options=options)
    assert [each["usage"] and each["usage"]["total_tokens"] for each in unknown] == [None, None, None, 7, 7]
    alone = streamed(*deltas, prompt_tokens=4, stream_options={"continuous_usage_stats": True})
    assert alone[-1]["choices"][0]["finish_reason"] == "stop"


def test_reasoning_is_kept_apart() -> None:
    deltas = Delta(reasoning="Hm", token_ids=(1,)), Delta(reasoning=".", text="Yes", token_ids=(2,)), end()
    said = [each["choices"][0]["delta"] for each in streamed(*deltas)]
    assert said[1:-1] == [{"reasoning_content": "Hm"}, {"reasoning_content": "."}, {"content": "Yes"}]
    message = answered(*deltas)["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Yes", "Hm.")


LIKELY = token("é", -0.25, others=[("é", -0.25), ("\ufffd", float("-inf"))])


def test_log_probabilities_are_objects() -> None:
    deltas = piece("", logprobs=(token("Hel"),)), piece("é", logprobs=(LIKELY,)), end()
    (choice,) = answered(*deltas, logprobs=True, top_logprobs=2)["choices"]
    first, second = choice["logprobs"]["content"]
    assert first == {"token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108], "top_logprobs": []}
    assert second["top_logprobs"] == [
        {"token": "é", "logprob": -0.25, "bytes": [195, 169]},
        {"token": "\ufffd", "logprob": -9999.0, "bytes": None},
    ]
    assert choice["logprobs"]["refusal"] is None
    assert answered(end())["choices"][0]["logprobs"] is None


def test_log_probabilities_stream_with_their_tokens() -> None:
    deltas = piece("", logprobs=(token("Hel"),)), piece("Helé", logprobs=(LIKELY,)), piece(" ya"), end()
    said = [each["choices"][0] for each in streamed(*deltas, logprobs=True, top_logprobs=2)]
    told = [each["logprobs"] and [one["token"] for one in each["logprobs"]["content"]] for each in said]
    assert told == [None, ["Hel"], ["é"], None, None]
    assert said[1]["delta"] == {"content": ""}


def test_log_probabilities_of_reasoning_are_told_once() -> None:
    deltas = Delta(reasoning="Hm", text="Y", token_ids=(1,), logprobs=(token("Y"),)), end()
    said = [each["choices"][0]["logprobs"] for each in streamed(*deltas, logprobs=True)]
    assert [each is not None for each in said] == [False, True, False, False]


def test_log_probabilities_of_the_prompt_are_by_id() -> None:
    told = (token("ab", -1.0, others=[("abc", -0.5), ("ab", -1.0)]), token("x", others=[("abc", -0.1)]))
    answer = answered(piece("a", prompt_logprobs=told), end(), prompt_logprobs=2)
    assert answer["prompt_logprobs"] == [
        None,
        {
            "2": {"logprob": -1.0, "rank": 2, "decoded_token": "ab"},
            "3": {"logprob": -0.5, "rank": 1, "decoded_token": "abc"},
        },
        {
            "1": {"logprob": -0.5, "rank": None, "decoded_token": "x"},
            "3": {"logprob": -0.1, "rank": 1, "decoded_token": "abc"},
        },
    ]


def test_a_name_that_json_must_escape_is_escaped() -> None:
    head = Head(model='a"b\né', id="chatcmpl-1", created=1)
    stream = ChatStream(chat(stream=True), head)
    (first, *_) = events(stream.push(piece("x")) + stream.end())
    assert first["model"] == 'a"b\né'


def test_ids_differ() -> None:
    ids = {Head.new("demo", prefix=PREFIX).id for _ in range(100)}
    assert len(ids) == 100
    assert all(each.startswith("chatcmpl-") for each in ids)


@pytest.mark.parametrize("reason", ["stop", "length", "cancelled"])
def test_every_reason_has_a_word_of_the_protocol(reason: Any) -> None:
    assert answered(end(reason=reason))["choices"][0]["finish_reason"] in ("stop", "length")
