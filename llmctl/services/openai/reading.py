"""Bodies, as JSON gives them, into calls. Whatever comes, the result is a call or a `ParameterError`."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError

from llmctl.core.types import ChatRequest, CompletionRequest, SamplingParams
from llmctl.services.openai import complaints, conversation, parameters
from llmctl.services.openai.body import Body, is_unicode, shown
from llmctl.services.openai.calls import (
    ChatCall,
    CompletionCall,
    Delivery,
    DetokenizeCall,
    EmbeddingCall,
    TokenCheckCall,
    TokenizeCall,
)
from llmctl.services.openai.complaints import complaint
from llmctl.services.openai.requests import (
    MAX_INPUTS,
    ChatRequestBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    GenerationBody,
    TokenCheckBody,
    TokenizeBody,
)

P = ParamSpec("P")
T = TypeVar("T")
B = TypeVar("B", bound=Body)
Json = Mapping[str, Any]
_Prompt = str | tuple[int, ...]


def _refuses_depth(read: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except RecursionError as error:
            raise complaint("is nested too deeply", param="body") from error

    return guarded


@_refuses_depth
def chat_request(body: Json, default: SamplingParams) -> ChatCall:
    """Of `POST /v1/chat/completions`; `default` is what the model samples by."""
    read = _read(ChatRequestBody, body)
    if read.add_generation_prompt is False and not read.continue_final_message:
        raise complaint("can be false only with continue_final_message", param="add_generation_prompt")
    told = conversation.template_kwargs(read)
    request = ChatRequest(
        messages=conversation.messages(read.messages),
        sampling=parameters.of_chat(read, default),
        continues_last=conversation.continues_last(read, read.messages),
        reasons=conversation.reasons(told, read.reasoning_effort),
        template_kwargs=told
        if read.reasoning_effort is None
        else {"reasoning_effort": read.reasoning_effort, **told},
        priority=read.priority,
    )
    return ChatCall(model=read.model, request=request, delivery=_delivery(read))


@_refuses_depth
def completion_calls(body: Json, default: SamplingParams) -> CompletionCall:
    """Of `POST /v1/completions`."""
    read = _read(CompletionBody, body)
    # Left out it is 16, null is no limit.
    asked = None if body.get("max_tokens", 16) is None else read.max_tokens
    is_prompt_only = not isinstance(asked, bool) and asked == 0
    if is_prompt_only and read.min_tokens:
        raise complaint(f"must be at most 0 (max_tokens), not {shown(read.min_tokens)}", param="min_tokens")
    sampling = parameters.of_completion(read, default, max_tokens=1 if is_prompt_only else asked)
    if read.best_of is not None and read.best_of != sampling.n:
        raise complaint(
            f"must be n ({sampling.n}), not {shown(read.best_of)}",
            param="best_of",
            hint="ask for n and choose",
        )
    prompts = _inputs(read.prompt, "prompt")
    if len(prompts) * sampling.n > MAX_INPUTS:
        raise complaint(f"makes {len(prompts)} x {sampling.n} answers: at most {MAX_INPUTS}", param="n")
    requests = tuple(
        CompletionRequest(
            prompt=each,
            sampling=sampling,
            adds_special_tokens=read.add_special_tokens,
            priority=read.priority,
        )
        for each in prompts
    )
    return CompletionCall(
        model=read.model,
        requests=requests,
        delivery=_delivery(read),
        echoes=read.echo,
        logprobs=sampling.logprobs,
        # It may be 2.0 in the body.
        prompt_logprobs=None if read.prompt_logprobs is None else int(read.prompt_logprobs),
        is_prompt_only=is_prompt_only,
    )


@_refuses_depth
def embedding_call(body: Json) -> EmbeddingCall:
    """Of `POST /v1/embeddings`."""
    read = _read(EmbeddingBody, body)
    return EmbeddingCall(
        model=read.model,
        inputs=_inputs(read.input, "input"),
        dimensions=read.dimensions,
        is_base64=read.encoding_format == "base64",
    )


@_refuses_depth
def tokenize_call(body: Json) -> TokenizeCall:
    """Of `POST /tokenize`."""
    read = _read(TokenizeBody, body)
    if (read.prompt is None) == (read.messages is None):
        raise complaint("or messages must be given, and not both", param="prompt")
    if read.messages is None:
        return _tokenize_text(read)
    if read.add_special_tokens:
        raise complaint(
            "must be false of messages: the chat template writes them", param="add_special_tokens"
        )
    told = conversation.template_kwargs(read)
    continues = conversation.continues_last(read, read.messages)
    return TokenizeCall(
        model=read.model,
        messages=conversation.messages(read.messages),
        opens_answer=not continues and read.add_generation_prompt is not False,
        continues_last=continues,
        reasons=conversation.reasons(told, None),
        template_kwargs=told,
        tells_tokens=read.return_token_strs,
    )


@_refuses_depth
def detokenize_call(body: Json) -> DetokenizeCall:
    """Of `POST /detokenize`."""
    read = _read(DetokenizeBody, body)
    if not isinstance(read.tokens, list):
        raise complaint(f"must be a list of token ids, not {shown(read.tokens)}", param="tokens")
    return DetokenizeCall(model=read.model, ids=_ids(read.tokens, "tokens"))


@_refuses_depth
def token_checks(body: Json) -> tuple[TokenCheckCall, ...]:
    """Of FastChat's `POST /api/v1/token_check`."""
    read = _read(TokenCheckBody, body)
    return tuple(
        TokenCheckCall(model=each.model, prompt=each.prompt, max_tokens=each.max_tokens)
        for each in read.prompts
    )


