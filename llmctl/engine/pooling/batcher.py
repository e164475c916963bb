"""Puts the requests of many asyncio callers together: one thread runs the model, a batch after another.

A batch begins with the request whose turn it is, and takes in what others have of like length; so a caller
with one text does not wait for one with a thousand. Who is cancelled is dropped at the next batch.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from llmctl.core.errors import LlmctlError, UsageError
from llmctl.engine.pooling.inputs import Input, Item, Pair
from llmctl.engine.pooling.model import Embedded, PooledModel, Scores

log = logging.getLogger(__name__)

T = TypeVar("T")

_WINDOW = 4
"""Batches' worth of tokens among which those of like length are looked for."""


@dataclass(slots=True, eq=False)
class _Request:
    """One call on its way."""

    items: list[Item]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Tensor]
    pending: deque[int] = field(default_factory=deque)
    """Indices of items that are in no batch yet, the longest first."""
    rows: dict[int, Tensor] = field(default_factory=dict)
    """Results, by index."""
    is_left: bool = False
    """Whether nobody waits any more."""


_Place = tuple[_Request, int]


class PoolingBatcher:
    """Runs a `PooledModel` for many callers; the model is released when the batcher is closed."""

    def __init__(self, model: PooledModel) -> None:
        self.model = model
        self._encoding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmctl-inputs")
        self._running = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmctl-pooling")
        self._lock = threading.Lock()
        self._requests: deque[_Request] = deque()
        """Those with pending items, by whose turn is next."""
        self._open: set[_Request] = set()
        self._is_busy = self._is_closed = False

    @property
    def num_waiting(self) -> int:
        """Items that are in no batch yet."""
        with self._lock:
            return sum(len(request.pending) for request in self._requests)

    async def embed(
        self,
        inputs: Sequence[Input],
        *,
        dimensions: int | None = None,
        normalises: bool | None = None,
        prompt: str | None = None,
    ) -> Embedded:
        """See `PooledModel.embed`; the others' requests go on when this one is refused or cancelled."""
        self.model.check_embed(dimensions)
        items = await self._encoded(lambda: self.model.inputs.items(inputs, prompt=prompt))
        rows = await self._computed(items)
        return self.model.embedded(rows, items, dimensions=dimensions, normalises=normalises)

    async def score(self, pairs: Sequence[Pair]) -> Scores:
        """See `PooledModel.score`."""
        self.model.check_score()
        items = await self._encoded(lambda: self.model.inputs.pairs(pairs))
        return self.model.scored(await self._computed(items), items)

    async def tokenized(self, work: Callable[[Any], T]) -> T:
        """What `work` makes with the tokenizer, of which one thread at a time may make use."""
        return await self._encoded(lambda: work(self.model.loaded.tokenizer))

    async def close(self) -> None:
        """Let the batch in progress end and take no more; who still waits is told. May be called twice."""
        with self._lock:
            self._is_closed = True
            self._requests.clear()
            left, self._open = self._open, set()
        self._tell(left, _closed())
        for thread in (self._encoding, self._running):
            # In another thread: a batch may take long, and the loop has others to serve.
            await asyncio.to_thread(thread.shutdown, wait=True)
        self.model.release()

    async def _encoded(self, encode: Callable[[], T]) -> T:
        if self._is_closed:
            raise _closed()
        return await asyncio.get_running_loop().run_in_executor(self._encoding, encode)

    async def _computed(self, items: list[Item]) -> Tensor:
        """float32 [n, d] of the items."""
        loop = asyncio.get_running_loop()
        request = _Request(items, loop, loop.create_future())
        request.pending.extend(sorted(range(len(items)), key=lambda index: -len(items[index])))
        with self._lock:
            if self._is_closed:
                raise _closed()
            self._requests.append(request)
            self._open.add(request)
        self._start()
        try:
            return await request.future
        finally:
            request.is_left = True

    # In any thread

    def _start(self) -> None:
        """Begin the next batch, unless one is running."""
        with self._lock:
            if self._is_busy or self._is_closed:
                return
            batch = self._next()
            if not batch:
                return
            self._is_busy = True
            items = [request.items[index] for request, index in batch]
            running = self._running.submit(self.model.compute, items)
        running.add_done_callback(lambda done: self._end(batch, done))

    def _next(self) -> list[_Place]:
        """The places of the next batch, taken out of their requests; with the lock."""
        left = [request for request in self._requests if request.is_left]
        self._requests = deque(request for request in self._requests if not request.is_left)
        self._open.difference_update(left)
        window = self._window()
        if not window:
            return []
        batches = self.model.plan([len(request.items[index]) for request, index in window])
        # The first of the window is whose turn it is.
        batch = [window[place] for place in next(each for each in batches if 0 in each)]
        taken: dict[_Request, set[int]] = {}
        for request, index in batch:
            taken.setdefault(request, set()).add(index)
        for request, indices in taken.items():
            request.pending = deque(index for index in request.pending if index not in indices)
        self._requests.rotate(-1)
        self._requests = deque(request for request in self._requests if request.pending)
        return batch

    def _window(self) -> list[_Place]:
        """What may come into the next batch: an item of each request in turn, up to a number of tokens."""
        found: list[_Place] = []
        room = _WINDOW * self.model.budget
        turns = deque((request, iter(tuple(request.pending))) for request in self._requests)
        while turns and room > 0:
            request, indices = turns.popleft()
            index = next(indices, None)
            if index is not None:
                found.append((request, index))
                room -= len(request.items[index])
                turns.append((request, indices))
        return found

    def _end(self, batch: list[_Place], done: Future[Tensor]) -> None:
        error = done.exception()
        requests = list(dict.fromkeys(request for request, _ in batch))
        with self._lock:
            self._is_busy = False
            if error is None:
                for (request, index), row in zip(batch, done.result(), strict=True):
                    request.rows[index] = row
                ended = [each for each in requests if len(each.rows) == len(each.items)]
            else:
                ended = requests
                self._requests = deque(each for each in self._requests if each not in requests)
            ended = [each for each in ended if each in self._open]
            self._open.difference_update(ended)
        self._tell(ended, None if error is None else _told(error))
        self._start()

    def _tell(self, requests: Sequence[_Request] | set[_Request], error: LlmctlError | None) -> None:
        for request in requests:
            try:
                request.loop.call_soon_threadsafe(_settle, request, error)
            except RuntimeError:
                # That loop has ended, and with it whoever waited.
                request.is_left = True


def _settle(request: _Request, error: LlmctlError | None) -> None:
    """In the loop of the request."""
    if request.future.done():
        return
    if error is not None:
        request.future.set_exception(error)
    else:
        request.future.set_result(torch.stack([request.rows[index] for index in range(len(request.items))]))


def _closed() -> LlmctlError:
    return UsageError("the model was closed", hint="load it anew")


def _told(error: BaseException) -> LlmctlError:
    if isinstance(error, LlmctlError):
        return error
    log.debug("a batch failed", exc_info=error)
    return LlmctlError(
        f"the model failed: {type(error).__name__}: {error}", hint="-vv shows where it happened"
    )
