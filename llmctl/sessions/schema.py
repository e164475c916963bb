"""The tables of the log, and how a file comes to have them: migrations, each one whole or not at all."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from llmctl.core.errors import BadFileError
from llmctl.core.places import private_folder
from llmctl.sessions import fulltext
from llmctl.sessions.failures import BUSY_TIMEOUT_S, error_code, no_database

APPLICATION_ID = 0x6C6C6D63
"""Marks the file as ours ("llmc")."""
FILE_MODE = 0o600
_SMALLEST_PAGE_BYTES = 512
_RETRY_S = 0.01

# What has been released is never changed: a change is a new step at the end.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        """
        CREATE TABLE sessions (
            -- AUTOINCREMENT: the number of a deleted session is not given to another one.
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT UNIQUE,
            title TEXT NOT NULL DEFAULT '',
            model TEXT,
            created REAL NOT NULL,
            updated REAL NOT NULL,
            num_turns INTEGER NOT NULL DEFAULT 0
        )
        """,
        """
        CREATE TABLE turns (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            session_id INTEGER NOT NULL REFERENCES sessions (id),
            created REAL NOT NULL,
            is_retracted INTEGER NOT NULL DEFAULT 0,
            role TEXT NOT NULL,
            content TEXT NOT NULL,
            reasoning TEXT NOT NULL DEFAULT '',
            model TEXT,
            endpoint TEXT,
            finish_reason TEXT,
            prompt_tokens INTEGER,
            completion_tokens INTEGER,
            first_token_s REAL,
            total_s REAL
        )
        """,
        "CREATE INDEX sessions_by_update ON sessions (updated, id)",
        "CREATE INDEX turns_by_session ON turns (session_id, id)",
    ),
    # The index itself is made by `fulltext`, when this SQLite can.
    (
        "CREATE TABLE search_state (is_current INTEGER NOT NULL)",
        "INSERT INTO search_state VALUES (0)",
    ),
)
VERSION = len(MIGRATIONS)


def connect(path: Path) -> sqlite3.Connection:
    """Open the log at `path`, made if it is missing and brought up to date; only its owner can read it.

    Raises `BadFileError` for a file of a newer llmctl or of another program, besides the errors of SQLite
    and the file system.
    """
    private_folder(path.parent)
    _make_private(path)
    with ExitStack() as stack:
        connection = stack.enter_context(
            closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None))
        )
        if _version(connection, path) == 0:
            _use_wal(connection)
        # What `append` returned for outlives a power cut, and what is deleted is wiped.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        migrate(connection, path)
        fulltext.prepare(connection)
        if not fulltext.is_current(connection) and fulltext.has_trigrams(connection):
            with transaction(connection):
                fulltext.build(connection)
        stack.pop_all()
    return connection


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Take the steps that the file lacks; of several processes at once, one does each."""
    while _version(connection, path) < VERSION:
        with transaction(connection):
            # Another process may have been quicker.
            version = _version(connection, path)
            if version < VERSION:
                for statement in MIGRATIONS[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements inside or none; the lock is taken at once, so that nothing read inside can grow old."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Steps that the file has taken. Raises `BadFileError` when it is not ours or newer than we are."""
    # One statement, so that another process cannot migrate in between.
    version, application_id, num_tables = connection.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if application_id != APPLICATION_ID and (version or num_tables):
        raise BadFileError(
            f"{path} is a database of another program, not a conversation log",
            hint="move it away and a new log begins",
        )
    if version > VERSION:
        raise BadFileError(
            f"conversation log {path} is of version {version}, this llmctl knows versions up to {VERSION}",
            hint="update llmctl, or move the file away and a new one begins",
        )
    return int(version)


def _make_private(path: Path) -> None:
    """SQLite gives its -wal and -shm the mode of the file; those of an earlier run are mended too.

    Raises `BadFileError` for a file too small to be a database.
    """
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if file.is_file() and file.stat().st_mode & 0o077:
            file.chmod(FILE_MODE)
    if path.is_file() and 0 < path.stat().st_size < _SMALLEST_PAGE_BYTES:
        # SQLite would take it for empty and write over it.
        raise no_database(path)
    if not path.exists():
        # Never for a file that is there: closing it would drop the locks that this process holds on it.
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE))
        except FileExistsError:
            return


def _use_wal(connection: sqlite3.Connection) -> None:
    """Readers and a writer do not wait for each other. Of two that switch at once, one is refused unasked."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)
        else:
            return
