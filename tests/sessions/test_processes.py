"""Several processes at one log, and one that is killed."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from llmctl.sessions import schema
from llmctl.sessions.store import SessionLog
from tests.conftest import ROOT
from tests.sessions.talk import contents
from tests.sessions.test_schema import version_1

APPEND = """
import sys
from pathlib import Path
from llmctl.sessions.store import NewTurn, SessionLog

path, session_id, word, number = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
with SessionLog.open(path) as log:
    for n in range(number):
        content = f"{word} {n} " + "and so on " * 50
        print(log.append(session_id, NewTurn(role="user", content=content)), n, flush=True)
"""
OPEN = """
import sys
from pathlib import Path
from llmctl.sessions.store import SessionLog

print("ready", flush=True)
sys.stdin.readline()
with SessionLog.open(Path(sys.argv[1])) as log:
    print(len(log.search("sentence", limit=None)), flush=True)
"""


def started(script: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def outputs(*processes: subprocess.Popen[str]) -> list[str]:
    """What each has printed, when all have ended well."""
    found = [process.communicate(timeout=60) for process in processes]
    assert [err for _, err in found] == [""] * len(processes)
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [out for out, _ in found]


def test_two_processes_that_append_to_one_session_lose_nothing(path: Path) -> None:
    with SessionLog.open(path) as log:
        session_id = log.start()
        told = outputs(*(started(APPEND, path, session_id, word, 200) for word in ("left", "right")))
        turns = log.turns(session_id)
        assert log.find(str(session_id)).num_turns == len(turns) == 400
        assert len(log.search("so on", limit=None)) == 400
    # Each process's turns stand in its order, and the ids in that of all.
    assert [turn.id for turn in turns] == sorted(
        int(line.split()[0]) for out in told for line in out.splitlines()
    )
    for word in ("left", "right"):
        own = [int(content.split()[1]) for content in contents(turns) if content.startswith(word)]
        assert own == list(range(200))


def test_a_kill_loses_no_turn_that_was_acknowledged(path: Path) -> None:
    with SessionLog.open(path) as log:
        session_id = log.start()
    for word in ("first", "second"):
        process = started(APPEND, path, session_id, word, 100_000)
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        rest, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (-signal.SIGKILL, "")
        acknowledged += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        with SessionLog.open(path) as log:
            turns = {turn.id: turn.content for turn in log.turns(session_id)}
            own = [content for content in turns.values() if content.startswith(word)]
            for line in acknowledged:
                turn_id, number = line.split()
                assert turns[int(turn_id)].startswith(f"{word} {number} ")
            # At most the one that was being written is there beside them.
            assert len(acknowledged) <= len(own) <= len(acknowledged) + 1
            assert log.find(str(session_id)).num_turns == len(turns)
            assert len(log.search(word, limit=None)) == len(own)
            assert log._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("is_old", [True, False], ids=["an old file", "no file yet"])
def test_processes_that_open_it_at_once_migrate_it_once(path: Path, is_old: bool) -> None:
    num_sessions = 500 if is_old else 0
    if is_old:
        version_1(path, num_sessions=num_sessions)
    processes = [started(OPEN, path) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert outputs(*processes) == [f"{2 * num_sessions}\n"] * 4
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert connection.execute("SELECT count(*) FROM search_state").fetchone() == (1,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
