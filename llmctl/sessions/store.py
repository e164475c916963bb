"""The log of conversations: one SQLite file for several processes at once, whole after a kill at any time."""

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from llmctl.core.errors import NotFoundError, UsageError
from llmctl.sessions import fulltext
from llmctl.sessions.failures import explained
from llmctl.sessions.records import Hit, NewTurn, Session, Turn, check_name, title_of
from llmctl.sessions.schema import connect, transaction

__all__ = ["FILE_NAME", "Hit", "NewTurn", "Session", "SessionLog", "Turn"]

FILE_NAME = "log.db"
"""In `Places.data`."""
_MAX_ID_DIGITS = 18
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_SESSION = ("id", "name", "title", "model", "created", "updated", "num_turns")
_NEW_TURN = (
    *("role", "content", "reasoning", "model", "endpoint", "finish_reason"),
    *("prompt_tokens", "completion_tokens", "first_token_s", "total_s"),
)
_TURN = ("id", "session_id", "created", "is_retracted", *_NEW_TURN)
SELECT_SESSIONS = f"SELECT {', '.join(_SESSION)} FROM sessions"  # noqa: S608
NEWEST_FIRST = "ORDER BY updated DESC, id DESC"
# Few sessions have a name: NOTNULL would not use the index of names, and without + the order's own would win.
NAMED, NAMED_ORDER = "name >= ''", "ORDER BY +updated DESC, id DESC"
SELECT_TURNS = f"SELECT {', '.join(_TURN)} FROM turns WHERE session_id = ?"  # noqa: S608
_INSERT_TURN = (
    f"INSERT INTO turns (session_id, created, {', '.join(_NEW_TURN)})"  # noqa: S608
    f" VALUES (?, ?{', ?' * len(_NEW_TURN)})"
)


