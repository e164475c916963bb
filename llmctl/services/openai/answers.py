"""What a server answers, as types: for the description that it publishes, and for tests of what it sends."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Object(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Usage(_Object):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Candidate(_Object):
    """A token that could stand in a place."""

    token: str
    logprob: float
    bytes: list[int] | None
    """null of a part of a character."""


class ChatTokenLogprob(Candidate):
    """A token of an answer, and the likeliest ones in its place."""

    top_logprobs: list[Candidate]


class ChatLogprobs(_Object):
    """Log-probabilities of the tokens of an answer."""

    content: list[ChatTokenLogprob] | None
    refusal: None


class RankedToken(_Object):
    """A token in a place of a prompt."""

    logprob: float
    rank: int | None
    """1 for the likeliest; null where it is not among those that were asked for."""
    decoded_token: str


PromptLogprobs = list[dict[str, RankedToken] | None]
FinishReason = Literal["stop", "length"]


class AnswerMessage(_Object):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None
    reasoning_content: str | None = None
    """What a model says to itself before it answers."""


class ChatChoice(_Object):
    """One of `n` answers."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class _Answer(_Object):
    id: str
    created: int
    """Seconds since 1970."""
    model: str
    system_fingerprint: str


class ChatCompletion(_Answer):
    """A whole answer."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage | None
    prompt_logprobs: PromptLogprobs | None = None


class ChatDelta(_Object):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None


class ChatChunkChoice(_Object):
    """A piece of one of `n` answers."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(_Answer):
    """An event of a stream."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    """Empty in the last chunk, which tells usage."""
    usage: Usage | None = None


class LegacyLogprobs(_Object):
    """Parallel lists, one item a token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(_Object):
    """One of `n` continuations of a prompt, or a piece of one."""

    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: FinishReason | None
    prompt_logprobs: PromptLogprobs | None = None


class Completion(_Answer):
    """A whole answer, or an event of a stream."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: Usage | None = None


class Embedding(_Object):
    """The vector of an input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Text is base64 of little-endian float32."""


class EmbeddingUsage(_Object):
    """Counts of tokens."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(_Object):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class Model(BaseModel):
    """A model that is served."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None = None
    """Prompt and answer together, in tokens."""


class Models(_Object):
    """All models that are served."""

    object: Literal["list"]
    data: list[Model]


class Tokens(_Object):
    """The tokens of a text."""

    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(_Object):
    """The text of some tokens."""

    prompt: str


class TokenChecked(_Object):
    """Whether a text and the answer to it fit into the context."""

    fits: bool
    tokenCount: int  # noqa: N815  # as FastChat has it
    contextLength: int | None  # noqa: N815  # as FastChat has it


class TokensChecked(_Object):
    """In the order of what was asked."""

    prompts: list[TokenChecked]


class Version(_Object):
    """Which program answers."""

    version: str


class Health(BaseModel):
    """How a server is."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    status: str


class ErrorDetail(_Object):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    """The field that is wrong."""
    code: str | None


class Error(_Object):
    """Of every answer that is none."""

    error: ErrorDetail
