"""A part of a fleet as a process: started, heard, ended. Its log is read for its URL."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llmctl.core.errors import LlmctlError

_TOLD = re.compile(
    r"^(?:controller|worker|gateway) at (http://[^\s,/]+)(?:/v1)?(?: serves (.+))?, Ctrl-C ends"
)
"""What parts say on stderr when they can be asked."""
_MAX_READ = 1 << 20
_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a part said of itself."""

    url: str
    models: tuple[str, ...] = ()


class Process(Protocol):
    """A part that was started."""

    @property
    def pid(self) -> int:
        """Of this machine."""

    def exit_code(self) -> int | None:
        """None while it lives; below 0 the signal that killed it."""

    def told(self) -> Told | None:
        """None until it can be asked."""

    def last_lines(self) -> list[str]:
        """What it wrote last."""

    def terminate(self) -> None:
        """Have it end in peace."""

    def kill(self) -> None:
        """End it now."""


class Launcher(Protocol):
    """Starts parts."""

    def start(self, name: str, words: Sequence[str], environ: Mapping[str, str]) -> Process:
        """`name` is the part's, `words` are its command line behind `llmctl`."""


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> float:
        """Monotonic seconds."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


class SystemClock:
    """The machine's."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)


class LogLauncher:
    """Starts `program WORDS`, each with a log in `folder`, on a lifeline: a pipe to its stdin.

    Nothing is ever written into the pipe. It closes when this process ends, however it does, and the
    program ends when that happens.
    """

    def __init__(self, program: Sequence[str], folder: Path) -> None:
        self._program = tuple(program)
        self._folder = folder

    def log_of(self, name: str) -> Path:
        """Where a part's words go."""
        return self._folder / f"{name}.log"

    def start(self, name: str, words: Sequence[str], environ: Mapping[str, str]) -> Process:
        """As `Launcher`. Raises `LlmctlError` where the system refuses."""
        path = self.log_of(name)
        try:
            with path.open("ab") as log:
                begin = log.tell()
                process = subprocess.Popen(  # noqa: S603  # the program is ours
                    [*self._program, *words],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
                    # Ctrl-C in the terminal is for the supervisor, which ends them in order.
                    start_new_session=os.name == "posix",
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
        except OSError as error:
            raise LlmctlError(f"cannot start the {name}: {error.strerror or error}") from error
        return _Started(process, path, begin)


class _Started:
    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, begin: int) -> None:
        self._process = process
        self._log = log
        self._begin = begin
        self._read_to = begin
        self._told: Told | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        code = self._process.poll()
        if code is not None and self._process.stdin is not None:
            self._process.stdin.close()
        return code

    def told(self) -> Told | None:
        if self._told is None:
            self._told = next(filter(None, map(_read_told, self._new_lines())), None)
        return self._told

    def last_lines(self) -> list[str]:
        return [line for line in self._text(self._begin, _TAIL_BYTES).splitlines() if line.strip()]

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _new_lines(self) -> list[str]:
        """Whole lines that were not looked at yet."""
        whole, newline, _ = self._text(self._read_to).rpartition("\n")
        self._read_to += len((whole + newline).encode(errors="surrogateescape"))
        return whole.splitlines()

    def _text(self, start: int, num_last: int | None = None) -> str:
        """The log from `start` on, or so many bytes at its end; nothing where somebody has removed it."""
        try:
            with self._log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(start if num_last is None else max(start, end - num_last))
                return file.read(_MAX_READ).decode(errors="surrogateescape")
        except OSError:
            return ""


def _read_told(line: str) -> Told | None:
    match = _TOLD.match(line)
    if match is None:
        return None
    return Told(url=match[1], models=tuple(match[2].split(", ")) if match[2] else ())
