"""Runs requests on a model and makes answers of their deltas: one object, or the events of a stream.

All requests of a call run together in the engine; when nobody wants them any more, all of them end.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from llmctl.core.types import ChatRequest, CompletionRequest, Delta, GenerationRequest
from llmctl.services.http.metrics import ModelMetrics
from llmctl.services.openai.calls import Echo
from llmctl.services.openai.streaming import ChunkStream
from llmctl.services.worker.hosted import CHAT, COMPLETIONS, Hosted, TextModel

_Numbered = tuple[int, Delta]


class Run:
    """The requests of one call, which differ in their prompts alone, on a model."""

    def __init__(self, hosted: Hosted, requests: Sequence[GenerationRequest], metrics: ModelMetrics) -> None:
        """Raises `UsageError` where the model cannot do that."""
        is_chat = isinstance(requests[0], ChatRequest)
        self._model = hosted.writer(CHAT if is_chat else COMPLETIONS)
        self._requests = requests
        self._n = requests[0].sampling.n
        self._choices = [metrics.choice(hosted.name) for _ in range(self._n * len(requests))]

    async def num_prompt_tokens(self) -> int:
        """Of all prompts together."""
        return sum([len(await self._model.token_ids(each)) for each in self._requests])

    async def whole(
        self, push: Callable[[int, Delta], None], answer: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """What `answer` gives when `push` has got all deltas, each with the number of its request."""
        async with aclosing(self._deltas()) as deltas:
            async for number, delta in deltas:
                push(number, delta)
        return answer()

    async def events(self, stream: ChunkStream) -> AsyncGenerator[bytes, None]:
        """The answer as it comes; closing the generator ends the work."""
        async with aclosing(self._deltas()) as deltas:
            async for number, delta in deltas:
                if events := stream.push(delta, prompt=number):
                    yield events
        yield stream.end()

    async def _deltas(self) -> AsyncGenerator[_Numbered, None]:
        async with aclosing(deltas_of(self._model, self._requests)) as deltas:
            async for number, delta in deltas:
                choice = self._choices[number * self._n + delta.index]
                if delta.token_ids:
                    choice.token(len(delta.token_ids))
                yield number, delta
                if delta.finish is not None:
                    choice.finish(delta.finish.reason)


async def echoes(hosted: Hosted, requests: Sequence[CompletionRequest], *, is_told: bool) -> list[Echo]:
    """What the choices of each request repeat of its prompt; `is_told`: log-probabilities are wanted too."""
    return [await _echo(hosted, request, is_told=is_told) for request in requests]


async def deltas_of(
    model: TextModel, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[_Numbered, None]:
    """The deltas of all requests as they come, each with the number of its request.

    Raises what `generate` raises for the first of them that fails, which ends the others.
    """
    if len(requests) == 1:
        async with aclosing(model.generate(requests[0])) as deltas:
            async for delta in deltas:
                yield 0, delta
        return
    items: asyncio.Queue[tuple[int, Delta | None]] = asyncio.Queue()
    tasks = [
        asyncio.create_task(_forward(model.generate(request), number, items))
        for number, request in enumerate(requests)
    ]
    try:
        num_open = len(tasks)
        while num_open:
            number, item = await items.get()
            if item is not None:
                yield number, item
                continue
            num_open -= 1
            await tasks[number]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(
    generated: AsyncGenerator[Delta, None], number: int, items: asyncio.Queue[tuple[int, Delta | None]]
) -> None:
    """Hand over what comes, and then None; a failure is the task's."""
    try:
        async with aclosing(generated) as deltas:
            async for delta in deltas:
                items.put_nowait((number, delta))
    finally:
        items.put_nowait((number, None))


async def _echo(hosted: Hosted, request: CompletionRequest, *, is_told: bool) -> Echo:
    prompt = request.prompt
    ids: Sequence[int] = ()
    if not isinstance(prompt, str):
        ids = prompt
    elif is_told:
        ids = await hosted.tokens.encode(prompt, adds_special_tokens=request.adds_special_tokens)
    return Echo(
        text=prompt if isinstance(prompt, str) else await hosted.tokens.decode(prompt),
        first_token=await hosted.tokens.decode(ids[:1]) if is_told else "",
    )
