"""Search: parts of words in any script, plain text only, the same with and without the index."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.sessions import fulltext
from llmctl.sessions.store import NAMED, NAMED_ORDER, NEWEST_FIRST, SELECT_SESSIONS, SELECT_TURNS, SessionLog
from tests.conftest import ROOT
from tests.sessions.talk import contents, fill, talk, user
from tests.sessions.test_schema import VERSION_1

NUM_TURNS, TURNS_PER_SESSION = 100_000, 10
CPU_CAP_S = 2.0


@pytest.fixture(params=[True, False], ids=["with the index", "without FTS5"])
def either(
    path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SessionLog]:
    """A log in an SQLite that has FTS5, and in one that has not."""
    if not request.param:
        without_fts5(monkeypatch)
    with SessionLog.open(path) as log:
        assert fulltext.is_current(log._connection) is request.param
        yield log


def without_fts5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fulltext, "has_trigrams", lambda _connection: False)


def found(log: SessionLog, query: str, *, limit: int | None = None) -> list[str]:
    return contents(hit.turn for hit in log.search(query, limit=limit))


def statements_of(log: SessionLog, work: Callable[[], object]) -> list[str]:
    """The SQL that `work` runs."""
    run: list[str] = []
    log._connection.set_trace_callback(run.append)
    work()
    log._connection.set_trace_callback(None)
    return run


TEXTS = (
    "The quick brown fox",
    "Größe und STRASSE",
    "Straße",
    "今日は東京に行きます",
    "東京都",
    "Привет, МИР",
    "ΟΔΥΣΣΕΥΣ",
    "emoji 👩‍🚀 here",
    'say "hello" AND (goodbye) NOT* a-b',
    "foxes run",
    "nul\0behind",
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("quick", ["The quick brown fox"]),
        ("QUICK", ["The quick brown fox"]),
        ("uic row", ["The quick brown fox"]),
        ("fox", ["foxes run", "The quick brown fox"]),
        ("fox run", ["foxes run"]),
        ("fo", ["foxes run", "The quick brown fox"]),
        ("fox es", ["foxes run"]),
        ("größe", ["Größe und STRASSE"]),
        ("strasse", ["Straße", "Größe und STRASSE"]),
        ("straße", ["Straße", "Größe und STRASSE"]),
        ("東京", ["東京都", "今日は東京に行きます"]),
        ("京", ["東京都", "今日は東京に行きます"]),
        ("東京に行き", ["今日は東京に行きます"]),
        ("мир", ["Привет, МИР"]),
        ("οδυσσευς", ["ΟΔΥΣΣΕΥΣ"]),
        ("👩‍🚀", ["emoji 👩‍🚀 here"]),
        ("behind", ["nul\0behind"]),
        ("nul\0behind", ["nul\0behind"]),
        ("absent", []),
        ("fox absent", []),
        ("", []),
        (" \t\n", []),
    ],
)
def test_all_words_must_occur_in_whatever_case_and_script(
    either: SessionLog, query: str, expected: list[str]
) -> None:
    talk(either, *TEXTS)
    assert found(either, query) == expected


@pytest.mark.parametrize(
    ("query", "num_found"),
    [
        ('"hello"', 1),
        ('"', 1),
        ('"""', 0),
        ("NOT*", 1),
        ("NOT", 1),
        ("fox NOT run", 0),
        ("fox OR absent", 0),
        ("fox*", 0),
        ("(goodbye)", 1),
        ("a-b", 1),
        ("-b", 1),
        ("--absent", 0),
        ("folded:fox", 0),
        ("^The", 0),
        ("NEAR(quick fox)", 0),
        ("{", 0),
        ("100%", 0),
        ("f_x", 0),
        ("'; DROP TABLE turns; --", 0),
        ("\\", 0),
        ("\ud800", 0),
    ],
)
def test_a_query_is_text_and_nothing_in_it_an_operator(
    either: SessionLog, query: str, num_found: int
) -> None:
    talk(either, *TEXTS)
    assert len(found(either, query)) == num_found


@pytest.mark.parametrize("repeats", [1, 60, 5000])
def test_a_long_query_is_compared_to_its_end(either: SessionLog, repeats: int) -> None:
    passage = " ".join(f"word{number}" for number in range(repeats))
    talk(either, passage, passage + "x")
    assert found(either, f"{passage}y") == []
    assert len(found(either, passage)) == 2
    assert found(either, f"{passage}x") == [passage + "x"]


