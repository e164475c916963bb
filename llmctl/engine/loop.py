"""Runs an engine in a thread of its own; requests come from any asyncio loop and get their deltas there.

Only that thread touches the engine. What others want of it lies in a queue that is read between two steps.
"""

import asyncio
import logging
import queue
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass

from llmctl.core.backend import Load
from llmctl.core.errors import LlmctlError, UsageError
from llmctl.core.types import Delta
from llmctl.engine.engine import Engine, Event, Request
from llmctl.engine.generate.job import Job

log = logging.getLogger(__name__)

_Item = Delta | LlmctlError


@dataclass(slots=True, eq=False)
class _Stream:
    """A request on its way, as its asyncio loop sees it."""

    loop: asyncio.AbstractEventLoop
    items: asyncio.Queue[_Item]
    request: Request | None = None
    """Set in the engine's thread."""
    is_left: bool = False
    """Whether nobody listens any more."""


class EngineLoop:
    """See `Backend.generate`; the engine is released when the loop is closed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._streams: dict[Request, _Stream] = {}
        self._is_closed = False
        self._end = closed_error()
        """What those are told whose answers are open when the thread ends."""
        self._thread = threading.Thread(target=self._run, name="llmctl-engine", daemon=True)
        self._thread.start()

    @property
    def load(self) -> Load:
        """How busy the engine is."""
        return self.engine.load

    async def stream(self, job: Job) -> AsyncGenerator[Delta, None]:
        """The deltas of `job`; closing the generator cancels it. Raises what `Engine.add` raises."""
        if self._is_closed:
            raise self._end
        stream = _Stream(asyncio.get_running_loop(), asyncio.Queue())
        self._commands.put(lambda: self._add(stream, job))
        if self._is_closed:
            # Nobody may read the queue any more.
            raise self._end
        num_open = job.sampling.n
        try:
            while num_open:
                item = await stream.items.get()
                if isinstance(item, LlmctlError):
                    raise item
                num_open -= item.finish is not None
                yield item
        finally:
            if num_open:
                self._commands.put(lambda: self._leave(stream))

    def close(self) -> None:
        """Let the step in progress end and take no more; blocks until then. May be called twice."""
        self._is_closed = True
        self._commands.put(None)
        self._thread.join()

    # In the engine's thread

    def _run(self) -> None:
        try:
            while self._obey():
                if self.engine.has_work:
                    self._deliver(self.engine.step())
        except Exception as error:
            log.debug("the engine stopped", exc_info=True)
            self._end = _fault(error, "the engine stopped")
        finally:
            self._is_closed = True
            self.engine.release()
            self._post([(stream, self._end) for stream in self._streams.values()])
            self._streams.clear()
            while not self._commands.empty():
                if (command := self._commands.get()) is not None:
                    command()

    def _obey(self) -> bool:
        """Carry out what lies in the queue, waiting where there is nothing else to do; False: end."""
        while True:
            try:
                command = self._commands.get(block=not self.engine.has_work)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()

    def _add(self, stream: _Stream, job: Job) -> None:
        if stream.is_left:
            return
        if self._is_closed:
            self._post([(stream, self._end)])
            return
        try:
            stream.request = self.engine.add(job)
        except LlmctlError as error:
            self._post([(stream, error)])
        except Exception as error:
            log.debug("a request was not taken", exc_info=True)
            self._post([(stream, _fault(error, "the request was not taken"))])
        else:
            self._streams[stream.request] = stream

    def _leave(self, stream: _Stream) -> None:
        stream.is_left = True
        if stream.request is not None and self._streams.pop(stream.request, None) is not None:
            self.engine.cancel(stream.request)

    def _deliver(self, events: Iterable[Event]) -> None:
        items = []
        for event in events:
            if (stream := self._streams.get(event.request)) is not None:
                items.append((stream, event.item))
                if event.is_last:
                    del self._streams[event.request]
        self._post(items)

    def _post(self, items: Iterable[tuple[_Stream, _Item]]) -> None:
        """Hand items over, with one call for each asyncio loop."""
        by_loop = defaultdict(list)
        for stream, item in items:
            by_loop[stream.loop].append((stream, item))
        for loop, batch in by_loop.items():
            try:
                loop.call_soon_threadsafe(_put, batch)
            except RuntimeError:
                # That loop has ended, and with it whoever listened.
                for stream, _ in batch:
                    self._leave(stream)


def closed_error() -> LlmctlError:
    """What those are told who ask a model, or wait for its answer, when it is closed."""
    return UsageError("the model was closed", hint="load it anew")


def _fault(error: Exception, what: str) -> LlmctlError:
    hint = "this is a fault of llmctl; -v -v shows where"
    return LlmctlError(f"{what}: {type(error).__name__}: {error}", hint=hint)


def _put(batch: Iterable[tuple[_Stream, _Item]]) -> None:
    for stream, item in batch:
        stream.items.put_nowait(item)
