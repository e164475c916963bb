"""The file: private, migrated step by step, and refused with a reason when it cannot be used."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from llmctl.core.errors import BadFileError, DoesNotFitError, LlmctlError
from llmctl.sessions import fulltext, schema
from llmctl.sessions.store import SessionLog
from tests.sessions.talk import contents, fill, talk, user

# As the first version made it, word for word: schema.py may not change what files out there look like.
VERSION_1 = """
PRAGMA application_id = 1819045219;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, title TEXT NOT NULL DEFAULT '', model TEXT,
    created REAL NOT NULL, updated REAL NOT NULL, num_turns INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE turns (
    id INTEGER PRIMARY KEY AUTOINCREMENT, session_id INTEGER NOT NULL REFERENCES sessions (id),
    created REAL NOT NULL, is_retracted INTEGER NOT NULL DEFAULT 0, role TEXT NOT NULL, content TEXT NOT NULL,
    reasoning TEXT NOT NULL DEFAULT '', model TEXT, endpoint TEXT, finish_reason TEXT,
    prompt_tokens INTEGER, completion_tokens INTEGER, first_token_s REAL, total_s REAL
);
CREATE INDEX sessions_by_update ON sessions (updated, id);
CREATE INDEX turns_by_session ON turns (session_id, id);
PRAGMA user_version = 1;
"""


def version_1(path: Path, *, num_sessions: int = 3) -> Path:
    """A file of the first version, with two turns in each session."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
        fill(connection, num_sessions=num_sessions, turns_per_session=2)
    return path


