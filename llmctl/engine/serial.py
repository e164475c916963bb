"""Generates by a way of `generate.choose`, for models that the engine does not batch: see `Stepwise`."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor

from llmctl.core.backend import Load
from llmctl.core.errors import DoesNotFitError, UsageError
from llmctl.core.types import Delta
from llmctl.engine.generate.choose import Generate
from llmctl.engine.generate.job import Job
from llmctl.engine.loop import closed_error
from llmctl.engine.pace import Pace
from llmctl.loading import devices
from llmctl.loading.loader import LoadedModel


class Stepwise:
    """All of torch runs in one thread: streams that are open together take turns, a token each.

    The same to its callers as `loop.EngineLoop`.
    """

    def __init__(self, loaded: LoadedModel, generate: Generate) -> None:
        self._loaded, self._generate = loaded, generate
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmctl-generate")
        self._pace = Pace()
        self._num_open = self._num_generated = 0

    @property
    def load(self) -> Load:
        """How busy it is."""
        return Load(
            num_running=min(self._num_open, 1),
            num_waiting=max(self._num_open - 1, 0),
            tokens_per_s=self._pace.per_second,
            num_generated_tokens=self._num_generated,
        )

    async def stream(self, job: Job) -> AsyncGenerator[Delta, None]:
        """The deltas of `job`; closing the generator ends the work."""
        if job.sampling.n > 1 or job.sampling.prompt_logprobs is not None:
            what = "several answers (n)" if job.sampling.n > 1 else "log-probabilities of the prompt"
            raise UsageError(
                f"{self._loaded.name} cannot give {what}: it does not run on the batching engine",
                hint="ask once for each answer, without prompt_logprobs",
            )
        deltas = self._generate(self._loaded.model, self._loaded.tokenizer, job)
        self._num_open += 1
        try:
            while (delta := await self._next(deltas)) is not None:
                self._num_generated += len(delta.token_ids)
                self._pace.add(len(delta.token_ids))
                yield delta
        finally:
            self._num_open -= 1
            self._end(deltas)

    async def _next(self, deltas: Generator[Delta, None, None]) -> Delta | None:
        try:
            future = self._thread.submit(_next, deltas)
        except RuntimeError as error:
            # The thread takes no more.
            raise closed_error() from error
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the step in progress end and take no more; blocks until then."""
        self._thread.shutdown(wait=True)

    def _end(self, deltas: Generator[Delta, None, None]) -> None:
        """Close `deltas` behind the step that may still run, in the same thread."""
        try:
            self._thread.submit(deltas.close)
        except RuntimeError:
            # All was closed meanwhile: nothing runs any more.
            deltas.close()


def _next(deltas: Generator[Delta, None, None]) -> Delta | None:
    try:
        return next(deltas, None)
    except RuntimeError as error:
        reason = devices.out_of_memory(error)
        if reason is None:
            raise
        raise DoesNotFitError(
            f"memory ran out while generating: {reason}", hint="shorten the prompt or free memory"
        ) from error