LETTERS = st.text(st.sampled_from("aAbB cßSéÉ漢字かΣσς\0\"'*-%_İıﬁ😀\n"), max_size=12)


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(LETTERS, max_size=5), query=LETTERS)
def test_the_index_finds_what_a_comparison_of_all_finds(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], query: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "compared" / "log.db"
    with SessionLog.open(path) as log:
        log.delete([session.id for session in log.list(limit=None)])
        talk(log, *texts)
        words = query.casefold().replace("\0", " ").split()
        expected = [
            text
            for text in reversed(texts)
            if words and all(word in text.casefold().replace("\0", " ") for word in words)
        ]
        assert found(log, query) == expected


def test_the_newest_come_first_and_as_many_as_wanted(either: SessionLog) -> None:
    talk(either, *(f"same {number}" for number in range(5)))
    assert found(either, "same", limit=2) == ["same 4", "same 3"]
    assert found(either, "sa", limit=2) == ["same 4", "same 3"]
    assert len(found(either, "same")) == 5


def test_a_session_is_found_by_its_name_through_its_last_turn(either: SessionLog) -> None:
    talk(either, "unrelated", "words", name="Trip to Rome")
    talk(either, "something else", name="taxes")
    either.start(name="roman empire")
    (hit,) = either.search("rom tri", limit=5)
    assert (hit.session.name, hit.turn.content, hit.snippet) == ("Trip to Rome", "words", "Trip to Rome")


def test_a_turn_that_matches_beside_its_name_is_one_hit(either: SessionLog) -> None:
    talk(either, "Rome?", "Rome.", name="Rome")
    talk(either, "a later one about rome")
    assert [hit.snippet for hit in either.search("rome", limit=9)] == [
        "a later one about rome",
        "Rome.",
        "Rome?",
    ]
    assert len(either.search("rome", limit=2)) == 2


def test_retracted_turns_are_found_and_marked(either: SessionLog) -> None:
    session_id = talk(either, "needle")
    either.retract([either.turns(session_id)[0].id])
    (hit,) = either.search("needle", limit=5)
    assert hit.turn.is_retracted


def test_deleted_turns_are_not_found(either: SessionLog) -> None:
    first, second = talk(either, "needle one"), talk(either, "needle two")
    either.delete([first])
    assert found(either, "needle") == ["needle two"]
    either.delete([second])
    assert found(either, "needle") == []


def test_the_index_forgets_what_was_deleted(log: SessionLog) -> None:
    kept, deleted = talk(log, "common kept"), talk(log, "common zebra")
    log.delete([deleted])
    execute = log._connection.execute
    for trigram, num_left in (("zeb", 0), ("com", 1)):
        query = "SELECT count(*) FROM turn_words WHERE turn_words MATCH ?"
        assert execute(query, (f'"{trigram}"',)).fetchone() == (num_left,)
    execute("INSERT INTO turn_words (turn_words) VALUES ('integrity-check')")
    assert found(log, "common") == contents(log.turns(kept))


def test_the_index_does_not_keep_aside_what_was_deleted(log: SessionLog) -> None:
    def num_bytes() -> int:
        (size,) = log._connection.execute("SELECT sum(length(block)) FROM turn_words_data").fetchone()
        return int(size)

    talk(log, "kept")
    before = num_bytes()
    log.delete([talk(log, "".join(map(chr, range(0x4E00, 0x5E00))))])
    assert num_bytes() <= before + 20


@pytest.mark.parametrize(
    ("text", "query", "snippet"),
    [
        ("short", "short", "short"),
        ("line one\nline two", "two", "line one line two"),
        ("x " * 500 + "needle" + " y" * 500, "needle", "…" + "x " * 15 + "needle" + " y" * 37 + "…"),
        ("needle" + " y" * 500, "NEEDLE", "needle" + " y" * 52 + "…"),
        ("Straße " + "y" * 10, "STRASSE", "Straße yyyyyyyyyy"),
    ],
)
def test_a_snippet_is_one_line_around_the_match(log: SessionLog, text: str, query: str, snippet: str) -> None:
    talk(log, text)
    (hit,) = log.search(query, limit=1)
    assert hit.snippet == snippet


def test_long_words_go_through_the_index_and_short_ones_do_not(log: SessionLog) -> None:
    talk(log, "needle in hay")
    assert any("MATCH" in text for text in statements_of(log, lambda: log.search("needle", limit=5)))
    assert any("MATCH" in text for text in statements_of(log, lambda: log.search("in needle", limit=5)))
    assert not any("MATCH" in text for text in statements_of(log, lambda: log.search("in", limit=5)))


