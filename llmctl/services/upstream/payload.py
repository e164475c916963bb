"""What is sent: requests of the seam as the JSON bodies of the OpenAI protocol.

A sampling parameter is sent when somebody chose it or when it is not neutral. What is left out, the server
fills with defaults of its own, often the model's generation_config.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from llmctl.core.errors import UsageError
from llmctl.core.sampling import ALL_KEYS
from llmctl.core.types import ChatRequest, CompletionRequest, GenerationRequest, SamplingParams

Body = dict[str, Any]

CHAT, COMPLETIONS = "/chat/completions", "/completions"
NO_STREAM_OPTIONS = "stream_options"
NEW_LIMIT_NAME = "max_completion_tokens"
# Named in a refusal, these are not the user's to leave out.
_OURS = frozenset({"model", "messages", "prompt", "stream", "stream_options"})
_FLAGS = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "top_logprobs": "logprobs",
}


def path_and_body(request: GenerationRequest, *, model: str) -> tuple[str, Body]:
    """Where a request goes, below the base URL, and what it says."""
    body: Body = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    chosen = _chosen(request.sampling)
    if isinstance(request, ChatRequest):
        return CHAT, body | _chat(request) | _with_chat_logprobs(chosen)
    return COMPLETIONS, body | _completion(request) | chosen


def adapted(body: Body, quirks: set[str]) -> Body:
    """`body` as a server with these quirks takes it."""
    body = dict(body)
    if NO_STREAM_OPTIONS in quirks:
        body.pop("stream_options", None)
    if NEW_LIMIT_NAME in quirks and "max_tokens" in body:
        body[NEW_LIMIT_NAME] = body.pop("max_tokens")
    return body


def quirk(body: Body, message: str) -> str | None:
    """What a refusal of `body` teaches about the server, when the request can be put in another way."""
    if "stream_options" in body and "stream_options" in message:
        return NO_STREAM_OPTIONS
    # "max_completion_tokens is too large" says nothing about the name.
    if "max_tokens" in body and NEW_LIMIT_NAME in message and "unsupported" in message.lower():
        return NEW_LIMIT_NAME
    return None


def blamed_flags(body: Body, message: str) -> list[str]:
    """The flags behind the fields of `body` that a refusal names."""
    words = set(re.findall(r"\w+", message))
    named = [field for field in body if field in words and field not in _OURS]
    return sorted({f"--{_FLAGS.get(field, field).replace('_', '-')}" for field in named})


def encode(body: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8. Raises `UsageError` for half characters (lone surrogates), which no server takes."""
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the request is not valid Unicode: it holds {error.object[error.start]!a}",
            hint="give text in UTF-8",
        ) from error


def _chat(request: ChatRequest) -> Body:
    body: Body = {"messages": [{"role": each.role, "content": each.content} for each in request.messages]}
    if request.continues_last:
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    if request.reasons is not None:
        # The name that nearly all templates give the switch; vLLM, SGLang and llama.cpp pass it on to them.
        body["chat_template_kwargs"] = {"enable_thinking": request.reasons}
    return body


def _completion(request: CompletionRequest) -> Body:
    prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
    # Left out, it means 16 here: null asks for what the context holds.
    return {"prompt": prompt, "max_tokens": None}


def _chosen(params: SamplingParams) -> Body:
    neutral = SamplingParams()
    chosen: Body = {}
    for key in ALL_KEYS:
        value = getattr(params, key)
        is_said = key in params.given or value != getattr(neutral, key)
        if is_said and value is not None and value != ():
            chosen[key] = list(value) if isinstance(value, tuple) else value
    if "logit_bias" in chosen:
        chosen["logit_bias"] = dict(params.logit_bias)
    if "max_new_tokens" in chosen:
        chosen["max_tokens"] = chosen.pop("max_new_tokens")
    return chosen


def _with_chat_logprobs(chosen: Body) -> Body:
    if "logprobs" not in chosen:
        return chosen
    return chosen | {"logprobs": True, "top_logprobs": chosen["logprobs"]}
