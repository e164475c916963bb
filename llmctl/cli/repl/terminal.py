"""What the REPL asks of the terminal, and the form of it that every terminal can be: a line in, text out."""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from llmctl.cli.console import Console
from llmctl.cli.repl.editor import edit_text
from llmctl.cli.repl.interrupts import Interrupts

PROMPT = ">>> "
LEAVE_HINT = "(Ctrl-D or /exit leaves)"
BLOCK = '"""'


class Terminal(Protocol):
    """The user's side of the conversation."""

    is_blocking: bool
    """Whether `read` keeps everything else from going on."""

    async def read(self, *, draft: str = "") -> str | None:
        """What the user says next, never blank, `draft` standing there to be edited; None is the end."""
        ...

    async def choose(self, question: str, choices: Mapping[str, str]) -> str | None:
        """The letter of one of `choices` (letter to meaning); None when the user turns away."""
        ...

    async def edit(self, text: str) -> str:
        """`text` as the user's editor leaves it. Raises `LlmctlError` when that fails."""
        ...

    def hushed(self) -> AbstractContextManager[None]:
        """While an answer is shown, keys that are pressed wait for the next `read` and are not echoed."""
        ...

    def whole(self) -> AbstractContextManager[None]:
        """Around everything: whatever happens, the terminal is left as it was found."""
        ...

    def refresh(self) -> None:
        """Draw again what stands around the prompt; from any thread."""
        ...

    def above(self, show: Callable[[], None]) -> None:
        """Have `show` print, above the prompt if one is being read; from any thread."""
        ...

    def end_read(self) -> bool:
        """End a `read` in which nothing has been typed yet, as Ctrl-D does; returns whether there was one."""
        ...


class PlainTerminal:
    """For terminals that can do nothing but print, screen readers, and output that goes elsewhere."""

    is_blocking = True

    def __init__(self, console: Console, interrupts: Interrupts) -> None:
        self._console = console
        self._interrupts = interrupts

    async def read(self, *, draft: str = "") -> str | None:
        """See `Terminal`; `draft` is shown, since it cannot be put under the cursor."""
        if draft:
            self._console.note(f"to be changed: {draft}", is_vital=True)
        while True:
            try:
                with self._interrupts.raising():
                    line = self._console.ask(PROMPT)
                    if line.startswith(BLOCK):
                        line = self._block(line)
            except EOFError:
                self._console.note("")
                return None
            except KeyboardInterrupt:
                self._console.note(f"\n{LEAVE_HINT}", is_vital=True)
                continue
            if line.strip():
                return line

    async def choose(self, question: str, choices: Mapping[str, str]) -> str | None:
        """See `Terminal`."""
        try:
            with self._interrupts.raising():
                while True:
                    letter = self._console.ask(f"{question} {listed(choices)}: ").strip().lower()[:1]
                    if letter in choices:
                        return letter
        except (EOFError, KeyboardInterrupt):
            self._console.note("")
            return None

    async def edit(self, text: str) -> str:
        """See `Terminal`."""
        with self._interrupts.ignored():
            return edit_text(text)

    def hushed(self) -> AbstractContextManager[None]:
        """Keys echo: a terminal in its own line mode keeps what is typed, Ctrl-D too, for the next line."""
        return contextlib.nullcontext()

    def whole(self) -> AbstractContextManager[None]:
        """See `Terminal`."""
        return restored_keys()

    def refresh(self) -> None:
        """Nothing stands around the prompt."""

    def above(self, show: Callable[[], None]) -> None:
        """See `Terminal`."""
        show()

    def end_read(self) -> bool:
        """A line of the terminal's own cannot be ended."""
        return False

    def _block(self, line: str) -> str:
        lines = [line]
        try:
            while is_open_block("\n".join(lines)):
                lines.append(self._console.ask("    "))
        except EOFError:
            lines.append(BLOCK)
        return unwrapped("\n".join(lines))


def listed(choices: Mapping[str, str]) -> str:
    """`[d]rop the oldest, [s]top`."""
    return ", ".join(f"[{letter}]{meaning.removeprefix(letter)}" for letter, meaning in choices.items())


def is_open_block(text: str) -> bool:
    """Whether a block that begins with three quotes still waits for its end."""
    start = text.lstrip()
    return start.startswith(BLOCK) and BLOCK not in start[len(BLOCK) :]


def unwrapped(text: str) -> str:
    """The inside of a three-quote block; any other text as it is."""
    stripped = text.strip()
    inner = stripped[len(BLOCK) : -len(BLOCK)]
    is_block = stripped.startswith(BLOCK) and stripped.endswith(BLOCK) and len(stripped) >= 2 * len(BLOCK)
    if not is_block or BLOCK in inner:
        return text
    inner = inner.strip("\n")
    # What somebody quotes is no command.
    return f" {inner}" if inner.startswith(("/", "!!")) else inner


@contextlib.contextmanager
def hushed_keys() -> Iterator[None]:
    """No echo, no line editing; Ctrl-C still interrupts, and Enter stays what the prompt takes for Enter."""
    import termios

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    hushed: list[Any] = termios.tcgetattr(fd)
    hushed[0] &= ~(termios.ICRNL | termios.IXON)
    hushed[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    # Ctrl-C must not throw away what was typed ahead.
    hushed[3] |= termios.NOFLSH
    # Ctrl-\ would leave the terminal like this.
    hushed[6][termios.VQUIT] = b"\0"

    def hush(*_: object) -> None:
        termios.tcsetattr(fd, termios.TCSADRAIN, hushed)

    hush()
    # The shell gives the terminal back as it likes it.
    before_stop = signal.signal(signal.SIGCONT, hush)
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, before_stop)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def typed_already() -> str:
    """What was typed before anybody read it."""
    fd, typed = sys.stdin.fileno(), b""
    while select.select([fd], [], [], 0)[0] and (read := os.read(fd, 4096)):
        typed += read
    return typed.decode(errors="ignore")


@contextlib.contextmanager
def restored_keys() -> Iterator[None]:
    """SIGTERM may end the loop anywhere: the shell must get its terminal back."""
    import termios

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
