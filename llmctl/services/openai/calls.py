"""What is asked of a server, read and checked: requests of the seam, and how their answers are wanted."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmctl.core.types import ChatRequest, CompletionRequest, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How an answer is wanted."""

    streams: bool = False
    """Whether it comes piece by piece."""
    includes_usage: bool = False
    """Whether a last chunk of the stream tells the counts of tokens."""
    counts_usage: bool = False
    """Whether each chunk tells those so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCall:
    """A request for `n` answers to a conversation."""

    model: str
    """As the client names it."""
    request: ChatRequest
    delivery: Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionCall:
    """Requests for `n` continuations of each of some prompts; they differ in their prompts alone."""

    model: str
    requests: tuple[CompletionRequest, ...]
    """At least one."""
    delivery: Delivery
    echoes: bool = False
    """Whether each text begins with its prompt."""
    logprobs: int | None = None
    """As in `SamplingParams`: of the echo too."""
    prompt_logprobs: int | None = None
    """As in `SamplingParams`, where the client asks for them by this name."""
    is_prompt_only: bool = False
    """Whether no tokens are wanted: the one that the request asks for is dropped."""

    @property
    def n(self) -> int:
        """Choices for each prompt."""
        return self.requests[0].sampling.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """What a choice repeats of its prompt."""

    text: str
    first_token: str = ""
    """The prompt's first token, which no log-probability tells; needed where they are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """A request for a vector of each input."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    """At least one, texts or the token ids of texts."""
    dimensions: int | None = None
    is_base64: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeCall:
    """A request for the tokens of a text or of a conversation, one of which is there."""

    model: str | None
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    adds_special_tokens: bool = True
    """Of a text."""
    opens_answer: bool = True
    """Whether the prompt of a conversation is opened for the answer."""
    continues_last: bool = False
    reasons: bool | None = None
    template_kwargs: Mapping[str, object] = field(default_factory=dict, hash=False)
    tells_tokens: bool = False
    """Whether the tokens' spellings are wanted beside their ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetokenizeCall:
    """A request for the text of some token ids."""

    model: str | None
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCheckCall:
    """A question whether a text and an answer of `max_tokens` fit into the context of a model."""

    model: str
    prompt: str
    max_tokens: int
