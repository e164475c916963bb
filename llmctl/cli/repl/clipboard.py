"""Puts text into the clipboard: with the desktop's own tool, else through the terminal itself (OSC 52)."""

import base64
import os
import shutil
import subprocess
from collections.abc import Mapping

from llmctl.cli.console import Console
from llmctl.core.errors import LlmctlError

TIMEOUT_S = 5
_TOOLS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
    ("", ("pbcopy",)),
)


def copy_text(text: str, console: Console, environ: Mapping[str, str] = os.environ) -> str:
    """Copy, and say by which way. A terminal does not tell whether it took the text.

    Raises `LlmctlError` when there is no way.
    """
    data = text.encode(errors="replace")
    for variable, command in _TOOLS:
        if (not variable or environ.get(variable)) and shutil.which(command[0]) and _piped(command, data):
            return command[0]
    if not console.control(f"\033]52;c;{base64.b64encode(data).decode()}\a"):
        raise LlmctlError(
            "there is no clipboard here: neither wl-copy, xclip, xsel or pbcopy nor a terminal that takes it",
            hint="/export md FILE writes the conversation",
        )
    return "handed to the terminal, if it allows that"


def _piped(command: tuple[str, ...], data: bytes) -> bool:
    try:
        ended = subprocess.run(  # noqa: S603  # a command of the table above
            command,
            input=data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0
