"""What travels through the seam of `core.backend`: requests down, deltas up. Plain frozen data, no behaviour.

Counts are in tokens, times in seconds, log-probabilities in nats.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled"]
Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text between the images of a message."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image: an http, https or data URL, or a path."""

    source: str


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    """Its text; of a message with `parts` all their text."""
    parts: tuple[Part, ...] = ()
    """Text and images in their order; empty where there is text alone."""
    fields: Mapping[str, object] = field(default_factory=dict, hash=False, repr=False)
    """What else a template reads of a turn, by its name there: `tool_calls`, `reasoning_content`, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen. The defaults are greedy-neutral: every filter off, temperature 1.

    Applied in this order: repetition, presence and frequency penalty; bias; what must not come; temperature;
    min-p; top-k; top-p.
    """

    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0
    """Smallest set of tokens whose probability reaches this, in (0, 1]."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Drop tokens less likely than this share of the likeliest, in [0, 1]."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of every token of prompt and answer, > 0."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of each token of the answer, in [-2, 2]."""
    frequency_penalty: float = 0.0
    """Subtracted per occurrence in the answer, in [-2, 2]."""
    seed: int | None = None
    """The same seed, request and model give the same answer; None draws one."""
    max_new_tokens: int | None = None
    """None: as many as the context holds."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these strings, which is never shown."""
    stop_token_ids: tuple[int, ...] = ()
    """Beside the model's own end tokens."""
    logprobs: int | None = None
    """None: no log-probabilities; n: those of the chosen token and of the n likeliest, in [0, 20]."""
    n: int = 1
    """Answers to the same prompt. With a seed, answer number i is what seed + i gives."""
    prompt_logprobs: int | None = None
    """As `logprobs`, of the prompt's tokens from the second on."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, what is added to its logit, in [-100, 100]), each id once, in order."""
    bad_words: tuple[str, ...] = ()
    """Words that the answer does not spell in the tokens that the tokenizer has for them."""
    min_tokens: int = 0
    """No end token comes before so many others; a stop string may."""
    ignore_eos: bool = False
    """Whether the answer goes on after the model's own end tokens; `stop_token_ids` end it still."""
    allowed_token_ids: tuple[int, ...] | None = None
    """None: all; else the answer is made of these alone."""
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """The fields that somebody chose. A server is sent these even where they are neutral: what is left out,
    it fills with its own defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """Messages that the backend renders with the model's own template."""

    messages: tuple[Message, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    continues_last: bool = False
    """Whether to go on with the last message, the assistant's own, instead of answering it."""
    reasons: bool | None = None
    """Whether the model is to reason before it answers; None leaves that to its template."""
    template_kwargs: Mapping[str, object] = field(default_factory=dict, hash=False)
    """What else the template reads, by its own names; they win over all else."""
    priority: int = 0
    """Lower ones have their turn first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """Text that the model continues, or token ids that are taken as they are."""

    prompt: str | tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    adds_special_tokens: bool = True
    """Whether text gets the tokenizer's own (BOS and the like)."""
    priority: int = 0
    """Lower ones have their turn first."""


GenerationRequest = ChatRequest | CompletionRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A token that could stand in a place, with its log-probability under the raw model."""

    token_id: int
    token: str
    """Its text by itself; U+FFFD where it is only a part of a character."""
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A generated token and the likeliest ones in its place, likeliest first."""

    chosen: Candidate
    top: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Exact token counts; the end token counts as generated, a token behind a stop string does too."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """What of the context they take."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Wall-clock seconds of one request inside the backend."""

    first_token_s: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Carried by the last delta of a stream and by no other."""

    reason: FinishReason
    usage: Usage | None
    """None when a server does not tell."""
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of an answer. `text` never holds half a character, a special token or part of a stop string."""

    text: str = ""
    reasoning: str = ""
    """What the model says to itself before it answers; never in `text`."""
    token_ids: tuple[int, ...] = ()
    """Tokens generated since the last delta; their text may come later."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of `token_ids`, when asked for."""
    index: int = 0
    """Which of the `n` answers this is a piece of."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """Of the prompt's tokens from the second on, when asked for; in the first delta."""
    finish: Finish | None = None
