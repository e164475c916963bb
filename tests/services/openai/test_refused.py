"""Every documented field is supported or refused by name; none is ignored."""

from collections.abc import Callable
from typing import Any

import pytest

from llmctl.services.openai import reading, refused
from llmctl.services.openai.body import Body
from llmctl.services.openai.requests import ChatRequestBody, CompletionBody, EmbeddingBody
from tests.services.openai.given import DEFAULT, chat, completion, refusal

# The fields of openai-python 3.57.0, types/chat/completion_create_params.py and its neighbours.
CHAT_FIELDS = """
    messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
    max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty
    prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort response_format
    safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools
    top_logprobs top_p user verbosity web_search_options
"""
COMPLETION_FIELDS = """
    model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop
    stream stream_options suffix temperature top_p user
"""
EMBEDDING_FIELDS = "input model dimensions encoding_format user"
EXTRAS = """
    top_k min_p repetition_penalty ignore_eos min_tokens stop_token_ids bad_words allowed_token_ids
    prompt_logprobs priority seed add_special_tokens
"""


@pytest.mark.parametrize(
    ("kind", "documented"),
    [
        (ChatRequestBody, CHAT_FIELDS + EXTRAS),
        (ChatRequestBody, "chat_template_kwargs continue_final_message add_generation_prompt chat_template"),
        (CompletionBody, COMPLETION_FIELDS + EXTRAS),
        (EmbeddingBody, EMBEDDING_FIELDS),
    ],
)
def test_every_documented_field_is_known(kind: type[Body], documented: str) -> None:
    known = kind.model_fields.keys() | kind.refused.keys()
    assert set(documented.split()) - known == set()
    assert kind.model_fields.keys() & kind.refused.keys() == set()


def embedding(**fields: Any) -> Any:
    return reading.embedding_call({"model": "m", "input": "x", **fields})


CASES = [
    (read, name)
    for read, table in (
        (chat, refused.CHAT),
        (completion, refused.COMPLETION),
        (embedding, refused.EMBEDDING),
    )
    for name in table
]


@pytest.mark.parametrize(("read", "name"), CASES)
def test_a_field_that_is_not_supported_is_refused_by_name(read: Callable[..., Any], name: str) -> None:
    for value in ({"some": "value"}, 17):
        error = refusal(read, **{name: value})
        assert error.param == name
        assert error.message.startswith(f"{name} ")
        assert "is not supported: " in error.message


@pytest.mark.parametrize(("read", "name"), CASES)
def test_a_field_that_asks_for_nothing_is_let_pass(read: Callable[..., Any], name: str) -> None:
    table = {chat: refused.CHAT, completion: refused.COMPLETION}.get(read, refused.EMBEDDING)
    for value in (None, *table[name].neutral):
        assert read(**{name: value}) == read()


def test_true_is_not_one() -> None:
    assert refusal(chat, store=0).param == "store"
    assert refusal(chat, best_of=True).param == "best_of"
    assert chat(best_of=1) == chat()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "text", "more": 1}),
        ("modalities", ["text", "audio"]),
        ("service_tier", "flex"),
        ("store", True),
        ("verbosity", "low"),
        ("prompt_cache_retention", "24h"),
    ],
)
def test_what_clients_may_ask_for_in_vain_is_refused(field: str, value: Any) -> None:
    assert refusal(chat, **{field: value}).param == field


def test_what_langchain_sends_is_taken() -> None:
    call = chat(
        max_completion_tokens=9,
        parallel_tool_calls=False,
        n=1,
        logprobs=None,
        seed=None,
        messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    )
    assert call.request.sampling.max_new_tokens == 9
    legacy = {"best_of": 1, "frequency_penalty": 0, "logit_bias": None, "max_tokens": 256, "n": 1}
    assert completion(prompt=["hi"], logprobs=None, seed=None, **legacy).requests[0].prompt == "hi"


def test_what_llm_sends_is_taken() -> None:
    assert chat(stream=True, store=False, stream_options={"include_usage": True}).delivery.includes_usage


def test_what_our_own_client_sends_is_taken() -> None:
    from llmctl.core.types import ChatRequest, CompletionRequest, Message, SamplingParams
    from llmctl.services.upstream.payload import path_and_body

    params = SamplingParams(
        temperature=0.5,
        top_k=3,
        min_p=0.1,
        seed=4,
        max_new_tokens=9,
        stop=("x",),
        stop_token_ids=(5,),
        logprobs=2,
        n=2,
        logit_bias=((1, 2.0),),
        bad_words=("y",),
        min_tokens=1,
        ignore_eos=True,
        allowed_token_ids=(1, 2),
    )
    begun = (Message(role="user", content="Hi"), Message(role="assistant", content="Hel"))
    asked = ChatRequest(messages=begun, sampling=params, continues_last=True, reasons=False)
    _, body = path_and_body(asked, model="demo")
    read = reading.chat_request(body, DEFAULT).request
    assert (read.messages, read.sampling, read.continues_last, read.reasons) == (begun, params, True, False)
    for prompt in ("Once", (1, 2, 3)):
        _, body = path_and_body(CompletionRequest(prompt=prompt, sampling=params), model="demo")
        (request,) = reading.completion_calls(body, DEFAULT).requests
        assert (request.prompt, request.sampling) == (prompt, params)
    _, body = path_and_body(CompletionRequest(prompt="Once"), model="demo")
    (request,) = reading.completion_calls(body, DEFAULT).requests
    assert request.sampling.max_new_tokens is None
