"""Sampling parameters of a body, laid over the model's own; what is wrong is said of the client's names."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmctl.core.errors import UsageError
from llmctl.core.sampling import update
from llmctl.core.types import SamplingParams
from llmctl.services.openai import complaints
from llmctl.services.openai.complaints import complaint
from llmctl.services.openai.requests import (
    MAX_BAD_WORDS,
    MAX_STOP_CHARACTERS,
    MAX_STOPS,
    ChatRequestBody,
    CompletionBody,
    GenerationBody,
)

_NAMES = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "logit_bias", "n", "seed", "stop", "stop_token_ids", "bad_words"),
    *("allowed_token_ids", "min_tokens", "ignore_eos", "prompt_logprobs"),
)
"""Of a body and of core alike."""
_LIMIT, _NEW_LIMIT, _OWN_LIMIT = "max_tokens", "max_completion_tokens", "max_new_tokens"
_OWN_NAMES = {_LIMIT: _OWN_LIMIT, _NEW_LIMIT: _OWN_LIMIT, "top_logprobs": "logprobs"}
_NEUTRAL = SamplingParams()
_SEEDS = 2**63


def of_chat(body: ChatRequestBody, default: SamplingParams) -> SamplingParams:
    """Raises `ParameterError`."""
    given = _given(body)
    if body.logprobs:
        given["top_logprobs"] = body.top_logprobs or 0
    elif body.top_logprobs is not None:
        raise complaint("needs logprobs to be true", param="top_logprobs")
    limits = {name: value for name in (_NEW_LIMIT, _LIMIT) if (value := getattr(body, name)) is not None}
    for name, value in limits.items():
        _updated(_NEUTRAL, {name: value})
    given |= dict([*limits.items()][:1])
    return _checked(_updated(default, given))


def of_completion(body: CompletionBody, default: SamplingParams, *, max_tokens: Any) -> SamplingParams:
    """As `of_chat`; `max_tokens`: None for as many as the context holds."""
    given = _given(body) | {"logprobs": body.logprobs, _LIMIT: max_tokens}
    if body.echo and body.logprobs is not None:
        # The echo has log-probabilities too.
        _updated(_NEUTRAL, {"logprobs": body.logprobs})
        _updated(_NEUTRAL, {"prompt_logprobs": body.prompt_logprobs})
        given["prompt_logprobs"] = max(body.logprobs, body.prompt_logprobs or 0)
    return _checked(_updated(replace(default, max_new_tokens=None), given))


def _given(body: GenerationBody) -> dict[str, Any]:
    given = {name: getattr(body, name) for name in _NAMES}
    # Other servers write "all" so.
    if given["top_k"] == -1:
        given["top_k"] = 0
    seed = given["seed"]
    if isinstance(seed, int) and -_SEEDS <= seed < 0:
        given["seed"] = seed % _SEEDS
    if body.stream and body.prompt_logprobs is not None:
        raise complaint("is not to be had in a stream", param="prompt_logprobs", hint="set stream to false")
    return given


def _updated(base: SamplingParams, given: Mapping[str, Any]) -> SamplingParams:
    """`base` with what the client gave by its own names."""
    own = {_OWN_NAMES.get(name, name): value for name, value in given.items()}
    try:
        return update(base, own)
    except UsageError:
        for name, value in given.items():
            with complaints.named({_OWN_NAMES.get(name, name): name}, param=name):
                update(_NEUTRAL, {_OWN_NAMES.get(name, name): value})
        # Each is right, and together they are not.
        limit = next((name for name in (_NEW_LIMIT, _LIMIT) if name in given), _LIMIT)
        with complaints.named({_OWN_LIMIT: limit}, param="min_tokens"):
            return update(base, own)


def _checked(params: SamplingParams) -> SamplingParams:
    """Each of these costs time at every token."""
    for name, words, count in (
        ("stop", params.stop, MAX_STOPS),
        ("bad_words", params.bad_words, MAX_BAD_WORDS),
    ):
        if len(words) > count:
            raise complaint(f"must hold at most {count} strings, not {len(words)}", param=name)
        longest = max(map(len, words), default=0)
        if longest > MAX_STOP_CHARACTERS:
            told = f"must have at most {MAX_STOP_CHARACTERS} characters each, not {longest}"
            raise complaint(told, param=name)
    return params
