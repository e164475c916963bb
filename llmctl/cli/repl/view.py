"""How one answer is shown: a passing line until it begins, reasoning dim, the answer, and a footer.

What has been written is never written again: only the passing line is, and it goes when the answer comes.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from llmctl.cli.chat.answer import Answer, is_full, tokens_per_s
from llmctl.cli.chat.streams import TextStream, reasoning_stream, text_stream
from llmctl.cli.console import Console
from llmctl.cli.repl.terminal import PROMPT
from llmctl.core.types import Finish, Message

TICK_S = 0.1
SILENT_S = 0.4
"""An answer that begins sooner than this needs no passing line."""


@dataclass(slots=True, kw_only=True)
class Look:
    """How the user wants answers to look; `/set` changes it."""

    style: str
    """`rich`: markdown as it means; `simple`: as it is written."""
    reasoning: str
    """`show`, `fold` to one line, or `hide`."""
    has_footer: bool = True


class AnswerView:
    """Shows one answer."""

    def __init__(self, console: Console, look: Look) -> None:
        self._console = console
        self._look = look
        self._text: TextStream | None = None
        self._reasoning: TextStream | None = None
        self._num_reasoning = 0
        self._started = time.monotonic()
        self._reasoning_began: float | None = None
        self._ticker: asyncio.Task[None] | None = None

    def start(self, what: Callable[[], str]) -> None:
        """Show what is waited for until the answer begins."""
        self._ticker = asyncio.ensure_future(self._tick(what))

    def reasoning(self, piece: str) -> None:
        """A piece of what the model says to itself."""
        if self._reasoning_began is None:
            self._reasoning_began = time.monotonic()
        self._num_reasoning += len(piece)
        if self._look.reasoning == "show":
            self._quiet()
            self._reasoning = self._reasoning or reasoning_stream(self._console)
            self._reasoning.feed(piece)

    def text(self, piece: str) -> None:
        """A piece of the answer."""
        self._begin_answer()
        assert self._text is not None
        self._text.feed(piece)

    def finish(self) -> None:
        """The stream has ended, whole or not: end the line that it stands in."""
        self._quiet()
        for stream in (self._reasoning, self._text):
            if stream is not None:
                stream.finish()
        if self._text is None and self._num_reasoning:
            self._fold()

    def footer(self, answer: Answer, *, context_length: int | None) -> None:
        """Counts and times, when the user wants them."""
        if self._look.has_footer and self._console.verbosity >= 0:
            told = footer(answer, context_length=context_length, width=self._console.width())
            self._console.aside(self._console.dim(told) + "\n")

    def _begin_answer(self) -> None:
        if self._text is not None:
            return
        self._quiet()
        if self._reasoning is not None:
            self._reasoning.finish()
            self._reasoning = None
            self._console.aside("\n")
        elif self._num_reasoning:
            self._fold()
        self._text = text_stream(self._console, self._look.style)

    def _fold(self) -> None:
        if self._look.reasoning == "fold" and self._reasoning_began is not None:
            seconds = time.monotonic() - self._reasoning_began
            told = f"(thought for {seconds:.1f} s; /show reasoning)"
            self._console.aside(self._console.dim(told) + "\n")

    def _quiet(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
            self._console.status("")

    async def _tick(self, what: Callable[[], str]) -> None:
        await asyncio.sleep(SILENT_S)
        while True:
            doing = "thinking" if self._num_reasoning else what()
            self._console.status(f"{doing} {time.monotonic() - self._started:.0f} s, Ctrl-C stops")
            await asyncio.sleep(TICK_S)


def show_plain(console: Console, text: str) -> None:
    """A text on stdout as it is, but for what would drive the terminal."""
    from llmctl.cli.markdown.stream import PlainStream

    stream = PlainStream(console.write, width=console.width, is_colored=False)
    stream.feed(text)
    stream.finish()


def show_message(console: Console, look: Look, message: Message) -> None:
    """A turn of the past, as it looked when it was new."""
    if message.role == "assistant":
        stream = text_stream(console, look.style)
        stream.feed(message.content)
        stream.finish()
    else:
        label = PROMPT if message.role == "user" else f"({message.role}) "
        show_plain(console, label + message.content.replace("\n", "\n" + " " * len(label)))


def footer(answer: Answer, *, context_length: int | None, width: int) -> str:
    """`first token 0.12 s · 23.4 tokens/s · context 210/2048 · stop`, shorter where `width` is too narrow."""
    finish = answer.finish
    if finish is None:
        return "stopped"
    context = _context(finish, context_length)
    rate = tokens_per_s(finish)
    end = "length (the context is full)" if is_full(answer, context_length) else finish.reason
    parts = [f"first token {finish.timings.first_token_s:.2f} s"]
    parts += [f"{rate:.1f} tokens/s"] if rate is not None else []
    parts += [*([f"context {context}"] if context else []), end]
    told = " · ".join(parts)
    if len(told) < width:
        return told
    short = [f"{finish.timings.first_token_s:.2f} s", *([f"{rate:.0f} tok/s"] if rate is not None else [])]
    return " · ".join([*short, *([context] if context else []), end])


def _context(finish: Finish, context_length: int | None) -> str:
    if finish.usage is None:
        return ""
    used = finish.usage.total_tokens
    return f"{used}/{context_length}" if context_length is not None else f"{used}"
