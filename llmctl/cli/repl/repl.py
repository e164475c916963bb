"""The loop of the REPL: read a line, run the command or ask the model, until the user leaves."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Literal

from llmctl.cli.chat.answer import Answer, ask
from llmctl.cli.chat.conversation import Conversation
from llmctl.cli.chat.opening import Opener, params_for
from llmctl.cli.console import Console
from llmctl.cli.repl import overflow
from llmctl.cli.repl.interrupts import Interrupts
from llmctl.cli.repl.progress import Board
from llmctl.cli.repl.terminal import Terminal
from llmctl.cli.repl.view import AnswerView, Look
from llmctl.core import sampling
from llmctl.core.backend import Backend
from llmctl.core.errors import ContextOverflowError, LlmctlError
from llmctl.core.settings import REASONS, Settings
from llmctl.core.types import ChatRequest, Message

Mode = Literal["answer", "again", "continue"]
"""A new answer, another one in the place of the last, or more of the last."""


class Repl:
    """One user at one terminal; commands reach everything through it."""

    terminal: Terminal
    """Given before `run`: a terminal draws what the REPL tells of itself, so one of the two comes first."""

    def __init__(self, console: Console, opener: Opener, conversation: Conversation, look: Look) -> None:
        self.console = console
        self.opener = opener
        self.conversation = conversation
        self.look = look
        self.interrupts = Interrupts()
        self.board = Board(self._refresh)
        self.answers: list[Answer] = []
        """All that were given since the start, for /stats."""
        self.attachments: list[tuple[str, str]] = []
        """Files (path, text) that go with the next question."""
        self.is_overflow_told = False
        self.used_tokens: int | None = None if conversation.turns else 0
        """Tokens of the context in use after the last answer; None when nobody knows."""
        self._opening: asyncio.Task[Backend] | None = None
        self._is_awaited = False
        self._failure: LlmctlError | None = None
        self._has_left = False
        self._is_showing = False
        self._remarks: list[str] = []

    @property
    def settings(self) -> Settings:
        """What is set now."""
        return self.opener.opening.settings

    @property
    def model_name(self) -> str:
        """The model that answers, as far as it is known yet."""
        backend = self.opener.backend
        return backend.info.name if backend is not None else self.opener.opening.model or "the server's model"

    async def run(self) -> int:
        """Talk until the user leaves. Raises why a model does not load, when nothing was said yet."""
        from llmctl.cli.repl.commands.table import is_command, run_command

        self.open()
        if self.terminal.is_blocking and self._opening is not None:
            await asyncio.wait([self._opening])
        try:
            while not self._has_left and self._failure is None:
                text = await self.terminal.read()
                if text is None:
                    break
                if is_command(text):
                    await run_command(self, text)
                else:
                    await self.say(text)
        finally:
            await self._close()
        if self._failure is not None:
            raise self._failure
        return 0

    def tell(self, text: str) -> None:
        """A remark of the log: above the prompt, or behind the answer being shown; from any thread."""
        if self._is_showing:
            self._remarks.append(text)
        else:
            self.terminal.above(lambda: self.console.aside(text))

    def leave(self) -> None:
        """End the loop."""
        self._has_left = True

    def state(self) -> str:
        """The line below the prompt."""
        if self._opening is not None and not self._opening.done():
            return f"{self.board} (type already)"
        backend = self.opener.backend
        if backend is None:
            return f"{self.model_name}: not there; the next question tries again"
        limit = backend.info.context_length
        parts = [backend.info.name]
        if self.used_tokens is not None:
            parts.append(f"context {self.used_tokens}/{limit}" if limit else f"context {self.used_tokens}")
        parts += [f"{len(self.attachments)} attached"] if self.attachments else []
        return " · ".join(parts)

    def open(self) -> None:
        """Begin to open the backend; the user can go on typing."""
        self._failure = None
        self._opening = asyncio.ensure_future(self.opener.open(self.board))
        self._opening.add_done_callback(self._opened)

    async def ready(self) -> Backend:
        """The backend, as soon as it is open. Raises why it cannot be."""
        if self.opener.backend is not None:
            return self.opener.backend
        if self._opening is None or self._opening.done():
            self.open()
        assert self._opening is not None
        self._is_awaited = True
        try:
            # Whoever gives up waiting does not stop the loading.
            return await asyncio.shield(self._opening)
        finally:
            self._is_awaited = False

    async def say(self, text: str) -> None:
        """Ask a question and show the answer."""
        parts = [*(attached for _, attached in self.attachments), text]
        self.attachments.clear()
        self.conversation.unanswered = None
        self.conversation.add_question("\n\n".join(parts), model=self.opener.identity)
        await self.reply("answer")

    async def reply(self, mode: Mode, *, overrides: Mapping[str, Any] | None = None) -> None:
        """Have the model speak, show it, and keep what came of it, even of an answer that was cut short.

        `overrides` are sampling parameters for this one answer.
        """
        turns = self.conversation.turns
        self.is_overflow_told = False
        while True:
            answer, error = await self._attempt(mode, overrides or {})
            if not isinstance(error, ContextOverflowError) or not await overflow.make_room(self, error):
                break
        if error is not None and not self.is_overflow_told:
            self.console.error(error)
        if answer is None:
            # What was left out to make room comes back: it has not helped.
            self.conversation.restore(turns)
            self._take_back(mode)
        else:
            self._keep(mode, answer)

    async def switch_model(self, model: str) -> bool:
        """Change to another model; returns whether that came to its end. Raises why it cannot be."""
        view = AnswerView(self.console, self.look)

        async def switch() -> None:
            view.start(lambda: str(self.board))
            if self._opening is not None:
                await asyncio.wait([self._opening])
            await self.opener.switch(model, self.board)

        try:
            return await self.interruptible(switch())
        finally:
            view.finish()

    async def interruptible(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do `work` while keys wait and Ctrl-C stops it; returns whether it came to its end."""
        task = asyncio.create_task(work)
        with self.interrupts.stopping(task), self.terminal.hushed():
            await asyncio.wait([task])
        if task.cancelled():
            return False
        task.result()
        return True

    async def _attempt(
        self, mode: Mode, overrides: Mapping[str, Any]
    ) -> tuple[Answer | None, LlmctlError | None]:
        """Ask once; the answer as far as it came, None when nothing did."""
        messages = self._messages(mode)
        before = messages[-1].content if mode == "continue" else ""
        last = self.conversation.last_answer() if mode == "continue" else None
        answer, error = Answer(text=before, reasoning=last.reasoning if last else ""), None
        view = AnswerView(self.console, self.look)

        async def stream() -> None:
            view.start(self._waiting)
            backend = await self.ready()
            values = {**self.settings.sampling, **overrides}
            params = sampling.update(backend.info.default_sampling, values)
            request = ChatRequest(
                messages=messages,
                sampling=params,
                continues_last=mode == "continue",
                reasons=REASONS[self.settings.thinking],
            )
            await ask(backend, request, into=answer, show=view.text, show_reasoning=view.reasoning)

        self._is_showing = True
        try:
            await self.interruptible(stream())
        except LlmctlError as caught:
            error = caught
        view.finish()
        self._is_showing = False
        while self._remarks:
            self.console.aside(self._remarks.pop(0))
        has_come = answer.finish is not None or answer.text != before or (answer.reasoning and not last)
        if has_come and error is None:
            if answer.finish is not None and answer.text == before:
                self.console.note("(the model says nothing more)" if before else "(the model says nothing)")
            view.footer(answer, context_length=self._context_length())
        return answer if has_come else None, error

    def _messages(self, mode: Mode) -> tuple[Message, ...]:
        messages = self.conversation.messages
        if mode == "answer":
            return messages
        if mode == "again":
            return messages[:-1]
        # The model writes the white space again, as templates take it off.
        return (*messages[:-1], Message(role="assistant", content=messages[-1].content.rstrip()))

    def _keep(self, mode: Mode, answer: Answer) -> None:
        if mode != "answer":
            self.conversation.drop_last()
        self.conversation.add_answer(answer, model=self.opener.identity)
        self.answers.append(answer)
        usage = answer.finish.usage if answer.finish is not None else None
        self.used_tokens = usage.total_tokens if usage is not None else None

    def _take_back(self, mode: Mode) -> None:
        """A question without an answer would make the next one a second in a row, which templates refuse."""
        if mode != "answer":
            self.console.note("(nothing came: the last answer stays)")
            return
        (turn,) = self.conversation.drop_last()
        self.conversation.unanswered = turn.message.content
        self.console.note("(no answer; /retry asks again)")

    def _context_length(self) -> int | None:
        return self.opener.backend.info.context_length if self.opener.backend is not None else None

    def _waiting(self) -> str:
        is_opening = self._opening is not None and not self._opening.done()
        return str(self.board) if is_opening else "waiting"

    def _refresh(self) -> None:
        self.terminal.refresh()

    def _opened(self, task: "asyncio.Task[Backend]") -> None:
        """Tell of a failure that nobody waits for; leave when nothing was said yet."""
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            # It warns of flags that have no effect on this model.
            params_for(task.result(), self.settings)
        elif isinstance(error, LlmctlError) and not self._is_awaited:
            self._tell_failure(error)
        self.terminal.refresh()

    def _tell_failure(self, error: LlmctlError) -> None:
        is_fresh = not self.conversation.turns and self.settings.url is None
        if is_fresh and (self.terminal.is_blocking or self.terminal.end_read()):
            self._failure = error
        else:
            self.terminal.above(lambda: self.console.error(error))

    async def _close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self.opener.backend is not None:
            await self.opener.backend.close()
