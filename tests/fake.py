"""A backend without a model, for tests of those who stand above the seam."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from llmctl.core.backend import ModelInfo
from llmctl.core.errors import ContextOverflowError, LlmctlError
from llmctl.core.types import (
    ChatRequest,
    Delta,
    Finish,
    FinishReason,
    GenerationRequest,
    SamplingParams,
    Timings,
    Usage,
)


@dataclass
class Says:
    """One scripted answer: pieces of text, then an end or an error."""

    text: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    error: LlmctlError | None = None
    hangs: bool = False
    """Whether nothing more comes after the text, until somebody gives up."""
    reason: FinishReason = "stop"


@dataclass
class FakeBackend:
    """Answers from a script, and with an echo of the last message when the script has ended.

    A character counts as a token; a prompt longer than `context_length` overflows.
    """

    script: list[Says] = field(default_factory=list)
    context_length: int | None = None
    name: str = "fake"
    requests: list[GenerationRequest] = field(default_factory=list)
    is_closed: bool = False
    num_running: int = 0

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            name=self.name,
            context_length=self.context_length,
            default_sampling=SamplingParams(temperature=0.7),
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        assert isinstance(request, ChatRequest)
        num_prompt = sum(len(message.content) for message in request.messages)
        if self.context_length is not None and num_prompt >= self.context_length:
            raise ContextOverflowError(
                f"the prompt has {num_prompt} tokens of {self.context_length}",
                prompt_tokens=num_prompt,
                context_length=self.context_length,
            )
        says = self.script.pop(0) if self.script else Says(text=("echo: ", request.messages[-1].content))
        self.num_running += 1
        try:
            for piece in says.reasoning:
                yield Delta(reasoning=piece)
                await asyncio.sleep(0)
            for piece in says.text:
                yield Delta(text=piece, token_ids=(1,))
                await asyncio.sleep(0)
            if says.hangs:
                await asyncio.sleep(3600)
            if says.error is not None:
                raise says.error
        finally:
            self.num_running -= 1
        usage = Usage(prompt_tokens=num_prompt, completion_tokens=len(says.text))
        yield Delta(
            finish=Finish(reason=says.reason, usage=usage, timings=Timings(first_token_s=0.5, total_s=1.5))
        )

    async def close(self) -> None:
        self.is_closed = True