def test_an_sqlite_without_fts5_leaves_a_log_that_one_with_it_repairs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SessionLog.open(path) as log:
        session_id = talk(log, "needle one")
    with monkeypatch.context() as patch:
        without_fts5(patch)
        with SessionLog.open(path) as log:
            log.append(session_id, user("needle two"))
            assert found(log, "needle") == ["needle two", "needle one"]
            assert not fulltext.is_current(log._connection)
    with SessionLog.open(path) as log:
        assert fulltext.is_current(log._connection)
        assert any("MATCH" in text for text in statements_of(log, lambda: log.search("needle", limit=5)))
        assert found(log, "needle") == ["needle two", "needle one"]


def test_this_sqlite_is_asked_whether_it_has_trigrams(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = log._connection
    can = True
    try:
        connection.execute("CREATE VIRTUAL TABLE temp.probe USING fts5 (x, tokenize='trigram')")
    except sqlite3.OperationalError:
        can = False
    assert fulltext.has_trigrams(connection) is can
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 33, 0))
    assert not fulltext.has_trigrams(connection)


# A big log


def plan(log: SessionLog, statement: str, *values: object) -> str:
    rows = log._connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    return "; ".join(row[-1] for row in rows)


def big_log(path: Path) -> Path:
    """A log of `NUM_TURNS` turns in sessions of `TURNS_PER_SESSION`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(VERSION_1)
        fill(connection, num_sessions=NUM_TURNS // TURNS_PER_SESSION, turns_per_session=TURNS_PER_SESSION)
    return path


def num_steps(log: SessionLog, work: Callable[[], object]) -> int:
    """Instructions that SQLite's machine takes for `work`, to the next hundred."""
    steps = count(1)
    last = 0

    def tick() -> int:
        nonlocal last
        last = next(steps)
        return 0

    log._connection.set_progress_handler(tick, 100)
    work()
    log._connection.set_progress_handler(None, 0)
    return 100 * last


def test_a_log_of_a_hundred_thousand_turns_is_not_read_through(path: Path) -> None:
    with SessionLog.open(big_log(path)) as log:
        assert len(log.list(limit=None)) == NUM_TURNS // TURNS_PER_SESSION
        for work in (
            lambda: log.list(limit=20),
            log.latest,
            lambda: log.turns(5000),
            lambda: log.find("5000"),
            lambda: log.search("sentence matter", limit=20),
            lambda: log.search("sentence 77777", limit=20),
            lambda: log.append(5000, user("one more")),
        ):
            assert num_steps(log, work) <= 5000
        # What this would show of a statement that reads all turns: two letters have no trigram.
        assert num_steps(log, lambda: log.search("zq", limit=20)) >= NUM_TURNS
        assert found(log, "sentence 77777 of") == ["sentence 77777 of the matter 7778."]


def test_every_statement_uses_its_index(log: SessionLog) -> None:
    listing = plan(log, f"{SELECT_SESSIONS} {NEWEST_FIRST} LIMIT 20")
    assert "sessions_by_update" in listing
    assert "TEMP B-TREE" not in listing
    turns = plan(log, f"{SELECT_TURNS} AND NOT is_retracted ORDER BY id", 1)
    assert "turns_by_session" in turns
    assert "TEMP B-TREE" not in turns
    fulltext.match_words(log._connection, ["abc"])
    searching = plan(log, f"SELECT turns.id {fulltext.FROM_INDEX}", '"abc"', 20)
    named = plan(log, f"{SELECT_SESSIONS} WHERE {NAMED} AND holds_words(name) {NAMED_ORDER} LIMIT 20")
    assert named.startswith("SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (name>?)")
    assert searching.startswith("SCAN turn_words VIRTUAL TABLE INDEX")
    assert "TEMP B-TREE" not in searching


@pytest.mark.heavy
def test_list_and_search_of_a_hundred_thousand_turns_are_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMCTL_DATA_HOME", str(tmp_path))
    SessionLog.open(big_log(tmp_path / "log.db")).close()
    for args in (["list"], ["search", "sentence", "77777"], ["search", "matter"], ["search", "zq"], ["show"]):
        begin = time.perf_counter()
        process = psutil.Popen(
            [sys.executable, "-m", "llmctl", "logs", *args],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        before = psutil.Process().cpu_times()
        _, err = process.communicate()
        after = psutil.Process().cpu_times()
        cpu_s = sum(after[2:4]) - sum(before[2:4])
        with capsys.disabled():
            wall_s = time.perf_counter() - begin
            sys.stdout.write(f"\nllmctl logs {' '.join(args)}: {cpu_s:.2f} s CPU, {wall_s:.2f} s\n")
        assert process.returncode == 0, err
        assert cpu_s <= CPU_CAP_S