def query(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_log_is_of_the_latest_version(log: SessionLog, path: Path) -> None:
    assert query(path, "PRAGMA user_version") == [(schema.VERSION,)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert schema.VERSION >= 2


def test_only_the_owner_can_read_any_of_its_files(log: SessionLog, path: Path) -> None:
    talk(log, "x")
    names = {file.name: mode_of(file) for file in path.parent.iterdir()}
    assert names == dict.fromkeys(("log.db", "log.db-wal", "log.db-shm"), 0o600)
    assert mode_of(path.parent) == 0o700


def test_files_that_others_could_read_are_mended(log: SessionLog, path: Path) -> None:
    talk(log, "x")
    for file in path.parent.iterdir():
        file.chmod(0o644)
    with SessionLog.open(path):
        assert {mode_of(file) for file in path.parent.iterdir()} == {0o600}


def test_a_usual_umask_and_a_loose_one_make_no_difference(path: Path) -> None:
    before = os.umask(0)
    try:
        with SessionLog.open(path) as log:
            talk(log, "x")
            assert {mode_of(file) for file in path.parent.iterdir()} == {0o600}
    finally:
        os.umask(before)


def test_an_old_file_keeps_its_conversations_and_learns_to_search(path: Path) -> None:
    with SessionLog.open(version_1(path)) as log:
        assert [session.title for session in log.list(limit=None)] == ["matter 3", "matter 2", "matter 1"]
        assert contents(log.turns(2)) == ["sentence 3 of the matter 2.", "sentence 4 of the matter 2."]
        assert [hit.turn.id for hit in log.search("MATTER 2.", limit=9)] == [4, 3]
        log.append(2, user("and more of matter 2."))
        assert [hit.turn.id for hit in log.search("matter 2.", limit=9)] == [7, 4, 3]
    assert query(path, "PRAGMA user_version") == [(schema.VERSION,)]


def test_an_old_file_and_a_new_one_end_up_the_same(path: Path, tmp_path: Path) -> None:
    def tables(file: Path) -> list[tuple[str, str]]:
        rows = query(file, "SELECT name, sql FROM sqlite_master ORDER BY name")
        columns = ((str(name), str(sql).partition("--")[0]) for name, sql in rows)
        return [(name, sql) for name, sql in columns if not name.startswith("sqlite_autoindex")]

    SessionLog.open(version_1(path)).close()
    SessionLog.open(tmp_path / "new.db").close()
    old, new = tables(path), tables(tmp_path / "new.db")
    assert [name for name, _ in old] == [name for name, _ in new]
    for table in ("sessions", "turns", "search_state"):
        info = f"SELECT * FROM pragma_table_info('{table}')"
        assert query(path, info) == query(tmp_path / "new.db", info) != []


def test_a_migration_that_fails_leaves_the_file_at_its_version(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (*schema.MIGRATIONS[1], "CREATE TABLE sessions (twice)")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (schema.MIGRATIONS[0], broken))
        with pytest.raises(LlmctlError, match="already exists"):
            SessionLog.open(version_1(path))
    assert query(path, "PRAGMA user_version") == [(1,)]
    assert query(path, "SELECT count(*) FROM sqlite_master WHERE name = 'search_state'") == [(0,)]
    with SessionLog.open(path) as log:
        assert len(log.search("sentence", limit=None)) == 6


def test_an_index_that_was_not_finished_is_made_at_the_next_opening(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_connection: sqlite3.Connection) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fulltext, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            SessionLog.open(version_1(path))
    assert query(path, "SELECT is_current FROM search_state") == [(0,)]
    SessionLog.open(path).close()
    assert query(path, "SELECT is_current FROM search_state") == [(1,)]


def test_a_file_of_a_newer_llmctl_is_left_alone(log: SessionLog, path: Path) -> None:
    log.close()
    query(path, f"PRAGMA user_version = {schema.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(
        BadFileError, match=f"version {schema.VERSION + 1}, .* up to {schema.VERSION}"
    ) as caught:
        SessionLog.open(path)
    assert str(path) in caught.value.message
    assert "update llmctl" in str(caught.value.hint)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statements",
    ["CREATE TABLE theirs (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 5; CREATE TABLE x (y)"],
)
def test_a_database_of_another_program_is_left_alone(path: Path, statements: str) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
    before = path.read_bytes()
    with pytest.raises(BadFileError, match="of another program") as caught:
        SessionLog.open(path)
    assert str(path) in caught.value.message
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database, only some text\n" * 50, b"\0" * 4096, b"x"])
def test_a_file_that_is_no_database_is_refused_with_a_remedy(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(BadFileError) as caught:
        SessionLog.open(path)
    assert str(path) in caught.value.message
    assert "move it away" in str(caught.value.hint)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_log(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with SessionLog.open(path) as log:
        assert talk(log, "x") == 1


def test_a_damaged_page_is_told_with_path_and_remedy(log: SessionLog, path: Path) -> None:
    session_id = talk(log, *("some text " * 500 for _ in range(40)))
    log.close()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xaa" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(BadFileError) as caught, SessionLog.open(path) as again:
        again.turns(session_id)
    assert f"{path} is damaged" in caught.value.message
    assert "move it away" in str(caught.value.hint)


def test_a_file_that_lacks_a_table_is_damaged(log: SessionLog, path: Path) -> None:
    log.close()
    query(path, "DROP TABLE turns")
    with pytest.raises(BadFileError, match="damaged: no such table"), SessionLog.open(path) as again:
        again.turns(1)


def test_a_full_disk_is_told_and_what_was_there_stays(log: SessionLog, path: Path) -> None:
    session_id = talk(log, "before")
    (num_pages,) = log._connection.execute("PRAGMA page_count").fetchone()
    log._connection.execute(f"PRAGMA max_page_count = {num_pages + 2}")
    with pytest.raises(DoesNotFitError, match="full") as caught:
        log.append(session_id, user("x" * 1_000_000))
    assert str(path) in caught.value.message
    assert contents(log.turns(session_id)) == ["before"]
    log._connection.execute("PRAGMA max_page_count = 1000000")
    log.append(session_id, user("after"))
    assert contents(log.turns(session_id)) == ["before", "after"]


def test_a_log_that_may_not_be_written_is_told(log: SessionLog, path: Path) -> None:
    session_id = talk(log, "before")
    log._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(LlmctlError, match="readonly database") as caught:
        log.append(session_id, user("x"))
    assert str(path) in caught.value.message


@pytest.mark.parametrize("place", ["/proc/llmctl/log.db", "file/log.db", "folder"])
def test_a_place_where_no_log_can_be_is_told_with_the_reason(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / place
    with pytest.raises(LlmctlError, match="cannot use the conversation log") as caught:
        SessionLog.open(path)
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 1
    assert "LLMCTL_DATA_HOME" in str(caught.value.hint)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LlmctlError, match="cannot use the conversation log"):
        SessionLog.open(tmp_path / "log.db")
    tmp_path.chmod(0o700)


def test_a_writer_that_never_ends_is_told_after_the_wait(log: SessionLog, path: Path) -> None:
    log._connection.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LlmctlError, match="another process has been writing"):
            log.start()
        other.execute("ROLLBACK")
    assert log.start() == 1


def test_writers_wait_for_each_other(log: SessionLog) -> None:
    assert log._connection.execute("PRAGMA busy_timeout").fetchone() == (10_000,)
