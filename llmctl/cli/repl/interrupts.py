"""Ctrl-C: it stops what goes on, and never the talk. At every moment somebody is there to take it."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


class Interrupts:
    """Who takes Ctrl-C now: the work in progress, a line being read, or the work that comes next."""

    def __init__(self) -> None:
        self.is_pending = False
        """Whether it was pressed when nobody took it: the next work does, unless a line is read before."""
        self._take: Callable[[], Any] | None = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """asyncio's own handler would end the whole loop."""
        before = signal.signal(signal.SIGINT, self._pressed)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def stopping(self, task: "asyncio.Task[None]") -> Iterator[None]:
        """Ctrl-C cancels `task`."""
        loop = asyncio.get_running_loop()
        with self._taken_by(lambda: loop.call_soon_threadsafe(task.cancel)):
            yield

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Ctrl-C is a `KeyboardInterrupt`, for code that blocks."""
        with self._taken_by(_raise):
            yield

    @contextlib.contextmanager
    def ignored(self) -> Iterator[None]:
        """Ctrl-C is for another program, such as an editor."""
        with self._taken_by(_ignore):
            yield

    @contextlib.contextmanager
    def _taken_by(self, take: Callable[[], Any]) -> Iterator[None]:
        before, self._take = self._take, take
        if self.is_pending:
            self.is_pending = False
            take()
        try:
            yield
        finally:
            self._take, self.is_pending = before, False

    def _pressed(self, _number: int, _frame: FrameType | None) -> None:
        if self._take is None:
            self.is_pending = True
        else:
            self._take()


def _raise() -> None:
    raise KeyboardInterrupt


def _ignore() -> None:
    """Nobody here minds."""
