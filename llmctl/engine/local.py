"""The local model as a `Backend`: renders and checks a request, has it generated, streams deltas."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from llmctl.core.backend import Load, ModelInfo
from llmctl.core.errors import ContextOverflowError, LlmctlError, UsageError
from llmctl.core.reasoning import OPEN, ReasoningSplitter
from llmctl.core.types import ChatRequest, Delta, GenerationRequest, Message, SamplingParams
from llmctl.engine.generate.choose import stream_function
from llmctl.engine.generate.job import BLOCK_LENGTH, Job
from llmctl.engine.loop import EngineLoop, closed_error
from llmctl.engine.opening import DEFAULT_OPTIONS, EngineOptions, open_engine
from llmctl.engine.sampling.words import spellings
from llmctl.engine.serial import Stepwise
from llmctl.loading.loader import LoadedModel
from llmctl.prompts.prompt import Prompt, compose
from llmctl.prompts.render import Inputs
from llmctl.prompts.template import ChatTemplate, RowTemplate, choose

log = logging.getLogger(__name__)

T = TypeVar("T")


class LocalBackend:
    """One loaded model; `core.backend.Backend`.

    Requests are made ready in one thread and computed in another, so that who writes waits for no prompt's
    tokens.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        template: ChatTemplate | None = None,
        context_length: int | None = None,
        row: RowTemplate | None = None,
        options: EngineOptions = DEFAULT_OPTIONS,
    ) -> None:
        """`template` replaces the tokenizer's own; `context_length` is a limit below the model's own.

        `row` is what the row of the model's family says of its template.
        Raises `UsageError` for a limit above the model's, and what `open_engine` raises.
        """
        self._loaded = loaded
        self._row = row
        self._options = options
        self._told: set[str] = set()
        self._context_length = 0
        self._worker: EngineLoop | Stepwise | None = None
        self._is_closed = False
        self.reconfigure(template=template, context_length=context_length)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmctl-prompts")

    @property
    def info(self) -> ModelInfo:
        """Name, context and recommended sampling of the loaded model."""
        loaded = self._loaded
        return ModelInfo(
            name=loaded.name,
            context_length=self._context_length,
            default_sampling=loaded.default_sampling,
        )

    @property
    def load(self) -> Load:
        """How busy it is; may be read from any thread."""
        assert self._worker is not None
        return self._worker.load

    @property
    def longest_context(self) -> int:
        """What the model itself can take, in tokens."""
        return self._loaded.context_length

    def reconfigure(self, *, template: ChatTemplate | None, context_length: int | None) -> None:
        """Take another template and context limit for the requests to come; as in the constructor."""
        own = self._loaded.context_length
        if context_length is not None and context_length < 1:
            raise UsageError(f"context {context_length}: it must be at least 1 token")
        if context_length is not None and context_length > own:
            raise UsageError(
                f"context {context_length}: {self._loaded.name} takes at most {own} tokens",
                hint="give less, or take a model with a longer context",
            )
        self._template = template
        self._resize(context_length or own)

    def _resize(self, length: int) -> None:
        """Open for contexts of another length; where that fails it stays as it was."""
        before = self._context_length
        if length == before:
            return
        if self._worker is not None:
            self._worker.close()
        try:
            self._worker = self._opened(length)
        except LlmctlError:
            if before:
                self._worker = self._opened(before)
            raise
        self._context_length = length

    def _opened(self, length: int) -> EngineLoop | Stepwise:
        loaded = self._loaded
        if loaded.generates != "causal":
            return Stepwise(loaded, stream_function(loaded.generates))
        return EngineLoop(open_engine(loaded, replace(self._options, context_length=length)))

    def prompt(self, messages: tuple[Message, ...], *, continues_last: bool = False) -> str:
        """The text that the model is prompted with; raises what `generate` raises over it."""
        return self._compose(ChatRequest(messages=messages, continues_last=continues_last)).text

    def _compose(self, request: ChatRequest, *, opens_answer: bool = True) -> Prompt:
        tokenizer = self._loaded.tokenizer
        chosen = choose(self._template, self._row, tokenizer.chat_template, model=self._loaded.name)
        special_tokens = tokenizer.special_tokens_map
        prompt = compose(
            chosen,
            request.messages,
            special_tokens=special_tokens,
            continues_last=request.continues_last,
            opens_answer=opens_answer,
            inputs=Inputs(reasoning=request.reasons, variables=request.template_kwargs),
        )
        self._tell_once(logging.INFO, f"template: {chosen.reason}")
        notes = prompt.notes
        if chosen.source == "row" and self._row is not None and self._row.note:
            notes = (f"{self._loaded.name}, as {self._row.family}: {self._row.note}", *notes)
        for note in notes:
            self._tell_once(logging.WARNING, note)
        return prompt

    def _tell_once(self, level: int, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.log(level, "%s", text)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """See `Backend.generate`."""
        if self._is_closed:
            raise closed_error()
        loop = asyncio.get_running_loop()
        job, splitters = await loop.run_in_executor(self._thread, self._job, request)
        assert self._worker is not None
        async with contextlib.aclosing(self._worker.stream(job)) as deltas:
            async for delta in deltas:
                yield _split(delta, splitters[delta.index]) if splitters else delta

    async def token_ids(self, request: GenerationRequest, *, opens_answer: bool = True) -> tuple[int, ...]:
        """The prompt as `generate` gives it to the model; raises what it raises over the prompt.

        Without `opens_answer` what a chat template writes before the answer is left out.
        """

        def ids() -> tuple[int, ...]:
            if not isinstance(request, ChatRequest):
                return self._prompt_ids(request, None)
            return self._prompt_ids(request, self._compose(request, opens_answer=opens_answer))

        return await asyncio.get_running_loop().run_in_executor(self._thread, ids)

    async def tokenized(self, work: Callable[[Any], T]) -> T:
        """What `work` makes with the tokenizer, of which one thread at a time may make use."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, work, self._loaded.tokenizer)

    async def close(self) -> None:
        """Let the step in progress end and take no more."""
        self._is_closed = True
        # In other threads: a step may take long, and the loop has others to serve.
        await asyncio.to_thread(self._thread.shutdown, wait=True)
        if self._worker is not None:
            await asyncio.to_thread(self._worker.close)

    def _job(self, request: GenerationRequest) -> tuple[Job, list[ReasoningSplitter]]:
        """What to generate, and what tells reasoning from each answer where there is a chat."""
        prompt, splitters = None, []
        if isinstance(request, ChatRequest):
            if request.continues_last and self._loaded.generates == "encoder-decoder":
                raise UsageError(
                    f"{self._loaded.name} cannot go on inside an answer: it reads and writes apart",
                    hint="ask anew, with what is to be continued in the prompt",
                )
            prompt = self._compose(request)
            # Some templates open the block themselves, and what comes first is reasoning.
            is_open = _opens_reasoning(prompt.text)
            if not request.continues_last:
                splitters = [ReasoningSplitter(is_open=is_open) for _ in range(request.sampling.n)]
        prompt_ids = self._prompt_ids(request, prompt)
        room = self._room(len(prompt_ids))
        sampling = self._with_stops(request.sampling, prompt)
        job = Job(
            prompt_ids=prompt_ids,
            sampling=sampling,
            end_ids=self._end_ids(sampling),
            bad_words=spellings(self._loaded.tokenizer, sampling.bad_words),
            max_new_tokens=min(sampling.max_new_tokens or room, room),
            is_continuation=not isinstance(request, ChatRequest) or request.continues_last,
            # The lower number goes first where requests come from, as in vLLM.
            priority=-request.priority,
            block_length=self._loaded.block_length or BLOCK_LENGTH,
        )
        return job, splitters

    def _end_ids(self, sampling: SamplingParams) -> frozenset[int]:
        own = frozenset[int]() if sampling.ignore_eos else self._loaded.end_ids
        return own | frozenset(self._checked(sampling.stop_token_ids))

    def _with_stops(self, sampling: SamplingParams, prompt: Prompt | None) -> SamplingParams:
        """What was asked for, and what ends an answer in the template's own format."""
        if prompt is None or sampling.ignore_eos:
            return sampling
        row = self._row or RowTemplate(name="")
        ids = (*prompt.stop_token_ids, *row.stop_token_ids)
        known = tuple(one for one in ids if one < self._loaded.vocabulary_size)
        if stops := [*map(repr, (*prompt.stop, *row.stop)), *map(str, known)]:
            self._tell_once(logging.INFO, f"the answer also ends at {', '.join(stops)} (template and family)")
        return replace(
            sampling,
            stop=(*sampling.stop, *prompt.stop, *row.stop),
            stop_token_ids=(*sampling.stop_token_ids, *known),
        )

    def _room(self, num_prompt_ids: int) -> int:
        """Most tokens of the answer, at least 1."""
        limit, answer_length = self._context_length, self._loaded.answer_length
        if answer_length is None:
            room = limit - num_prompt_ids
        else:
            room = min(answer_length, limit) if num_prompt_ids <= limit else 0
        if room >= 1:
            return room
        with_answer = " with the answer" if answer_length is None else ""
        raise ContextOverflowError(
            f"the prompt has {num_prompt_ids} tokens, the context of {self._loaded.name} "
            f"holds {limit}{with_answer}",
            hint="shorten the prompt or the conversation, or take a model with a longer context",
            prompt_tokens=num_prompt_ids,
            context_length=limit,
        )

    def _prompt_ids(self, request: GenerationRequest, prompt: Prompt | None) -> tuple[int, ...]:
        tokenizer = self._loaded.tokenizer
        if isinstance(request, ChatRequest):
            assert prompt is not None
            # Where the template writes the special tokens itself, adding them again would double BOS.
            ids = tokenizer.encode(_unicode(prompt.text), add_special_tokens=prompt.needs_special_tokens)
            # But for an encoder's end of text: templates of such models are from elsewhere.
            if self._loaded.generates == "encoder-decoder" and tokenizer.eos_token_id not in ids[-1:]:
                ids = tokenizer.encode(prompt.text)
        elif isinstance(request.prompt, str):
            ids = tokenizer.encode(_unicode(request.prompt), add_special_tokens=request.adds_special_tokens)
        else:
            ids = list(request.prompt)
        if not ids:
            raise UsageError("the prompt is empty: this model needs at least one token to go on from")
        return self._checked(tuple(ids))

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


def _opens_reasoning(prompt: str) -> bool:
    return prompt.rstrip().endswith(OPEN)


def _split(delta: Delta, splitter: ReasoningSplitter) -> Delta:
    parts = splitter.push(delta.text)
    if delta.finish is None:
        return replace(delta, text=parts.text, reasoning=parts.reasoning)
    rest = splitter.finish()
    return replace(delta, text=parts.text + rest.text, reasoning=parts.reasoning + rest.reasoning)
