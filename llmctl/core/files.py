"""Writes files whole or not at all."""

import os
import tempfile
from pathlib import Path

from llmctl.core.errors import LlmctlError, NotFoundError, UsageError


def write_whole(path: Path, text: str, *, replaces: bool = True) -> None:
    """Write `text` beside `path` and rename it there when it is complete; half characters become `?`.

    Raises `UsageError` for a folder, or for a file that exists when `replaces` is off; `NotFoundError` for
    a missing folder; `LlmctlError` when the disk refuses.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        _write_through(path, text)
        return
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="give the name of a file")
    if not replaces and path.exists():
        raise UsageError(f"{path} exists", hint="--force replaces it")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except FileNotFoundError as error:
        raise NotFoundError(f"no such folder: {path.parent}") from error
    except OSError as error:
        raise LlmctlError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode(errors="replace"))
        # The mode that a file made in the usual way would have.
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~mask)
        Path(temporary).replace(path)
    except OSError as error:
        raise LlmctlError(f"cannot write {path}: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _write_through(path: Path, text: str) -> None:
    """A device or a pipe is written to: renaming a file to its place would take it away."""
    try:
        path.write_bytes(text.encode(errors="replace"))
    except OSError as error:
        raise LlmctlError(f"cannot write {path}: {error.strerror}") from error
