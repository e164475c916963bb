"""A real terminal for tests: a child on a pseudo-terminal, what it draws kept by a terminal emulator.

`raw` holds every byte that was written, so that a test can tell what was drawn twice; `lines` what a user
sees who scrolls back.
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyte

ROOT = Path(__file__).parent.parent
ENTER, NEWLINE, TAB = "\r", "\n", "\t"
CTRL_C, CTRL_D, CTRL_G, CTRL_R = "\x03", "\x04", "\x07", "\x12"
ALT_ENTER = "\x1b\r"
PROMPT = ">>>"
TIMEOUT_S = 30.0


# A fork of a process with threads is not safe, so the child itself takes the terminal as its own.
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class _Screen(pyte.HistoryScreen):
    """Keeps the title and what would be sent back to the child out of the way."""

    def write_process_input(self, data: str) -> None:
        """The child asked the terminal something; nobody answers, as over a slow line."""


class Terminal:
    """A running child and the screen that it draws on."""

    def __init__(self, child: subprocess.Popen[bytes], fd: int, columns: int, rows: int) -> None:
        self._child, self._fd = child, fd
        self._screen = _Screen(columns, rows, history=50_000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.raw = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, text: str) -> None:
        """Press keys."""
        os.write(self._fd, text.encode())

    def paste(self, text: str) -> None:
        """Paste, bracketed as terminals do when they were asked to."""
        self.send(f"\x1b[200~{text}\x1b[201~")

    def say(self, text: str, *, timeout_s: float = TIMEOUT_S) -> list[str]:
        """Type a line, send it, and wait for the next prompt; returns the lines drawn since."""
        before = len(self.lines())
        count = self.count(PROMPT)
        self.send(text)
        # A narrow terminal wraps it, with an indent.
        tail = "".join(text.split())[-15:]
        # Without text it sends what stands in the line.
        self.wait(lambda: tail in "".join(self.text().split()), what=text)
        self.send(ENTER)
        self.wait(
            lambda: self.count(PROMPT) > count and self.is_idle(), what="the next prompt", timeout_s=timeout_s
        )
        return self.lines()[max(before - 1, 0) :]

    def is_idle(self) -> bool:
        """Whether an empty prompt waits."""
        return re.search(r"^>>>\s*(Ask anything.*)?$", self._prompt_line()) is not None

    def wait_for(self, pattern: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until a line of screen or scrollback holds `pattern`, a regular expression."""
        self.wait(
            lambda: re.search(pattern, self.text(), re.MULTILINE) is not None,
            what=pattern,
            timeout_s=timeout_s,
        )

    def wait(self, is_done: object, *, what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until `is_done()`; the failure shows the screen."""
        assert callable(is_done)
        until = time.monotonic() + timeout_s
        while not is_done():
            if time.monotonic() > until:
                raise AssertionError(f"waited in vain for {what}:\n" + "\n".join(self.lines()[-60:]))
            time.sleep(0.02)

    def count(self, text: str) -> int:
        """How many lines begin with `text`."""
        return sum(line.startswith(text.rstrip()) for line in self.lines())

    def lines(self) -> list[str]:
        """Scrollback and screen, without blanks at line ends and empty lines at the end."""
        with self._lock:
            top = ["".join(row[x].data for x in sorted(row)) for row in self._screen.history.top]
            shown = [*top, *self._screen.display]
        lines = [line.rstrip() for line in shown]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def text(self) -> str:
        """All lines as one text."""
        return "\n".join(self.lines())

    def resize(self, columns: int, rows: int) -> None:
        """The user drags the window's corner."""
        with self._lock:
            self._screen.resize(rows, columns)
        _set_size(self._fd, columns, rows)

    def mark(self) -> int:
        """A place in `raw`."""
        return len(self.raw)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child."""
        self._child.send_signal(number)

    def ended(self, *, timeout_s: float = 20.0) -> int:
        """The exit code of the child, which must end by itself."""
        try:
            code = self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError("it did not end:\n" + self.text()[-2000:]) from None
        self._reader.join(1)
        return code

    def close(self) -> None:
        """End the child whatever it does."""
        self._child.kill()
        self._child.wait()
        self._reader.join(2)
        os.close(self._fd)

    def _prompt_line(self) -> str:
        with self._lock:
            return self._screen.display[self._screen.cursor.y]

    def _read(self) -> None:
        while True:
            try:
                if not select.select([self._fd], [], [], 0.5)[0]:
                    continue
                data = os.read(self._fd, 65536)
            except (OSError, ValueError):
                return
            if not data:
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)


@contextlib.contextmanager
def terminal(
    *args: str,
    columns: int = 80,
    rows: int = 24,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Terminal]:
    """Run `llmctl ARGS` on a terminal of its own."""
    environ = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **(env or {})}
    environ.pop("COLUMNS", None)
    environ.pop("LINES", None)
    command = [sys.executable, "-m", "llmctl", *args]
    fd, inner = pty.openpty()
    _set_size(fd, columns, rows)
    child = subprocess.Popen(
        [sys.executable, "-c", _TAKE_TERMINAL, *command],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env=environ,
        cwd=cwd,
        start_new_session=True,
    )
    os.close(inner)
    made = Terminal(child, fd, columns, rows)
    try:
        yield made
    finally:
        made.close()


def _set_size(fd: int, columns: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