def _read(kind: type[B], body: Json) -> B:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise complaints.of_validation(error, body) from error


def _delivery(read: GenerationBody) -> Delivery:
    options = read.stream_options
    if options is None:
        return Delivery(streams=read.stream)
    if not read.stream:
        raise complaint(
            "is only for streams", param="stream_options", hint="leave it out, or set stream to true"
        )
    return Delivery(
        streams=True, includes_usage=options.include_usage, counts_usage=options.continuous_usage_stats
    )


def _tokenize_text(read: TokenizeBody) -> TokenizeCall:
    for name in ("add_generation_prompt", "continue_final_message", "chat_template_kwargs"):
        if getattr(read, name):
            raise complaint("is only for messages", param=name)
    return TokenizeCall(
        model=read.model,
        text=read.prompt,
        adds_special_tokens=read.add_special_tokens is not False,
        tells_tokens=read.return_token_strs,
    )


def _inputs(given: Any, param: str) -> tuple[_Prompt, ...]:
    """One or many of texts or lists of token ids."""
    if isinstance(given, str):
        return (_unicode(given, param),)
    if not isinstance(given, list) or not given:
        raise _wrong(given, param)
    if type(given[0]) is int:
        return (_ids(given, param),)
    if len(given) > MAX_INPUTS:
        raise complaint(f"must hold at most {MAX_INPUTS}, not {len(given)}", param=param)
    return tuple(_input(each, f"{param}[{place}]", type(given[0])) for place, each in enumerate(given))


def _input(given: Any, param: str, kind: type) -> _Prompt:
    if isinstance(given, str) and kind is str:
        return _unicode(given, param)
    if isinstance(given, list) and kind is list and given:
        return _ids(given, param)
    raise _wrong(given, param)


def _ids(given: list[Any], param: str) -> tuple[int, ...]:
    for place, each in enumerate(given):
        if type(each) is not int or each < 0:
            told = f"must be a token id (a whole number from 0), not {shown(each)}"
            raise complaint(told, param=f"{param}[{place}]")
    return tuple(given)


def _wrong(given: Any, param: str) -> Exception:
    return complaint(
        f"is {shown(given)}",
        param=param,
        hint="give a text, a list of texts, a list of token ids, or a list of such",
    )


def _unicode(text: str, param: str) -> str:
    if not is_unicode(text):
        raise complaints.half_character(param)
    return text
