"""What servers say when they refuse is read in all the shapes in which they say it."""

import json
import time
from typing import Any

import pytest

from llmctl.services.upstream import refusal


def read(body: Any, status: int = 400, **headers: str) -> refusal.Refusal:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return refusal.from_response(
        status, {name.replace("_", "-"): text for name, text in headers.items()}, raw
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no", "type": "x", "code": None}}, "no"),
        ({"error": "no"}, "no"),
        ({"error": {"error": {"message": "no"}}}, "no"),
        ({"object": "error", "message": "no", "code": 400}, "no"),
        ({"detail": "no"}, "no"),
        (
            {"detail": [{"loc": ["body", "top_k"], "msg": "not allowed"}, {"loc": ["body"], "msg": "bad"}]},
            "body.top_k: not allowed; body: bad",
        ),
        ("no", "no"),
        ({"reason": 5}, '{"reason": 5}'),
        ({}, ""),
        ([], ""),
        (b"", ""),
        (b"no\r\n  really", "no really"),
        (b"<html><head><title>502 Bad\nGateway</title></head><body>x", "502 Bad Gateway"),
        (b"<html><body>x", ""),
        ({"error": "a\x1b[31mb\u202ec\x00"}, "a\ufffd[31mb\ufffdc\ufffd"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[" * 5000, "[" * 5000),
    ],
)
def test_the_message_is_found(body: Any, message: str) -> None:
    assert read(body).message == message


@pytest.mark.parametrize(
    "body", [b'{"error":' * 500 + b"1" + b"}" * 500, b'{"detail":[' * 300 + b"1" + b"]}" * 300]
)
def test_nesting_does_no_harm(body: bytes) -> None:
    assert isinstance(read(body).message, str)


@pytest.mark.parametrize("body", [b"1" * 64_000, b"<title>" * 9_000, b"the context of " * 4_000])
def test_no_answer_takes_long_to_read(body: bytes) -> None:
    start_s = time.process_time()
    read(body)
    assert time.process_time() - start_s < 1


@pytest.mark.parametrize(
    ("text", "prompt_tokens", "context_length"),
    [
        # OpenAI and vLLM, older and newer.
        (
            "This model's maximum context length is 4097 tokens. However, you requested 5000 tokens "
            "(4000 in the messages, 1000 in the completion).",
            4000,
            4097,
        ),
        (
            "This model's maximum context length is 16385 tokens. However, your messages resulted in 17000 "
            "tokens. Please reduce the length of the messages.",
            17000,
            16385,
        ),
        (
            "This model's maximum context length is 16 tokens. However, your request has 20 input tokens.",
            20,
            16,
        ),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length "
            "is 4096 tokens and your request has 30 input tokens (5000 > 4096 - 30).",
            30,
            4096,
        ),
        (
            "You passed 5001 input tokens and requested 1 output tokens. However, the model's context length "
            "is only 4096 tokens, resulting in a maximum input length of 4095 tokens.",
            5001,
            4096,
        ),
        # SGLang
        ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 5000, 4096),
        (
            "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested "
            "a total of 5000 tokens: 4000 tokens from the input messages and 1000 for the completion.",
            4000,
            4096,
        ),
        # llama.cpp
        ("the request exceeds the available context size (4096 tokens), try increasing it", None, 4096),
        ("request (5000 tokens) exceeds the available context size (4096 tokens)", 5000, 4096),
        # text-generation-inference
        ("Input validation error: `inputs` must have less than 1024 tokens. Given: 5000", 5000, 1024),
        (
            "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 1000 "
            "`max_new_tokens`",
            4000,
            4096,
        ),
        # Anthropic, Mistral, LM Studio, and llmctl's own
        ("prompt is too long: 210000 tokens > 200000 maximum", 210000, 200000),
        (
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum "
            "context length",
            40000,
            32768,
        ),
        ("the prompt has 1200 tokens, the context of demo holds 1024 with the answer", 1200, 1024),
        ("Your input exceeds the context window of this model.", None, None),
    ],
)
def test_an_overflow_of_the_context_is_known_by_its_words(
    text: str, prompt_tokens: int | None, context_length: int | None
) -> None:
    told = read({"error": {"message": text}})
    assert told.is_overflow
    assert (told.prompt_tokens, told.context_length) == (prompt_tokens, context_length)


def test_an_overflow_is_known_by_its_code() -> None:
    assert read({"error": {"message": "no", "code": "context_length_exceeded"}}).is_overflow
    told = read({"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096}})
    assert (told.is_overflow, told.prompt_tokens, told.context_length) == (True, 5000, 4096)


@pytest.mark.parametrize(
    "text", ["context_length is not a parameter", "temperature is too large", "no context given"]
)
def test_other_refusals_are_no_overflow(text: str) -> None:
    assert not read({"error": {"message": text}}).is_overflow


@pytest.mark.parametrize(
    ("header", "wait_s"), [("7", "7"), (" 1.5 ", "1.5"), ("", None), ("Wed, 21 Oct 2026", None), ("-1", None)]
)
def test_the_wait_is_read_in_seconds(header: str, wait_s: str | None) -> None:
    assert read({}, 429, retry_after=header).wait_s == wait_s


@pytest.mark.parametrize(
    ("told", "status", "message"),
    [
        ({"message": "no", "code": 503}, 503, "no"),
        ({"message": "no", "code": "server_error"}, 0, "no"),
        ({"message": "no", "code": 7}, 0, "no"),
        ("no", 0, "no"),
        (None, 0, ""),
    ],
)
def test_an_error_inside_of_a_stream_tells_its_status(told: Any, status: int, message: str) -> None:
    read_ = refusal.from_error(told)
    assert (read_.status, read_.message) == (status, message)


def test_a_line_is_cut_to_its_limit() -> None:
    assert refusal.one_line("a" * 10, limit=10) == "a" * 10
    assert refusal.one_line("a" * 11, limit=10) == "a" * 9 + "…"
