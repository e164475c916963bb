"""The REPL without a terminal: lines from a list, answers from a script, the log of the test's own home."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.cli.chat.conversation import Conversation
from llmctl.cli.chat.opening import Opening
from llmctl.cli.console import Console
from llmctl.cli.repl.repl import Repl
from llmctl.cli.repl.view import Look
from llmctl.core.errors import LlmctlError, NotFoundError, UsageError
from llmctl.core.progress import Progress
from llmctl.core.settings import Settings
from llmctl.sessions.store import SessionLog
from tests.fake import FakeBackend


@dataclass
class FakeTerminal:
    """`cli.repl.terminal.Terminal` over lists."""

    lines: list[str] = field(default_factory=list)
    choices: list[str | None] = field(default_factory=list)
    is_blocking: bool = False
    edited: Callable[[str], str] = str.upper
    drafts: list[str] = field(default_factory=list)
    asked: list[Mapping[str, str]] = field(default_factory=list)

    async def read(self, *, draft: str = "") -> str | None:
        self.drafts.append(draft)
        await asyncio.sleep(0)
        return self.lines.pop(0) if self.lines else None

    async def choose(self, question: str, choices: Mapping[str, str]) -> str | None:
        self.asked.append(choices)
        return self.choices.pop(0)

    async def edit(self, text: str) -> str:
        return self.edited(text)

    def hushed(self) -> AbstractContextManager[None]:
        return nullcontext()

    def whole(self) -> AbstractContextManager[None]:
        return nullcontext()

    def refresh(self) -> None:
        pass

    def above(self, show: Callable[[], None]) -> None:
        show()

    def end_read(self) -> bool:
        return False


@dataclass
class FakeOpener:
    """Hands out one backend; `failures` are raised first, one an attempt."""

    backend_to_open: FakeBackend
    opening: Opening
    failures: list[LlmctlError] = field(default_factory=list)
    backend: FakeBackend | None = None

    @property
    def identity(self) -> str:
        return self.backend.name if self.backend is not None else self.backend_to_open.name

    def open_now(self, runner: asyncio.Runner, progress: Progress) -> FakeBackend:
        return runner.run(self.open(progress))

    async def open(self, progress: Progress) -> FakeBackend:
        progress.stage("open the fake")
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        self.backend = self.backend_to_open
        return self.backend

    def reconfigure(self, opening: Opening) -> None:
        if opening.template is not None:
            raise UsageError("the server renders the prompts: its template cannot be changed from here")
        self.opening = opening

    async def switch(self, model: str, progress: Progress) -> FakeBackend:
        if model == "nosuch":
            raise NotFoundError("no such model: nosuch")
        assert self.backend is not None
        self.backend = replace(self.backend, name=model)
        return self.backend


@dataclass(frozen=True)
class Talked:
    """What a session left behind."""

    code: int
    out: str
    err: str
    repl: Repl
    terminal: FakeTerminal
    backend: FakeBackend

    def said(self, request: int = -1) -> list[tuple[str, str]]:
        """Role and content of the messages of one request."""
        found: Any = self.backend.requests[request]
        return [(message.role, message.content) for message in found.messages]

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Role and content of the conversation as it stands."""
        return [(turn.message.role, turn.message.content) for turn in self.repl.conversation.turns]


Talk = Callable[..., Talked]


@pytest.fixture
def log_path() -> Path:
    return Path(os.environ["LLMCTL_DATA_HOME"]) / "log.db"


@pytest.fixture
def log(log_path: Path) -> Iterator[SessionLog]:
    with contextlib.closing(SessionLog.open(log_path)) as opened:
        yield opened


@pytest.fixture
def talk(capsys: pytest.CaptureFixture[str], log: SessionLog) -> Talk:
    """Hold a session of some lines against a scripted backend."""

    def run(
        *lines: str,
        backend: FakeBackend | None = None,
        settings: Settings | None = None,
        choices: Sequence[str | None] = (),
        conversation: Conversation | None = None,
        look: Look | None = None,
        failures: Sequence[LlmctlError] = (),
        prepare: Callable[[Repl, FakeTerminal], None] | None = None,
    ) -> Talked:
        backend = backend or FakeBackend()
        terminal = FakeTerminal(lines=list(lines), choices=list(choices))
        opening = Opening(settings=settings or Settings())
        opener = FakeOpener(backend, opening, failures=list(failures))
        repl = Repl(
            Console(),
            opener,
            conversation or Conversation(log),
            look or Look(style="simple", reasoning="show"),
        )
        repl.terminal = terminal
        if prepare is not None:
            prepare(repl, terminal)
        capsys.readouterr()
        code = asyncio.run(repl.run())
        out, err = capsys.readouterr()
        return Talked(code, out, err, repl, terminal, opener.backend or backend)

    return run
