"""Makes what a worker serves of loaded models. The one module of the services that knows the engine."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from llmctl.core import sampling
from llmctl.core.backend import Load, ModelInfo
from llmctl.core.errors import BusyError, UsageError
from llmctl.core.types import Delta, GenerationRequest
from llmctl.engine.local import LocalBackend
from llmctl.engine.opening import EngineOptions
from llmctl.engine.pace import Pace
from llmctl.engine.pooling.batcher import PoolingBatcher
from llmctl.engine.pooling.model import PooledModel
from llmctl.loading import devices
from llmctl.loading.loader import LoadedModel
from llmctl.prompts.template import ChatTemplate, RowTemplate, choose
from llmctl.services.worker.hosted import CHAT, COMPLETIONS, EMBEDDINGS, SCORE, Hosted, Vectors

_SHARE_OF_FREE = 0.8
"""Of the memory that all weights leave, for the keys and values of all models."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A loaded model that writes, and what the user said of it."""

    names: tuple[str, ...]
    """Its own first."""
    loaded: LoadedModel
    template: ChatTemplate | None = None
    row: RowTemplate | None = None
    context_length: int | None = None
    """A limit below the model's own."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """What holds where a request says nothing, over the model's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """A loaded model that gives vectors or scores."""

    names: tuple[str, ...]
    """Its own first."""
    model: PooledModel


def host(models: Sequence[Writer | Pooled], options: EngineOptions) -> list[Hosted]:
    """Serve loaded models, in order; those that write share what memory is left on their device.

    Raises what `LocalBackend` raises.
    """
    share = _shares([one for one in models if isinstance(one, Writer)], options)
    return [
        _pooled(one, options)
        if isinstance(one, Pooled)
        else _writer(one, replace(options, kv_bytes=share(one)))
        for one in models
    ]


def _pooled(one: Pooled, options: EngineOptions) -> Hosted:
    model, loaded = one.model, one.model.loaded
    pooling = _Pooling(PoolingBatcher(model), max_waiting=options.max_waiting)
    tokens = _Tokens(
        pooling.batcher.tokenized,
        name=one.names[0],
        vocabulary_size=loaded.vocabulary_size,
        lowers=loaded.recipe.lowers,
    )
    return Hosted(
        name=one.names[0],
        aliases=one.names[1:],
        context_length=loaded.max_tokens,
        capabilities=(EMBEDDINGS if model.task == "embed" else SCORE,),
        tokens=tokens,
        vectors=pooling,
    )


def _writer(one: Writer, options: EngineOptions) -> Hosted:
    # Errors call the model as its clients do.
    loaded = replace(one.loaded, name=one.names[0])
    backend = LocalBackend(
        loaded, template=one.template, context_length=one.context_length, row=one.row, options=options
    )
    tokens = _Tokens(backend.tokenized, name=loaded.name, vocabulary_size=loaded.vocabulary_size)
    # The engine counts who waits itself.
    is_batched = loaded.generates == "causal"
    return Hosted(
        name=one.names[0],
        aliases=one.names[1:],
        context_length=backend.info.context_length,
        capabilities=(CHAT, COMPLETIONS) if _has_template(one) else (COMPLETIONS,),
        tokens=tokens,
        text=backend if is_batched else _Queued(backend, max_waiting=options.max_waiting),
        default_sampling=sampling.update(backend.info.default_sampling, one.sampling),
    )


def _has_template(one: Writer) -> bool:
    try:
        choose(one.template, one.row, one.loaded.tokenizer.chat_template, model=one.loaded.name)
    except UsageError:
        return False
    return True


def _shares(writers: Sequence[Writer], options: EngineOptions) -> Callable[[Writer], int | None]:
    """Memory for the keys and values of each: the first engine would take all, and leave nothing to others.

    None lets an engine take what it finds.
    """
    if options.kv_bytes is not None or len(writers) < 2:
        return lambda _one: options.kv_bytes
    free = {place: each.free_bytes for each in devices.available() for place in (each.kind, each.place)}
    places = [_place(one) for one in writers]
    return lambda one: int(free[_place(one)] * _SHARE_OF_FREE / places.count(_place(one)))


