"""The local model as a `Backend`: renders and checks a request, generates in a thread, streams deltas."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

from llmctl.core.backend import ModelInfo
from llmctl.core.errors import ContextOverflowError, DoesNotFitError, UsageError
from llmctl.core.types import ChatRequest, Delta, GenerationRequest
from llmctl.engine.generate import single
from llmctl.loading import devices
from llmctl.loading.loader import LoadedModel
from llmctl.prompts.render import render
from llmctl.prompts.template import ChatTemplate, choose


class LocalBackend:
    """One loaded model; `core.backend.Backend`.

    All of torch runs in one thread: streams that are open together take turns, a token each.
    """

    def __init__(self, loaded: LoadedModel, *, template: ChatTemplate | None = None) -> None:
        """`template` replaces the tokenizer's own."""
        self._loaded = loaded
        self._template = template
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmctl-engine")

    @property
    def info(self) -> ModelInfo:
        """Name, context and recommended sampling of the loaded model."""
        loaded = self._loaded
        return ModelInfo(
            name=loaded.name,
            context_length=loaded.context_length,
            default_sampling=loaded.default_sampling,
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """See `Backend.generate`."""
        loop = asyncio.get_running_loop()
        job = await loop.run_in_executor(self._thread, self._job, request)
        deltas = single.generate(self._loaded.model, self._loaded.tokenizer, job)
        try:
            while (delta := await loop.run_in_executor(self._thread, _next, deltas)) is not None:
                yield delta
        finally:
            self._end(deltas)

    async def close(self) -> None:
        """Let the step in progress end and take no more."""
        # In another thread: a step may take long, and the loop has others to serve.
        await asyncio.to_thread(self._thread.shutdown, wait=True)

    def _end(self, deltas: Generator[Delta, None, None]) -> None:
        """Close `deltas` behind the step that may still run, in the same thread."""
        try:
            self._thread.submit(deltas.close)
        except RuntimeError:
            # The backend was closed meanwhile: nothing runs any more.
            deltas.close()

    def _job(self, request: GenerationRequest) -> single.Job:
        prompt_ids = self._prompt_ids(request)
        room = self._loaded.context_length - len(prompt_ids)
        if room < 1:
            raise ContextOverflowError(
                f"the prompt has {len(prompt_ids)} tokens, the context of {self._loaded.name} "
                f"holds {self._loaded.context_length} with the answer",
                hint="shorten the prompt or the conversation, or take a model with a longer context",
            )
        sampling = request.sampling
        return single.Job(
            prompt_ids=prompt_ids,
            sampling=sampling,
            end_ids=self._loaded.end_ids | frozenset(self._checked(sampling.stop_token_ids)),
            max_new_tokens=min(sampling.max_new_tokens or room, room),
            is_continuation=not isinstance(request, ChatRequest),
        )

    def _prompt_ids(self, request: GenerationRequest) -> tuple[int, ...]:
        tokenizer = self._loaded.tokenizer
        if isinstance(request, ChatRequest):
            # The template writes the special tokens itself: adding them again would double BOS.
            ids = tokenizer.encode(_unicode(self._rendered(request)), add_special_tokens=False)
        elif isinstance(request.prompt, str):
            ids = tokenizer.encode(_unicode(request.prompt))
        else:
            ids = list(request.prompt)
        if not ids:
            raise UsageError("the prompt is empty: this model needs at least one token to go on from")
        return self._checked(tuple(ids))

    def _rendered(self, request: ChatRequest) -> str:
        tokenizer = self._loaded.tokenizer
        chosen = choose(self._template, tokenizer.chat_template, model=self._loaded.name)
        return render(chosen, request.messages, special_tokens=tokenizer.special_tokens_map)

    def _checked(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        size = self._loaded.vocabulary_size
        if bad := [token_id for token_id in ids if not 0 <= token_id < size]:
            raise UsageError(
                f"token id {bad[0]} is outside the vocabulary of {self._loaded.name} (0 to {size - 1})"
            )
        return ids


def _unicode(text: str) -> str:
    """Refuse half characters (lone surrogates), which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the prompt is not valid Unicode: {text[error.start]!a} at character {error.start}",
            hint="give text in UTF-8",
        ) from error
    return text


def _next(deltas: Iterator[Delta]) -> Delta | None:
    try:
        return next(deltas, None)
    except RuntimeError as error:
        reason = devices.out_of_memory(error)
        if reason is None:
            raise
        raise DoesNotFitError(
            f"memory ran out while generating: {reason}", hint="shorten the prompt or free memory"
        ) from error
