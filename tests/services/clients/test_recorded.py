"""Bodies as clients were seen to send them, sent again without the clients."""

from typing import Any

import pytest

from tests.services.clients.fleet import ANSWER, ASKED, MESSAGES, MODEL, Fleet
from tests.services.clients.raw import CHAT, TEXT, ask, get

PARTS = [{"role": "user", "content": [{"type": "text", "text": ASKED}]}]
GREEDY = {"model": MODEL, "temperature": 0}
ASKED_CHAT: dict[str, dict[str, Any]] = {
    "openai": {"messages": MESSAGES},
    "openai with system": {"messages": [{"role": "developer", "content": "Answer."}, *MESSAGES]},
    "ai-sdk": {
        "messages": PARTS,
        "max_tokens": 64,
        "stream_options": {"include_usage": True},
        "stream": True,
    },
    "langchain": {
        "messages": PARTS,
        "max_completion_tokens": 64,
        "n": 1,
        "logprobs": None,
        "seed": None,
        "stop": None,
        "stream": False,
    },
    "llm": {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}, "store": False},
    "gradio": {"messages": PARTS, "stream": True},
    "lm-eval": {"messages": MESSAGES, "max_tokens": 64, "stop": ["</s>"], "seed": 1234},
    "guidellm": {
        "messages": PARTS,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_completion_tokens": 64,
    },
    "aider": {
        "messages": [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hello."},
            *MESSAGES,
        ],
        "stream": True,
    },
    "open-webui": {
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
        "metadata": {"chat_id": "1"},
    },
    "neutral values": {
        "messages": MESSAGES,
        "parallel_tool_calls": True,
        "tools": [],
        "tool_choice": None,
        "response_format": {"type": "text"},
        "service_tier": "auto",
        "user": "somebody",
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "logit_bias": {},
        "top_p": 1,
        "modalities": ["text"],
    },
    "vllm's": {"messages": MESSAGES, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "min_tokens": 1},
}


@pytest.mark.parametrize("client", list(ASKED_CHAT))
def test_what_a_client_sends_to_chat_is_answered(fleet: Fleet, client: str) -> None:
    body = ASKED_CHAT[client]
    answer = ask(fleet.port, CHAT, "Authorization: Bearer any", **GREEDY | body)
    assert answer.status == 200, answer.body
    if not body.get("stream"):
        (choice,) = answer.json["choices"]
        said, finish = choice["message"]["content"], choice["finish_reason"]
        assert choice["logprobs"] is None
        assert choice["message"]["refusal"] is None
    else:
        choices = [choice for chunk in answer.streamed for choice in chunk["choices"]]
        said = "".join(each["delta"].get("content", "") for each in choices)
        finish = choices[-1]["finish_reason"]
    assert finish == "stop"
    if "aider" not in client and "system" not in client:
        assert said == ANSWER


def test_lm_eval_scores_a_text_by_its_ids(fleet: Fleet) -> None:
    ids = ask(fleet.port, "/tokenize", model=MODEL, prompt="The capital of France is Paris").json["tokens"]
    body = {"prompt": [ids], "max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234}
    (choice,) = ask(fleet.port, TEXT, **GREEDY | body).json["choices"]
    told = choice["logprobs"]
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["top_logprobs"]) == len(ids) + 1
    assert told["token_logprobs"][0] is None
    assert all(each <= 0 for each in told["token_logprobs"][1:])
    assert choice["text"].startswith("The capital of France is Paris")


def test_the_legacy_body_of_langchain_is_answered(fleet: Fleet) -> None:
    body = {"prompt": ["The capital of France is"], "n": 1, "logprobs": None, "seed": None, "max_tokens": 4}
    (choice,) = ask(fleet.port, TEXT, **GREEDY | body).json["choices"]
    assert "Paris" in choice["text"]


def test_open_webui_lists_models(fleet: Fleet) -> None:
    (model,) = get(fleet.port, "/v1/models").json["data"]
    assert model["id"] == MODEL
    assert model["object"] == "model"
    assert isinstance(model["created"], int)
    assert model["owned_by"]


def test_guidellm_asks_for_health_without_a_key(fleet: Fleet) -> None:
    for part in ("gateway", "worker", "controller"):
        for path in ("/health", "/ready"):
            assert get(fleet.one(part).port, path).status == 200