def _place(one: Writer) -> str:
    device = one.loaded.model.device
    return str(device) if device.index is not None else str(device.type)


class _Queued:
    """A backend that takes one request after another, with a limit to those that wait."""

    def __init__(self, backend: LocalBackend, *, max_waiting: int | None) -> None:
        self._backend, self._max_waiting = backend, max_waiting
        self.token_ids = backend.token_ids
        self.close = backend.close

    @property
    def info(self) -> ModelInfo:
        return self._backend.info

    @property
    def load(self) -> Load:
        return self._backend.load

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        load = self.load
        _refuse_more(load.num_running + load.num_waiting, self._max_waiting)
        async with aclosing(self._backend.generate(request)) as deltas:
            async for delta in deltas:
                yield delta


class _Pooling:
    """See `hosted.VectorModel`."""

    def __init__(self, batcher: PoolingBatcher, *, max_waiting: int | None) -> None:
        self.batcher = batcher
        self._max_waiting = max_waiting
        self._pace = Pace()
        self._num_open = self._num_tokens = 0

    @property
    def load(self) -> Load:
        return Load(
            num_running=min(self._num_open, 1),
            num_waiting=max(self._num_open - 1, 0),
            tokens_per_s=self._pace.per_second,
            num_prompt_tokens=self._num_tokens,
        )

    async def embed(self, inputs: Sequence[str | Sequence[int]], *, dimensions: int | None = None) -> Vectors:
        _refuse_more(self._num_open, self._max_waiting)
        self._num_open += 1
        try:
            found = await self.batcher.embed(inputs, dimensions=dimensions)
        finally:
            self._num_open -= 1
        self._num_tokens += found.num_tokens
        self._pace.add(found.num_tokens)
        return Vectors(rows=found.vectors.tolist(), num_tokens=found.num_tokens)

    async def close(self) -> None:
        await self.batcher.close()


class _Tokenized(Protocol):
    """`LocalBackend.tokenized` and its like."""

    def __call__(self, work: Callable[[Any], T], /) -> Awaitable[T]: ...


class _Tokens:
    """See `hosted.Tokens`."""

    def __init__(
        self, tokenized: _Tokenized, *, name: str, vocabulary_size: int, lowers: bool = False
    ) -> None:
        self._tokenized = tokenized
        self._name, self._size, self._lowers = name, vocabulary_size, lowers

    async def encode(self, text: str, *, adds_special_tokens: bool) -> tuple[int, ...]:
        given = text.lower() if self._lowers else text
        ids = await self._tokenized(
            lambda tokenizer: tokenizer.encode(given, add_special_tokens=adds_special_tokens, verbose=False)
        )
        return tuple(ids)

    async def decode(self, ids: Sequence[int]) -> str:
        known = self._known(ids)
        return await self._tokenized(
            lambda tokenizer: str(tokenizer.decode(known, clean_up_tokenization_spaces=False))
        )

    async def names(self, ids: Sequence[int]) -> list[str]:
        known = self._known(ids)
        found: list[str | None] = await self._tokenized(
            lambda tokenizer: tokenizer.convert_ids_to_tokens(known)
        )
        # The vocabulary may be longer than what the tokenizer has names for.
        return [each or "" for each in found]

    def _known(self, ids: Sequence[int]) -> list[int]:
        if bad := [each for each in ids if not 0 <= each < self._size]:
            raise UsageError(
                f"token id {bad[0]} is outside the vocabulary of {self._name} (0 to {self._size - 1})"
            )
        return list(ids)


def _refuse_more(num_open: int, limit: int | None) -> None:
    """Raise `BusyError` where, of requests that run one at a time, `limit` wait."""
    if limit is not None and num_open > limit:
        raise BusyError(f"{limit} requests wait already, and no more may", hint="try again later")
