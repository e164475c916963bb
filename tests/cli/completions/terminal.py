"""A real shell at a pseudo-terminal, that keys are pressed in and whose command line can be read."""

import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from fcntl import ioctl
from pathlib import Path
from typing import Self

TIMEOUT_S = 30
# To the end and kill backwards, for bash.
KILL_LINE = "\x05\x15"
TAB, LEFT = "\t", "\x1b[D"
# The shell under test has a function bound to this key that reports its line, see `Report`.
REPORT = "\x18d"
# Report: \1 left of the cursor \2 right of it \2 offers, each followed by \4 \3
_REPORT = re.compile("\x01([^\x02]*)\x02([^\x02]*)\x02([^\x03]*)\x03", re.DOTALL)


class Terminal:
    """A shell that runs until `close` or the end of a `with`."""

    def __init__(self, command: list[str], *, cwd: Path, env: dict[str, str]) -> None:
        self._fd, theirs = pty.openpty()
        # So large that no shell asks before it lists, and no line is wrapped.
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 400, 2000, 0, 0))
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # fish runs only where its terminal is the controlling one.
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(theirs)
        self._seen = ""
        self.press("")

    def press(self, keys: str) -> tuple[str, str]:
        """Type into an empty line; what then stands left and right of the cursor."""
        left, right, _ = self._report(keys)
        return left, right

    def offers(self, keys: str) -> list[str]:
        """What the last of `keys` offers, as far as the shell reports it."""
        return self._report(keys)[2].split("\x04")[:-1]

    def screen(self, keys: str) -> str:
        """What the terminal was sent meanwhile."""
        self._report(keys)
        return self._seen

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def _report(self, keys: str) -> tuple[str, str, str]:
        self._seen = ""
        os.write(self._fd, (KILL_LINE + keys + REPORT).encode())
        deadline = time.monotonic() + TIMEOUT_S
        while (match := _REPORT.search(self._seen)) is None:
            assert time.monotonic() < deadline, f"no report of the shell after {keys!r}: {self._seen!r}"
            if select.select([self._fd], [], [], 1)[0]:
                self._seen += os.read(self._fd, 1 << 16).decode(errors="replace")
        return match[1], match[2], match[3]
