"""Requests become the bodies that servers know, and nothing is sent that nobody meant."""

from typing import Any

import pytest

from llmctl.core import sampling
from llmctl.core.errors import UsageError
from llmctl.core.types import ChatRequest, CompletionRequest, Message, SamplingParams
from llmctl.services.upstream import payload

HELLO = (Message(role="user", content="hello"),)
ENVELOPE = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}


def chat_body(**given: Any) -> dict[str, Any]:
    """What a chat sends for these parameters, beside what every chat sends."""
    request = ChatRequest(messages=HELLO, sampling=SamplingParams(**given))
    path, body = payload.path_and_body(request, model="m")
    assert path == "/chat/completions"
    assert body.pop("messages") == [{"role": "user", "content": "hello"}]
    assert {key: body.pop(key) for key in ENVELOPE} == ENVELOPE
    return body


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {}),
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"temperature": 1.0, "top_p": 1.0}, {}),
        ({"top_p": 0.9, "top_k": 5, "min_p": 0.1}, {"top_p": 0.9, "top_k": 5, "min_p": 0.1}),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        (
            {"presence_penalty": 0.5, "frequency_penalty": -1.0},
            {"presence_penalty": 0.5, "frequency_penalty": -1.0},
        ),
        ({"seed": 0}, {"seed": 0}),
        ({"max_new_tokens": 9}, {"max_tokens": 9}),
        ({"stop": ("a", "b"), "stop_token_ids": (1, 2)}, {"stop": ["a", "b"], "stop_token_ids": [1, 2]}),
        ({"n": 2, "min_tokens": 3, "ignore_eos": True}, {"n": 2, "min_tokens": 3, "ignore_eos": True}),
        ({"logit_bias": ((5, 1.5), (7, -2.0))}, {"logit_bias": {5: 1.5, 7: -2.0}}),
        (
            {"bad_words": ("a",), "allowed_token_ids": (1, 2)},
            {"bad_words": ["a"], "allowed_token_ids": [1, 2]},
        ),
        ({"logprobs": 0}, {"logprobs": True, "top_logprobs": 0}),
        ({"logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    ],
)
def test_only_what_is_not_neutral_is_sent(given: dict[str, Any], sent: dict[str, Any]) -> None:
    assert chat_body(**given) == sent


def test_a_neutral_value_that_somebody_chose_is_sent() -> None:
    chosen = sampling.update(SamplingParams(), {"temperature": 1, "top_k": 0, "stop": []})
    _, body = payload.path_and_body(ChatRequest(messages=HELLO, sampling=chosen), model="m")
    assert (body["temperature"], body["top_k"]) == (1.0, 0)
    assert "stop" not in body


def test_going_on_with_the_last_message_is_asked_for() -> None:
    request = ChatRequest(messages=(*HELLO, Message(role="assistant", content="He")), continues_last=True)
    _, body = payload.path_and_body(request, model="m")
    assert body["messages"][-1] == {"role": "assistant", "content": "He"}
    assert (body["add_generation_prompt"], body["continue_final_message"]) == (False, True)


@pytest.mark.parametrize(("prompt", "sent"), [("Once", "Once"), ((1, 2), [1, 2])])
def test_a_completion_goes_to_its_own_path(prompt: Any, sent: Any) -> None:
    params = SamplingParams(logprobs=2)
    path, body = payload.path_and_body(CompletionRequest(prompt=prompt, sampling=params), model="m")
    assert (path, body["prompt"], body["logprobs"]) == ("/completions", sent, 2)


def test_a_completion_without_a_limit_asks_for_none() -> None:
    _, body = payload.path_and_body(CompletionRequest(prompt="Once"), model="m")
    assert body["max_tokens"] is None
    limited = CompletionRequest(prompt="Once", sampling=SamplingParams(max_new_tokens=3))
    assert payload.path_and_body(limited, model="m")[1]["max_tokens"] == 3


@pytest.mark.parametrize(
    ("message", "quirk"),
    [
        ("Unrecognized request argument supplied: stream_options", payload.NO_STREAM_OPTIONS),
        ("body.stream_options: Extra inputs are not permitted", payload.NO_STREAM_OPTIONS),
        (
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            payload.NEW_LIMIT_NAME,
        ),
        ("'max_tokens' or 'max_completion_tokens' is too large: 5000", None),
        ("stream is not supported", None),
        ("", None),
    ],
)
def test_only_refusals_of_the_form_are_answered_in_another(message: str, quirk: str | None) -> None:
    body = {"stream_options": {"include_usage": True}, "max_tokens": 5}
    assert payload.quirk(body, message) == quirk
    if quirk is not None:
        assert payload.quirk(payload.adapted(body, {quirk}), message) is None


def test_a_body_is_put_in_the_form_that_a_server_takes() -> None:
    body = {"model": "m", "stream_options": {}, "max_tokens": 5}
    both = {payload.NO_STREAM_OPTIONS, payload.NEW_LIMIT_NAME}
    assert payload.adapted(body, set()) == body
    assert payload.adapted(body, both) == {"model": "m", "max_completion_tokens": 5}


@pytest.mark.parametrize(
    ("message", "flags"),
    [
        ("Unrecognized request argument supplied: top_k", ["--top-k"]),
        ("body.min_p: Extra inputs; body.top_k: Extra inputs", ["--min-p", "--top-k"]),
        ("max_tokens must be less", ["--max-new-tokens"]),
        ("top_logprobs is too high", ["--logprobs"]),
        ("temperature", []),
        ("the model does not stream", []),
    ],
)
def test_a_refusal_is_traced_to_the_flags(message: str, flags: list[str]) -> None:
    body = {"model": "m", "stream": True, "top_k": 1, "min_p": 0.1, "max_tokens": 5, "top_logprobs": 30}
    assert payload.blamed_flags(body, message) == flags


def test_half_a_character_is_refused() -> None:
    assert payload.encode({"a": "é😀"}) == '{"a": "é😀"}'.encode()
    with pytest.raises(UsageError, match=r"not valid Unicode: it holds '\\ud83d'"):
        payload.encode({"a": "\ud83d"})
