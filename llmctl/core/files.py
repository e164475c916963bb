"""Writes files whole or not at all."""

import os
import stat
import tempfile
from pathlib import Path

from llmctl.core.errors import BadFileError, LlmctlError, NotFoundError, UsageError


def write_whole(path: Path, text: str, *, replaces: bool = True) -> None:
    """Write `text` beside `path` and rename it there when it is complete; half characters become `?`.

    Raises `UsageError` for a folder, or for a file that exists when `replaces` is off; `NotFoundError` for
    a missing folder; `LlmctlError` when the disk refuses.
    """
    kind = _kind(path)
    if kind is not None and stat.S_ISDIR(kind):
        raise UsageError(f"{path} is a folder", hint="give the name of a file")
    if kind is not None and not stat.S_ISREG(kind):
        _write_through(path, text)
        return
    if not replaces and kind is not None:
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
        Path(temporary).chmod(kind & 0o777 if kind is not None else 0o666 & ~mask)
        Path(temporary).replace(path)
    except OSError as error:
        raise LlmctlError(f"cannot write {path}: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_text(path: Path, *, called: str, max_bytes: int, may_wait: bool = False) -> str:
    """The text of a file, and of a device or pipe, which may never come or end, only where one `may_wait`.

    `called` is what errors call it. Raises `NotFoundError`, and `BadFileError` for what is too long or is
    no text.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind) or not (stat.S_ISREG(kind) or may_wait):
            what = "folder" if stat.S_ISDIR(kind) else "device or pipe"
            raise BadFileError(f"{called} is a {what}, not a file")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {called}") from error
    except (OSError, ValueError) as error:
        raise BadFileError(f"cannot read {called}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > max_bytes:
        raise BadFileError(f"{called} has more than the {max_bytes} bytes allowed")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFileError(f"{called} is not UTF-8 text (byte {error.start})") from error


def is_file(path: Path) -> bool:
    """Whether there is a regular file; a name that no file can have is none."""
    kind = _kind(path)
    return kind is not None and stat.S_ISREG(kind)


def _kind(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None


def _write_through(path: Path, text: str) -> None:
    """A device or a pipe is written to: renaming a file to its place would take it away."""
    try:
        path.write_bytes(text.encode(errors="replace"))
    except OSError as error:
        raise LlmctlError(f"cannot write {path}: {error.strerror}") from error
