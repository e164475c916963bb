"""Whatever JSON comes, reading it gives a call or an error that names a field, and that can be sent."""

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse

from llmctl.services.http.errors import ParameterError
from llmctl.services.openai import reading
from llmctl.services.openai.requests import (
    ChatRequestBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    TokenCheckBody,
    TokenizeBody,
)
from tests.services.openai.given import DEFAULT

Read = Callable[[Mapping[str, Any]], object]

READERS: dict[type[Any], Read] = {
    ChatRequestBody: lambda body: reading.chat_request(body, DEFAULT),
    CompletionBody: lambda body: reading.completion_calls(body, DEFAULT),
    EmbeddingBody: reading.embedding_call,
    TokenizeBody: reading.tokenize_call,
    DetokenizeBody: reading.detokenize_call,
    TokenCheckBody: reading.token_checks,
}
TEXTS = st.text(st.characters(), max_size=5) | st.sampled_from(
    ["text", "user", "assistant", "system", "tool", "function", "\ud800", "<text>", "{}", "[", "auto"]
)
NAMES = st.sampled_from(
    [
        "role",
        "content",
        "type",
        "text",
        "refusal",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "id",
        "<user>",
    ]
)
NUMBERS = (
    st.integers()
    | st.sampled_from([-(2**63), 2**63, 10**30, -1, 0, 1, 16])
    | st.floats(allow_nan=True, allow_infinity=True)
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXTS, inner, max_size=4),
    max_leaves=12,
)
PARTS = st.fixed_dictionaries({"type": JSON | st.just("text")}, optional={"text": JSON})
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool"]) | JSON},
        optional={
            "content": TEXTS | st.lists(PARTS | JSON, max_size=3) | JSON,
            "tool_calls": JSON,
            "name": JSON,
            "refusal": JSON,
        },
    )
    | JSON,
    max_size=3,
)


def bodies(kind: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    known = [*kind.model_fields, *kind.refused]
    whole = {
        name: strategy
        for name, strategy in {
            "model": st.just("m") | JSON,
            "messages": MESSAGES,
            "prompt": TEXTS | st.lists(st.integers(0, 9), max_size=3) | JSON,
            "input": TEXTS | st.lists(TEXTS, max_size=3) | JSON,
            "tokens": st.lists(st.integers(), max_size=3) | JSON,
        }.items()
        if name in known
    }
    return st.builds(
        lambda some, more: {**some, **more},
        st.fixed_dictionaries({}, optional=whole),
        st.dictionaries(st.sampled_from(known) | TEXTS, JSON, max_size=5),
    )


def check(read: Read, body: Any) -> None:
    # As it comes over the wire.
    body = json.loads(json.dumps(body))
    with contextlib.suppress(ParameterError):
        read(body)
        return
    with pytest.raises(ParameterError) as caught:
        read(body)
    error = caught.value
    assert error.param
    assert error.http_status == 400
    assert len(error.message) < 700
    assert len(error.hint or "") < 1000
    JSONResponse({"message": error.message, "param": error.param, "hint": error.hint})


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
def test_any_json_is_read_or_refused(kind: type[Any]) -> None:
    @settings(max_examples=100, deadline=None, database=None)
    @given(bodies(kind))
    def hold(body: dict[str, Any]) -> None:
        check(READERS[kind], body)

    hold()


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
def test_any_value_of_any_field_is_read_or_refused(kind: type[Any]) -> None:
    odd = [
        0,
        -1,
        1.5,
        True,
        "",
        "x",
        "\ud800",
        [],
        [[]],
        {},
        {"a": None},
        [1, "x"],
        2**70,
        1e300,
        None,
        float("nan"),
    ]
    whole = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "prompt": "x",
        "input": "x",
        "tokens": [1],
    }
    base = {name: value for name, value in whole.items() if name in kind.model_fields}
    if kind is TokenizeBody:
        del base["messages"]
    for name in (*kind.model_fields, *kind.refused):
        for value in odd:
            check(READERS[kind], base | {name: value})


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("depth", [3, 50, 400])
def test_deep_json_is_read_or_refused(kind: type[Any], depth: int) -> None:
    deep: Any = "x"
    for level in range(depth):
        deep = [deep] if level % 2 else {"a": deep}
    for name in (*kind.model_fields, *kind.refused):
        check(READERS[kind], {"model": "m", "messages": [{"role": "user", "content": "Hi"}], name: deep})
    check(READERS[kind], {"x": deep})


def test_what_is_right_is_not_refused() -> None:
    @settings(max_examples=100, deadline=None, database=None)
    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "temperature": st.floats(0, 100) | st.integers(0, 100),
                "top_p": st.floats(0.01, 1),
                "top_k": st.integers(-1, 10**9),
                "min_p": st.floats(0, 1),
                "seed": st.integers(-(2**63), 2**63 - 1),
                "n": st.integers(1, 128),
                "stop": st.lists(st.text(min_size=1, max_size=20), max_size=8),
                "logit_bias": st.dictionaries(
                    st.integers(0, 10**6).map(str), st.floats(-100, 100), max_size=4
                ),
                "max_tokens": st.integers(10, 10**9),
                "min_tokens": st.integers(0, 10),
                "ignore_eos": st.booleans(),
                "priority": st.integers(-100, 100),
                "user": st.text(),
                "service_tier": st.sampled_from(["auto", "default", None]),
            },
        )
    )
    def hold(fields: dict[str, Any]) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
        sampling = reading.chat_request(body, DEFAULT).request.sampling
        assert sampling.max_new_tokens == fields.get("max_tokens")
        assert sampling.n == fields.get("n", 1)
        reading.completion_calls({"model": "m", "prompt": "x", **fields, "max_tokens": 10}, DEFAULT)

    hold()