class SessionLog:
    """An open log. What a method has written is on disk when it returns.

    Every method raises `LlmctlError` (or its kin) naming the file when that cannot be read or written.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> "SessionLog":
        """The log at `path`, made if it is missing, brought up to date if it is old.

        Raises `BadFileError` when it is damaged, no log, or of a newer llmctl.
        """
        with explained(path):
            return cls(connect(path), path)

    def close(self) -> None:
        """Let go of the file."""
        with explained(self.path):
            self._connection.close()

    def __enter__(self) -> "SessionLog":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, *, name: str | None = None) -> int:
        """Begin a session and return its id. Raises `UsageError` when the name is taken or not allowed."""
        now = time.time()
        with self._writing():
            if name is not None:
                self._check_free(name)
            statement = "INSERT INTO sessions (name, created, updated) VALUES (?, ?, ?)"
            return _new_id(self._connection.execute(statement, (name, now, now)))

    def append(self, session_id: int, turn: NewTurn) -> int:
        """Keep a turn and return its id. Half characters (lone surrogates) become U+FFFD.

        Raises `NotFoundError` when the session has been deleted.
        """
        values = [_storable(getattr(turn, field)) for field in _NEW_TURN]
        title = title_of(_storable(turn.content)) if turn.role == "user" else ""
        now = time.time()
        with self._writing():
            changed = self._connection.execute(
                "UPDATE sessions SET updated = ?, num_turns = num_turns + 1, model = coalesce(?, model),"
                " title = CASE title WHEN '' THEN ? ELSE title END WHERE id = ?",
                (now, _storable(turn.model), title, session_id),
            )
            if changed.rowcount == 0:
                raise _no_session(session_id)
            turn_id = _new_id(self._connection.execute(_INSERT_TURN, (session_id, now, *values)))
            fulltext.add(self._connection, turn_id)
        return turn_id

    def retract(self, turn_ids: Sequence[int]) -> None:
        """Take turns back: they leave the conversation and can still be searched for."""
        self._mark(turn_ids, is_retracted=True)

    def restore(self, turn_ids: Sequence[int]) -> None:
        """Undo `retract`."""
        self._mark(turn_ids, is_retracted=False)

    def _mark(self, turn_ids: Sequence[int], *, is_retracted: bool) -> None:
        sessions: set[int] = set()
        with self._writing():
            for turn_id in turn_ids:
                row = self._connection.execute(
                    "UPDATE turns SET is_retracted = ? WHERE id = ? RETURNING session_id",
                    (is_retracted, turn_id),
                ).fetchall()
                sessions.update(session_id for (session_id,) in row)
            for session_id in sessions:
                self._recount(session_id)

    def turns(self, session_id: int, *, with_retracted: bool = False) -> list[Turn]:
        """The turns of a session in order."""
        live = "" if with_retracted else " AND NOT is_retracted"
        return [_turn(row) for row in self._rows(f"{SELECT_TURNS}{live} ORDER BY id", session_id)]

    def latest(self) -> Session | None:
        """The session that was updated last, of those that have turns."""
        rows = self._rows(f"{SELECT_SESSIONS} WHERE num_turns > 0 {NEWEST_FIRST} LIMIT 1")
        return _session(rows[0]) if rows else None

    def find(self, text: str) -> Session:
        """The session of that name or, failing that, number. Raises `NotFoundError` with near names."""
        is_id = text.isascii() and text.isdecimal() and len(text) <= _MAX_ID_DIGITS
        where, value = ("id", int(text)) if is_id else ("name", _storable(text))
        rows = self._rows(f"{SELECT_SESSIONS} WHERE {where} = ?", value)
        if rows:
            return _session(rows[0])
        raise _no_session(text, near=_near(text, self.names()))

    def names(self) -> list[str]:
        """The names that were given, the most recently used first."""
        rows = self._rows(f"{SELECT_SESSIONS} WHERE {NAMED} {NAMED_ORDER}")
        return [session.name for session in map(_session, rows) if session.name is not None]

    def search(self, query: str, *, limit: int | None) -> list[Hit]:
        """Turns that hold all words of `query`, retracted ones too, and sessions so named, newest first.

        Case does not matter and a word is found inside of longer ones. A session found by its name is
        represented by its last turn. An empty query finds nothing.
        """
        words = fulltext.words_of(_storable(query))
        if not words:
            return []
        most = -1 if limit is None else limit
        columns = ", ".join(f"turns.{field}" for field in _TURN)
        with explained(self.path):
            fulltext.match_words(self._connection, words)
            rows = fulltext.turn_rows(self._connection, columns, words, limit=most)
        turns = [_turn(row) for row in rows]
        snippets = {turn.id: fulltext.snippet(turn.content, words) for turn in turns}
        for turn, name in self._last_turns_by_name(most):
            if turn.id not in snippets:
                turns.append(turn)
                snippets[turn.id] = name
        turns.sort(key=lambda turn: turn.id, reverse=True)
        sessions = self._sessions_of(turns[:limit])
        return [
            Hit(session=sessions[turn.session_id], turn=turn, snippet=snippets[turn.id])
            for turn in turns[:limit]
            # Another process may have deleted it a moment ago.
            if turn.session_id in sessions
        ]

    def checked_name(self, name: str) -> str:
        """`name`, if a new session can have it. Raises `UsageError` when it is taken or not allowed."""
        self._check_free(name)
        return name

    def rename(self, session_id: int, name: str) -> None:
        """Give a session a name. Raises `UsageError` when that is taken or not allowed, `NotFoundError`."""
        with self._writing():
            self._check_free(name, session_id=session_id)
            changed = self._connection.execute(
                "UPDATE sessions SET name = ? WHERE id = ?", (name, session_id)
            )
            if changed.rowcount == 0:
                raise _no_session(session_id)

    def delete(self, session_ids: Sequence[int]) -> int:
        """Delete sessions for good, with their turns; returns how many there were."""
        num_deleted = 0
        with self._writing():
            for session_id in session_ids:
                fulltext.forget(self._connection, session_id)
                self._connection.execute("DELETE FROM turns WHERE session_id = ?", (session_id,))
                num_deleted += self._connection.execute(
                    "DELETE FROM sessions WHERE id = ?", (session_id,)
                ).rowcount
            if num_deleted:
                fulltext.compact(self._connection)
        # The write-ahead log still holds the old pages.
        self._rows("PRAGMA wal_checkpoint(TRUNCATE)")
        return num_deleted

    def list(self, *, limit: int | None, with_empty: bool = False) -> list[Session]:
        """Sessions, the most recently updated first; those in which nothing stands only `with_empty`."""
        most = -1 if limit is None else limit
        which = "" if with_empty else "WHERE num_turns > 0"
        return [
            _session(row) for row in self._rows(f"{SELECT_SESSIONS} {which} {NEWEST_FIRST} LIMIT ?", most)
        ]

    def _rows(self, statement: str, *values: Any) -> Any:
        with explained(self.path):
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with explained(self.path), transaction(self._connection):
            yield

    def _check_free(self, name: str, *, session_id: int | None = None) -> None:
        rows = self._rows("SELECT id FROM sessions WHERE name = ?", check_name(name))
        if rows and rows[0][0] != session_id:
            raise UsageError(
                f"there is a session {name!r} already, number {rows[0][0]}", hint="choose another name"
            )

    def _recount(self, session_id: int) -> None:
        """Bring what a session says about its turns into line with them."""
        rows = self._connection.execute(
            "SELECT role, content FROM turns WHERE session_id = ? AND NOT is_retracted ORDER BY id",
            (session_id,),
        ).fetchall()
        titles = (title_of(content) for role, content in rows if role == "user")
        title = next(filter(None, titles), "")
        self._connection.execute(
            "UPDATE sessions SET num_turns = ?, title = ?, updated = ? WHERE id = ?",
            (len(rows), title, time.time(), session_id),
        )

    def _last_turns_by_name(self, limit: int) -> Iterator[tuple[Turn, str]]:
        """The last turn, and the name, of each session whose name holds all words of `match_words`."""
        statement = f"{SELECT_SESSIONS} WHERE {NAMED} AND holds_words(name) {NAMED_ORDER} LIMIT ?"
        for session_id, name, *_ in self._rows(statement, limit):
            for row in self._rows(f"{SELECT_TURNS} ORDER BY is_retracted, id DESC LIMIT 1", session_id):
                yield _turn(row), name

    def _sessions_of(self, turns: Sequence[Turn]) -> dict[int, Session]:
        ids = {turn.session_id for turn in turns}
        rows = [row for one in ids for row in self._rows(f"{SELECT_SESSIONS} WHERE id = ?", one)]
        return {row[0]: _session(row) for row in rows}


def _session(row: Sequence[Any]) -> Session:
    return Session(**dict(zip(_SESSION, row, strict=True)))


def _turn(row: Sequence[Any]) -> Turn:
    values = dict(zip(_TURN, row, strict=True))
    return Turn(**{**values, "is_retracted": bool(values["is_retracted"])})


def _storable(value: Any) -> Any:
    """A text as SQLite can keep it; anything else as it is."""
    return _HALF_CHARACTER.sub("�", value) if isinstance(value, str) else value


def _new_id(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _near(text: str, names: Sequence[str]) -> Sequence[str]:
    from difflib import get_close_matches

    by_folded = {name.casefold(): name for name in names}
    return [by_folded[folded] for folded in get_close_matches(text.casefold(), by_folded, n=3)]


def _no_session(text: str | int, *, near: Sequence[str] = ()) -> NotFoundError:
    similar = f"did you mean {' or '.join(near)}? " if near else ""
    return NotFoundError(f"no such session: {text}", hint=f"{similar}`llmctl logs list` shows all")
