"""Which turns hold given words, inside longer ones too: a trigram index narrows down, a comparison decides.

The index is only an aid. An SQLite without FTS5 compares every turn, and leaves the index out of date; the
next SQLite that has FTS5 makes it anew. `search_state.is_current` says whether it can be relied on.
"""

import re
import sqlite3
from collections.abc import Sequence

TRIGRAM_SINCE = (3, 34, 0)
MAX_TRIGRAMS = 24
"""More narrow nothing down, and FTS5 limits the depth of a query."""
_BEFORE_CHARS, _SNIPPET_CHARS = 30, 110

# Without positions (`detail=none`) the index is as large as the text, with them four times. Without `content`
# it keeps no copy of the text either, and must be told what it is to forget.
_CREATE = """
    CREATE VIRTUAL TABLE IF NOT EXISTS turn_words
    USING fts5 (folded, content='', detail=none, tokenize='trigram')
"""
# CROSS JOIN: SQLite is to start with the index, whose order is that of the turns.
FROM_INDEX = (
    "FROM turn_words CROSS JOIN turns ON turns.id = turn_words.rowid"
    " WHERE turn_words MATCH ? AND holds_words(turns.content) ORDER BY turn_words.rowid DESC LIMIT ?"
)
FROM_SCAN = "FROM turns WHERE holds_words(content) ORDER BY id DESC LIMIT ?"


def words_of(query: str) -> tuple[str, ...]:
    """The words of a query, without regard to case; nothing in it has a meaning beyond its letters."""
    return tuple(_fold(query).split())


def prepare(connection: sqlite3.Connection) -> None:
    """Give the connection what the statements of this module call."""
    connection.create_function("fold", 1, _fold, deterministic=True)


def has_trigrams(connection: sqlite3.Connection) -> bool:
    """Whether this SQLite can keep the index."""
    if sqlite3.sqlite_version_info < TRIGRAM_SINCE:
        return False
    return bool(connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchall())


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether the index holds all turns."""
    row = connection.execute("SELECT is_current FROM search_state").fetchone()
    return row is not None and bool(row[0])


def build(connection: sqlite3.Connection) -> None:
    """Make the index of all turns, unless another process has just done it; inside a transaction."""
    if is_current(connection):
        return
    connection.execute(_CREATE)
    connection.execute("INSERT INTO turn_words (turn_words) VALUES ('delete-all')")
    connection.execute("INSERT INTO turn_words (rowid, folded) SELECT id, fold(content) FROM turns")
    connection.execute("UPDATE search_state SET is_current = 1")


def add(connection: sqlite3.Connection, turn_id: int) -> None:
    """Index a turn that was just written, in the same transaction."""
    if _is_writable(connection):
        connection.execute(
            "INSERT INTO turn_words (rowid, folded) SELECT id, fold(content) FROM turns WHERE id = ?",
            (turn_id,),
        )


def forget(connection: sqlite3.Connection, session_id: int) -> None:
    """Take the turns of a session out, before they are deleted in the same transaction."""
    if _is_writable(connection):
        connection.execute(
            "INSERT INTO turn_words (turn_words, rowid, folded)"
            " SELECT 'delete', id, fold(content) FROM turns WHERE session_id = ?",
            (session_id,),
        )


def compact(connection: sqlite3.Connection) -> None:
    """Write the index anew without what was taken out, which could be read from the file till then."""
    if _is_writable(connection):
        connection.execute("INSERT INTO turn_words (turn_words) VALUES ('optimize')")


def turn_rows(
    connection: sqlite3.Connection, columns: str, words: Sequence[str], *, limit: int
) -> list[tuple[object, ...]]:
    """`columns` of the turns that hold all words, those of `match_words`, newest first; -1 is no limit."""
    match = _match_expression(words)
    if match and is_current(connection) and has_trigrams(connection):
        return connection.execute(f"SELECT {columns} {FROM_INDEX}", (match, limit)).fetchall()
    return connection.execute(f"SELECT {columns} {FROM_SCAN}", (limit,)).fetchall()


def match_words(connection: sqlite3.Connection, words: Sequence[str]) -> None:
    """Have the SQL function `holds_words(text)` look for these from now on."""

    def holds_words(text: str) -> bool:
        folded = _fold(text)
        return all(word in folded for word in words)

    connection.create_function("holds_words", 1, holds_words, deterministic=True)


def snippet(text: str, words: Sequence[str]) -> str:
    """One line of `text` around the first of `words`."""
    found = re.search("|".join(map(re.escape, words)), text, re.IGNORECASE)
    # Folding finds what upper and lower case do not (ß in SS): then the beginning has to do.
    begin = max(0, found.start() - _BEFORE_CHARS) if found else 0
    end = begin + _SNIPPET_CHARS
    line = " ".join(text[begin:end].split())
    return f"{'…' if begin else ''}{line}{'…' if end < len(text) else ''}"


def _is_writable(connection: sqlite3.Connection) -> bool:
    """Whether the index is to be kept in step; where that is impossible it is marked as out of date."""
    if not is_current(connection):
        return False
    if not has_trigrams(connection):
        connection.execute("UPDATE search_state SET is_current = 0")
        return False
    return True


def _fold(text: str) -> str:
    # FTS5 reads no further than a NUL.
    return text.casefold().replace("\0", " ")


def _match_expression(words: Sequence[str]) -> str:
    """What FTS5 is asked: the trigrams of the words; "" when no word is long enough to have one."""
    trigrams = dict.fromkeys(
        word[start : start + 3] for word in words for start in range(min(len(word) - 2, MAX_TRIGRAMS))
    )
    quoted = ['"{}"'.format(trigram.replace('"', '""')) for trigram in trigrams]
    return " AND ".join(quoted[:MAX_TRIGRAMS])
