"""Lets the user write in an editor of their own."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from llmctl.core.errors import LlmctlError, NotFoundError

VARIABLES = ("LLMCTL_EDITOR", "VISUAL", "EDITOR")
FALLBACK = "vi"


def edit_text(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` as the editor leaves it, without the newline that editors put at a file's end.

    Raises `NotFoundError` when there is no such editor, `LlmctlError` when it fails.
    """
    command = next((environ[name] for name in VARIABLES if environ.get(name)), FALLBACK)
    handle, path = tempfile.mkstemp(suffix=".md", prefix="llmctl-")
    file = Path(path)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as opened:
            opened.write(text)
        _run(command, file)
        return file.read_text(encoding="utf-8", errors="replace").removesuffix("\n")
    finally:
        file.unlink(missing_ok=True)


def _run(command: str, file: Path) -> None:
    hint = f"set {VARIABLES[0]} or EDITOR to one that is installed"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise LlmctlError(f"the editor's command {command!r} cannot be read: {error}", hint=hint) from error
    try:
        ended = subprocess.run([*words, str(file)], check=False)  # noqa: S603  # the user's own command
    except FileNotFoundError as error:
        raise NotFoundError(f"no editor {command!r} is installed", hint=hint) from error
    except OSError as error:
        raise LlmctlError(f"the editor {command!r} does not start: {error.strerror}", hint=hint) from error
    if ended.returncode != 0:
        raise LlmctlError(f"the editor {command!r} ended with {ended.returncode}: its text is not used")
