"""Bodies of the requests that a server takes: chat, completions, embeddings and the tokenizer's.

Sampling parameters are `Any` here: `core.sampling` holds their types and ranges, and says what is wrong.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from llmctl.core.sampling import BIAS, RANGES, REQUEST_RANGES, Range
from llmctl.services.openai import refused
from llmctl.services.openai.body import Body, Text
from llmctl.services.openai.messages import Messages

MAX_INPUTS = 2048
"""Texts of one request, and answers to one."""
MAX_STOPS, MAX_STOP_CHARACTERS = 64, 1000
MAX_BAD_WORDS = 1024

_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_STRING = {"type": "string", "minLength": 1}
_TEXT_OR_IDS = [
    {"type": "string"},
    {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_INPUTS},
    {**_IDS, "minItems": 1},
    {"type": "array", "items": {**_IDS, "minItems": 1}, "minItems": 1, "maxItems": MAX_INPUTS},
]


def _ranged(limits: Range, **changes: object) -> WithJsonSchema:
    """The description of a number within these limits, or null."""
    number: dict[str, object] = {"type": "integer" if limits.kind is int else "number"}
    number["exclusiveMinimum" if limits.open_low else "minimum"] = limits.kind(limits.low)
    if limits.high < float("inf"):
        number["maximum"] = limits.kind(limits.high)
    return _optional(number | changes)


def _optional(*schemas: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [*schemas, {"type": "null"}]})


def _texts(count: int, length: int) -> WithJsonSchema:
    text = {**_STRING, "maxLength": length}
    return _optional(text, {"type": "array", "items": text, "maxItems": count})


_BIASES = _optional(
    {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]+$"},
        "additionalProperties": {"type": "number", "minimum": BIAS.low, "maximum": BIAS.high},
    }
)
_LIMIT = _ranged(RANGES["max_new_tokens"])


class StreamOptions(Body):
    """What a stream tells beside text."""

    refused = refused.STREAM_OPTIONS

    include_usage: bool = False
    """A last chunk with the counts of tokens."""
    continuous_usage_stats: bool = False
    """The counts so far in each chunk."""


class GenerationBody(Body):
    """What chat and completions have in common."""

    model: str
    """One of `/v1/models`."""
    stream: bool = False
    """Whether the answer comes piece by piece, as server-sent events."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""

    temperature: Annotated[Any, _ranged(RANGES["temperature"])] = None
    """0 is greedy."""
    top_p: Annotated[Any, _ranged(RANGES["top_p"])] = None
    top_k: Annotated[Any, _ranged(RANGES["top_k"], minimum=-1)] = None
    """0 and -1 keep all tokens."""
    min_p: Annotated[Any, _ranged(RANGES["min_p"])] = None
    repetition_penalty: Annotated[Any, _ranged(RANGES["repetition_penalty"])] = None
    presence_penalty: Annotated[Any, _ranged(RANGES["presence_penalty"])] = None
    frequency_penalty: Annotated[Any, _ranged(RANGES["frequency_penalty"])] = None
    logit_bias: Annotated[Any, _BIASES] = None
    """Token id: what is added to its logit."""
    n: Annotated[Any, _ranged(REQUEST_RANGES["n"])] = None
    seed: Annotated[Any, _ranged(RANGES["seed"], minimum=-(2**63))] = None
    stop: Annotated[Any, _texts(MAX_STOPS, MAX_STOP_CHARACTERS)] = None
    stop_token_ids: Annotated[Any, _optional(_IDS)] = None
    bad_words: Annotated[Any, _texts(MAX_BAD_WORDS, MAX_STOP_CHARACTERS)] = None
    allowed_token_ids: Annotated[Any, _optional({**_IDS, "minItems": 1})] = None
    min_tokens: Annotated[Any, _ranged(REQUEST_RANGES["min_tokens"])] = None
    ignore_eos: Annotated[Any, _optional({"type": "boolean"})] = None
    prompt_logprobs: Annotated[Any, _ranged(REQUEST_RANGES["prompt_logprobs"])] = None
    """Of the prompt's tokens; not in a stream."""
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] = 0
    """Lower ones have their turn first."""

    user: str | None = None
    """For the client's own notes, as are the following."""
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    """Prefixes are found by their content."""


class ChatTemplateBody(Body):
    """What tells how messages become a prompt."""

    add_generation_prompt: bool | None = None
    """False only with `continue_final_message`."""
    continue_final_message: bool = False
    """Whether to go on with the last message, the assistant's own, instead of answering it."""
    chat_template_kwargs: dict[str, Any] | None = None
    """What the chat template reads beside messages, such as `enable_thinking`."""


class ChatRequestBody(GenerationBody, ChatTemplateBody):
    """Of `POST /v1/chat/completions`."""

    refused = refused.CHAT

    messages: Messages
    max_tokens: Annotated[Any, _LIMIT] = None
    max_completion_tokens: Annotated[Any, _LIMIT] = None
    """A newer name of `max_tokens`, which it wins over."""
    logprobs: bool = False
    top_logprobs: Annotated[Any, _ranged(RANGES["logprobs"])] = None
    """Only with `logprobs`."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """For models whose template has a switch for reasoning."""


class CompletionBody(GenerationBody):
    """Of `POST /v1/completions`."""

    refused = refused.COMPLETION

    prompt: Annotated[Any, WithJsonSchema({"anyOf": _TEXT_OR_IDS})]
    """Texts or token ids; several are answered alike, `n` choices for each."""
    max_tokens: Annotated[Any, _ranged(RANGES["max_new_tokens"], minimum=0)] = 16
    """null: as many as the context holds."""
    logprobs: Annotated[Any, _ranged(RANGES["logprobs"])] = None
    echo: bool = False
    """Whether each text begins with its prompt."""
    best_of: Annotated[Any, _ranged(REQUEST_RANGES["n"])] = None
    """Only as much as `n`."""
    add_special_tokens: bool = True
    """Whether text gets the tokenizer's own, BOS and the like."""


class EmbeddingBody(Body):
    """Of `POST /v1/embeddings`."""

    refused = refused.EMBEDDING

    model: str
    input: Annotated[Any, WithJsonSchema({"anyOf": _TEXT_OR_IDS})]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Fewer than the model has, where it was trained for that."""
    user: str | None = None


class TokenizeBody(ChatTemplateBody):
    """Of `POST /tokenize`: a text, or messages that are rendered first."""

    refused = refused.TOKENIZE

    model: str | None = None
    """May be left out where one model is served."""
    prompt: Text | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    """Of a text: true unless said otherwise. Messages have what their template writes."""
    return_token_strs: bool = False


class DetokenizeBody(Body):
    """Of `POST /detokenize`."""

    model: str | None = None
    tokens: Annotated[Any, WithJsonSchema(_IDS)]


class TokenCheck(Body):
    """A text, and how long an answer to it is to be."""

    model: str
    prompt: Text
    max_tokens: Annotated[int, Field(ge=0)] = 0


class TokenCheckBody(Body):
    """Of FastChat's `POST /api/v1/token_check`."""

    prompts: Annotated[list[TokenCheck], Field(fail_fast=True, max_length=MAX_INPUTS)]
