"""A model without weights: a character is a token, and an answer is what the script says."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from llmctl.core.backend import Load, ModelInfo
from llmctl.core.errors import LlmctlError
from llmctl.core.types import (
    CompletionRequest,
    Delta,
    Finish,
    GenerationRequest,
    SamplingParams,
    Timings,
    Usage,
)
from llmctl.services.worker.hosted import CHAT, COMPLETIONS, EMBEDDINGS, Hosted, Vectors

TIMINGS = Timings(first_token_s=0.0, total_s=0.0)


def finish(num_tokens: int) -> Finish:
    """The end of an answer of so many tokens."""
    return Finish(reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=num_tokens), timings=TIMINGS)


@dataclass
class FakeText:
    """Says "abc", a letter at a time; a prompt that begins with `!` fails, with `~` it never ends."""

    error: LlmctlError = field(default_factory=lambda: LlmctlError("it failed"))
    requests: list[GenerationRequest] = field(default_factory=list)
    num_open: int = 0
    most_open: int = 0
    is_closed: bool = False

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(name="fake", context_length=100, default_sampling=SamplingParams())

    @property
    def load(self) -> Load:
        return Load(num_running=self.num_open, max_running=8)

    async def token_ids(self, request: GenerationRequest, *, opens_answer: bool = True) -> tuple[int, ...]:
        return tuple(map(ord, _prompt(request)))

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            await asyncio.sleep(0.01)
            if _prompt(request).startswith("!"):
                raise self.error
            for letter in "abc":
                for index in range(request.sampling.n):
                    yield Delta(text=letter, token_ids=(ord(letter),), index=index)
                await asyncio.sleep(0)
            if _prompt(request).startswith("~"):
                await asyncio.Event().wait()
            for index in range(request.sampling.n):
                yield Delta(finish=finish(3), index=index)
        finally:
            self.num_open -= 1

    async def close(self) -> None:
        self.is_closed = True


class FakeTokens:
    """A character is a token."""

    async def encode(self, text: str, *, adds_special_tokens: bool) -> tuple[int, ...]:
        return tuple(map(ord, text))

    async def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    async def names(self, ids: Sequence[int]) -> list[str]:
        return [f"<{chr(each)}>" for each in ids]


class FakeVectors:
    """The vector of a text is its length, twice."""

    load = Load()

    async def embed(self, inputs: Sequence[str | Sequence[int]], *, dimensions: int | None = None) -> Vectors:
        return Vectors(rows=[[float(len(each))] * (dimensions or 2) for each in inputs], num_tokens=7)

    async def close(self) -> None:
        pass


def hosted(text: FakeText | None = None, *, name: str = "fake", aliases: tuple[str, ...] = ()) -> Hosted:
    """A model that writes."""
    return Hosted(
        name=name,
        aliases=aliases,
        context_length=100,
        capabilities=(CHAT, COMPLETIONS),
        tokens=FakeTokens(),
        text=text or FakeText(),
    )


def hosted_vectors(name: str = "vectors") -> Hosted:
    """A model that gives vectors."""
    return Hosted(
        name=name,
        context_length=50,
        capabilities=(EMBEDDINGS,),
        tokens=FakeTokens(),
        vectors=FakeVectors(),
    )


def _prompt(request: GenerationRequest) -> str:
    if not isinstance(request, CompletionRequest):
        return request.messages[-1].content
    return request.prompt if isinstance(request.prompt, str) else "".join(map(chr, request.prompt))
