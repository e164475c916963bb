"""The only place that prints: answers and data to stdout, everything else to stderr."""

import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from llmctl.core import log
from llmctl.core.errors import LlmctlError
from llmctl.core.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

DEFAULT_WIDTH = 80
NARROW_WIDTH = 60
MIN_COLUMN_WIDTH = 10
"""A column that is narrower is not worth wrapping into."""
_TAKE_AWAY = "\r\033[2K"
"""What stands in the present line of a terminal."""


class Console:
    """stdout and stderr of one run of the command, with what the user said of colour and noise."""

    def __init__(self, *, is_json: bool = False) -> None:
        self.is_json = is_json
        """Whether errors are one JSON object."""
        self.color: str | None = None
        """`auto`, `always` or `never`; None until somebody says so."""
        self.verbosity = 0
        """-1 quiet, 0 usual, 1 reasons, 2 everything."""
        self.is_debug = False
        self.is_plain = False
        """Whether nothing but text may go out, on a terminal too."""
        self._has_status = False

    def write(self, text: str) -> None:
        """A piece of the answer, on stdout at once."""
        if sys.stdout is None:
            raise LlmctlError("cannot write to stdout: it is closed")
        try:
            _write_safely(sys.stdout, text)
        except BrokenPipeError:
            raise
        except OSError as error:
            _forget_buffer(sys.stdout)
            raise LlmctlError(f"cannot write to stdout: {error.strerror}") from error

    def line(self, text: str = "") -> None:
        """A line of data on stdout."""
        self.write(text + "\n")

    def json(self, value: Any, *, indent: int | None = 2) -> None:
        """A value on stdout as JSON; one line when `indent` is None."""
        self.line(json.dumps(value, ensure_ascii=False, indent=indent))

    def table(self, columns: list[str], rows: list[list[str]]) -> None:
        """Aligned columns under a heading, on stdout."""
        self.rows([columns, *rows])

    def rows(self, rows: list[list[str]]) -> None:
        """Aligned columns on stdout; on a terminal the last one is wrapped where it stands."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
        room = self.width() - indent if is_terminal(sys.stdout) else 0
        for row in rows:
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            line = "  ".join(padded).rstrip()
            is_wrapped = MIN_COLUMN_WIDTH <= room < len(row[-1])
            self.line(_wrapped(line, indent, room) if is_wrapped else line)

    def note(self, text: str, *, is_vital: bool = False) -> None:
        """A remark on stderr, left out with `-q` unless something would be lost with it."""
        if self.verbosity >= 0 or is_vital:
            self.aside(self._between_words(_harmless(text)) + "\n")

    def control(self, sequence: str) -> bool:
        """A control sequence of ours for a terminal; returns whether there is one."""
        if self.is_live:
            _write_safely(sys.stderr, sequence)
        return self.is_live

    def aside(self, text: str) -> None:
        """Text on stderr as it is, for what comes in pieces beside the answer; the passing line goes."""
        is_torn, self._has_status = self._has_status, False
        _write_safely(sys.stderr, _TAKE_AWAY + text if is_torn else text)

    def status(self, text: str) -> None:
        """A passing line on a terminal's stderr, in the place of the last one; "" takes it away."""
        if self.is_live:
            self._has_status = bool(text)
            _write_safely(sys.stderr, _TAKE_AWAY + self.dim(text[: self.width() - 1]))

    def dim(self, text: str) -> str:
        """`text` for what matters less, on stderr."""
        return self._style(text, "2") if text else text

    def ask(self, prompt: str) -> str:
        """A line of the user's; the prompt goes to stderr when stdout is not the terminal that shows it."""
        if is_terminal(sys.stdout) and sys.stderr is not None:
            return input(prompt)
        _write_safely(sys.stderr if sys.stderr is not None else sys.stdout, prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def error(self, error: LlmctlError) -> None:
        """One line on stderr (a JSON object with `--json`)."""
        if self.is_json:
            self.aside(json.dumps({"error": error.as_dict()}, ensure_ascii=False) + "\n")
            return
        text = " ".join(error.message.split())
        hint = f" ({' '.join(error.hint.split())})" if error.hint else ""
        told = self._between_words(_harmless(f"error: {text}{hint}"))
        label = self._style("error:", "1;31")
        self.aside(f"{label}{told.removeprefix('error:')}\n")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A live bar on a terminal's stderr, the lines of the log above it; silence elsewhere."""
        if self.verbosity < 0 or not self.is_live:
            yield SilentProgress()
            return
        from llmctl.cli.progress import RichProgress

        rich = self.rich_stderr()

        def above(text: str) -> None:
            rich.out(self._between_words(_harmless(text)), end="")

        with log.shown_by(above), RichProgress(rich) as progress:
            yield progress

    def rich_stderr(self) -> "RichConsole":
        """A rich console on stderr that follows `--color`."""
        from rich.console import Console as RichConsole

        return RichConsole(stderr=True, no_color=not self.has_color(sys.stderr), highlight=False)

    @property
    def shows_text(self) -> bool:
        """Whether stdout is for eyes, so that text must not drive the terminal, and not for a program."""
        return is_terminal(sys.stdout) or self.has_stdout_color

    @property
    def stdout(self) -> TextIO:
        """The terminal, for a library that draws on it by itself."""
        return sys.stdout

    @property
    def is_editable(self) -> bool:
        """Whether stdout is a terminal on which a line can be edited and redrawn."""
        return is_terminal(sys.stdout) and os.environ.get("TERM") != "dumb" and not self.is_plain

    @property
    def is_watched(self) -> bool:
        """Whether somebody sees what goes to stderr and wants to."""
        return is_terminal(sys.stderr) and self.verbosity >= 0

    @property
    def is_live(self) -> bool:
        """Whether stderr is a terminal that can redraw a line."""
        is_able = is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb" and not self.is_plain
        return is_able and _is_in_foreground()

    def width(self) -> int:
        """Columns of the terminal as it is now; COLUMNS would tell what it was when llmctl started."""
        for stream in (sys.stdout, sys.stderr):
            if is_terminal(stream):
                # A terminal of unknown size says 0.
                return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
        return DEFAULT_WIDTH

    @property
    def is_narrow(self) -> bool:
        """Whether stdout is a terminal on which columns side by side cannot be read."""
        return is_terminal(sys.stdout) and self.width() < NARROW_WIDTH

    @property
    def has_stdout_color(self) -> bool:
        """Whether the answer may be coloured."""
        return self.has_color(sys.stdout)

    def has_color(self, stream: TextIO | None) -> bool:
        """`--color` first, then NO_COLOR and FORCE_COLOR, then whether `stream` is a capable terminal."""
        if self.is_plain:
            return False
        if self.color in ("always", "never"):
            return self.color == "always"
        if os.environ.get("NO_COLOR"):
            return False
        return bool(os.environ.get("FORCE_COLOR")) or (
            is_terminal(stream) and os.environ.get("TERM") != "dumb"
        )

    def _between_words(self, text: str) -> str:
        """`text` with its lines broken where a terminal would break them inside of words."""
        if not is_terminal(sys.stderr):
            return text
        wrapper = textwrap.TextWrapper(
            self.width(), replace_whitespace=False, break_long_words=False, break_on_hyphens=False
        )
        return "\n".join(wrapper.fill(line) for line in text.split("\n"))

    def _style(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.has_color(sys.stderr) else text


def _harmless(text: str) -> str:
    """What others have written into a message must not drive a terminal that shows it."""
    if not is_terminal(sys.stderr):
        return text
    from llmctl.cli.markdown.controls import shown

    return shown(text)


def _wrapped(line: str, indent: int, room: int) -> str:
    head, gap = line[:indent], "\n" + " " * indent
    return head + gap.join(textwrap.wrap(line[indent:], room))


def _is_in_foreground() -> bool:
    """Whether the terminal is this job's: one that runs behind the shell must not draw over what is typed."""
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except (AttributeError, OSError):
        # Not on this system, or no terminal that knows of jobs.
        return True


def is_terminal(stream: TextIO | None) -> bool:
    """Whether `stream` is a terminal; it is None when whoever started llmctl has closed it."""
    return stream is not None and stream.isatty()


def _write_safely(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    _make_lossless(stream)
    stream.write(text)
    stream.flush()


def _make_lossless(stream: TextIO) -> None:
    """A terminal or pipe in an old encoding shows what it cannot write as escapes instead of failing.

    The C locale's own way (surrogateescape) fails just as `strict` does.
    """
    reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
    if reconfigure is not None and getattr(stream, "errors", None) in ("strict", "surrogateescape"):
        reconfigure(errors="backslashreplace")


def _forget_buffer(stream: TextIO) -> None:
    """What could not be written is not tried again when Python exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
