"""The one seam: whoever wants text talks to a `Backend`, whoever makes text implements it.

The local engine, the HTTP client of any OpenAI-compatible server, external providers and the test fake stand
below it; chat, worker, gateway, bench and eval stand above it.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from llmctl.core.types import Delta, GenerationRequest, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a client may ask of the model behind a backend."""

    name: str
    context_length: int | None
    """Prompt and answer together, in tokens; None where a server does not tell."""
    default_sampling: SamplingParams
    """What the model's makers recommend; fields that they leave open hold llmctl's defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy a backend of this process is."""

    num_running: int = 0
    num_waiting: int = 0
    max_running: int = 1
    kv_used: float = 0.0
    """Share of the memory for keys and values that is in use, 0 to 1."""
    tokens_per_s: float = 0.0
    """Generated, of all requests together, over the last seconds."""
    num_prompt_tokens: int = 0
    """Computed since it was opened, as are the following."""
    num_generated_tokens: int = 0
    num_preemptions: int = 0
    num_prefix_queries: int = 0
    """Tokens of prompts that were looked up in the prefix cache."""
    num_prefix_hits: int = 0
    """Those of them that lay there."""


class Backend(Protocol):
    """Makes text from requests.

    `generate` may be called again while an earlier stream still runs; a backend that cannot work on both
    at once lets the second wait. The caller owns the generator: closing or cancelling it stops the work and
    frees what it held. The last delta, and only that, carries `finish`.
    """

    @property
    def info(self) -> ModelInfo:
        """The model behind this backend."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Stream the answer.

        Raises `UsageError` for a request that this model cannot take, `ContextOverflowError` when the
        prompt leaves no room for an answer, both before the first delta.
        """
        ...

    async def close(self) -> None:
        """Free the model; a closed backend takes no more requests. May be called twice."""
        ...
