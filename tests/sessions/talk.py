"""Turns to put into a log."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from llmctl.sessions.store import NewTurn, SessionLog


def user(content: str, **details: Any) -> NewTurn:
    """Something that the user says."""
    return NewTurn(role="user", content=content, **details)


def assistant(content: str, **details: Any) -> NewTurn:
    """Something that a model says."""
    return NewTurn(role="assistant", content=content, **details)


def talk(log: SessionLog, *texts: str, name: str | None = None) -> int:
    """A session in which user and assistant take turns; returns its id."""
    session_id = log.start(name=name)
    for number, text in enumerate(texts):
        log.append(session_id, user(text) if number % 2 == 0 else assistant(text, model="demo"))
    return session_id


def contents(turns: Iterable[Any]) -> list[str]:
    """What was said in turns."""
    return [turn.content for turn in turns]


def fill(connection: sqlite3.Connection, *, num_sessions: int, turns_per_session: int) -> None:
    """Many turns in one transaction, in a file of the first version, so that the index is made at once.

    Session n is about `matter n`; turn m of all says `sentence m` and holds some words that are everywhere.
    """
    num_turns = num_sessions * turns_per_session
    connection.executescript(
        f"""
        BEGIN;
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {num_sessions})
        INSERT INTO sessions (id, title, model, created, updated, num_turns)
        SELECT n, 'matter ' || n, 'demo', 1e9 + n, 1e9 + n, {turns_per_session} FROM numbers;
        WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {num_turns - 1})
        INSERT INTO turns (session_id, created, role, content, model)
        SELECT 1 + n / {turns_per_session}, 1e9 + n, iif(n % 2, 'assistant', 'user'),
            'sentence ' || (n + 1) || ' of the matter ' || (1 + n / {turns_per_session}) || '.', 'demo'
        FROM numbers;
        COMMIT;
        """
    )
