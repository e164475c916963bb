"""The one boundary where errors of SQLite and the file system become errors for users."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmctl.core.errors import BadFileError, DoesNotFitError, LlmctlError

BUSY_TIMEOUT_S = 10.0
"""How long one process waits for another that writes."""
_PRIMARY_CODE = 0xFF


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise `LlmctlError` and its kin, naming the log at `path`, for whatever keeps it from being used."""
    try:
        yield
    # A statement on a closed log, or from another thread, is a mistake of ours.
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        raise _error(path, error) from error
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def error_code(error: sqlite3.Error) -> int | None:
    """The primary result code; None when Python raised the error."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY_CODE


def no_database(path: Path) -> BadFileError:
    """Something else lies in the place of the log."""
    return BadFileError(
        f"the conversation log {path} is no SQLite database", hint="move it away and a new one begins"
    )


def damaged(path: Path, why: str) -> BadFileError:
    """The file is of no use any more."""
    return BadFileError(
        f"the conversation log {path} is damaged: {why}",
        hint=f"move it away and a new one begins; `sqlite3 {path} .recover` may save what is left",
    )


def _error(path: Path, error: sqlite3.DatabaseError) -> LlmctlError:
    code, text = error_code(error), str(error)
    if code == sqlite3.SQLITE_NOTADB:
        return no_database(path)
    if code == sqlite3.SQLITE_FULL:
        return DoesNotFitError(
            f"cannot write the conversation log {path}: {text}", hint="free some space on that disk"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return _unusable(path, f"another process has been writing to it for {BUSY_TIMEOUT_S:g} s")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
        # Our statements are right for every version that `schema` lets pass: a table must be missing.
        return damaged(path, text)
    return _unusable(path, text)


def _unusable(path: Path, why: str) -> LlmctlError:
    return LlmctlError(
        f"cannot use the conversation log {path}: {why}",
        hint="LLMCTL_DATA_HOME moves it to another folder",
    )
