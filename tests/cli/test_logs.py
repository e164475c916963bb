"""`llmctl logs`: past conversations listed, shown, searched, exported and deleted."""

import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.cells import cell_len

from llmctl.core.name_list import SESSIONS
from llmctl.core.types import Message
from llmctl.sessions.formats import from_json
from llmctl.sessions.store import NewTurn, SessionLog
from tests.cli.test_config import table
from tests.conftest import ROOT, Ended, Llmctl
from tests.sessions.talk import assistant, contents, talk, user

NONE_KEPT = "no conversation has been kept yet\n"
HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b31m\rb\x7f\u202ec"


@pytest.fixture
def log() -> Iterator[SessionLog]:
    """The log that the command finds."""
    with SessionLog.open(Path(os.environ["LLMCTL_DATA_HOME"]) / "log.db") as opened:
        yield opened


@pytest.fixture
def rome(log: SessionLog) -> int:
    """A session with a name, a system message, reasoning, and something that was undone."""
    session_id = log.start(name="rome")
    log.append(session_id, NewTurn(role="system", content="Be brief."))
    log.append(session_id, user("Where is it?", model="demo"))
    wrong = log.append(session_id, assistant("In France.", model="demo"))
    log.retract([wrong])
    log.append(session_id, assistant("In Italy.", reasoning="Rome, so\nItaly.", model="demo", total_s=0.5))
    return session_id


def on_terminal(*args: str, answer: bytes | signal.Signals | None = None, width: int = 80) -> Ended:
    """Run the command at a terminal; `answer` is typed, or sent, once it has asked."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, width))
    process = subprocess.Popen(
        [sys.executable, "-m", "llmctl", "logs", *args], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    out = b""
    while select.select([ours], [], [], 20)[0]:
        try:
            out += os.read(ours, 65536)
        # The terminal is gone when nobody holds it open any more.
        except OSError:
            break
        if answer is not None and b"[y/N] " in out:
            if isinstance(answer, bytes):
                os.write(ours, answer)
            else:
                # One that comes between the question and the reading of the answer is noticed only after it.
                while psutil.Process(process.pid).status() != psutil.STATUS_SLEEPING:
                    time.sleep(0.01)
                process.send_signal(answer)
            answer = None
    else:
        process.kill()
    os.close(ours)
    return Ended(process.wait(timeout=20), out.decode().replace("\r\n", "\n"), "")


def fails(ended: Ended, code: int, *words: str) -> None:
    assert (ended.code, ended.out) == (code, "")
    assert len(ended.err.splitlines()) == 1
    assert [word for word in words if word not in ended.err] == []


# Without a log


@pytest.mark.parametrize(
    "args", [["list"], ["show"], ["show", "--all"], ["search", "x"], ["list", "-n", "0"]]
)
def test_without_a_log_the_output_is_empty_and_a_note_says_why(llmctl: Llmctl, args: list[str]) -> None:
    assert llmctl("logs", *args) == Ended(0, "", NONE_KEPT)
    assert not Path(os.environ["LLMCTL_DATA_HOME"]).exists()


@pytest.mark.parametrize(
    ("args", "empty"),
    [(["list"], []), (["show"], {}), (["search", "x"], []), (["delete", "--all"], {"deleted": 0})],
)
def test_without_a_log_json_is_empty_but_whole(llmctl: Llmctl, args: list[str], empty: object) -> None:
    ended = llmctl("logs", *args, "--json")
    assert (ended.code, json.loads(ended.out)) == (0, empty)


@pytest.mark.parametrize("args", [["show", "rome"], ["export", "rome"], ["delete", "rome", "--yes"]])
def test_without_a_log_a_named_session_is_not_found(llmctl: Llmctl, args: list[str]) -> None:
    fails(llmctl("logs", *args), 3, "no such session: rome")


def test_without_a_log_there_is_nothing_to_export(llmctl: Llmctl, tmp_path: Path) -> None:
    fails(llmctl("logs", "export", "-o", str(tmp_path / "out.md")), 3, "no conversation to export")
    assert not (tmp_path / "out.md").exists()


def test_an_empty_log_is_like_none(llmctl: Llmctl, log: SessionLog) -> None:
    assert llmctl("logs", "list") == Ended(0, "", NONE_KEPT)
    assert llmctl("logs", "show") == Ended(0, "", NONE_KEPT)


def test_quiet_leaves_the_note_out(llmctl: Llmctl) -> None:
    assert llmctl("logs", "list", "-q") == Ended(0, "", "")


# list


def test_the_list_has_a_line_for_each_session_the_newest_first(
    llmctl: Llmctl, log: SessionLog, rome: int
) -> None:
    talk(log, "Hello there,\nhow are you?")
    ended = llmctl("logs", "list")
    assert (ended.code, ended.err) == (0, "")
    header, second, first = table(ended.out)
    assert header == ["ID", "NAME", "UPDATED", "TURNS", "MODEL", "TITLE"]
    today = f"{datetime.now():%Y-%m-%d}"
    assert second[2].startswith(today) or datetime.now() - datetime.fromisoformat(second[2]) < timedelta(
        minutes=2
    )
    assert second[:2] + second[3:] == ["2", "-", "1", "-", "Hello there, how are you?"]
    assert first[:2] + first[3:] == ["1", "rome", "3", "demo", "Where is it?"]


def test_the_list_as_json_is_one_array(llmctl: Llmctl, log: SessionLog, rome: int) -> None:
    talk(log, "two")
    second, first = json.loads(llmctl("logs", "list", "--json").out)
    assert (second["id"], second["name"], second["title"], second["model"]) == (2, None, "two", None)
    assert (first["id"], first["name"], first["num_turns"], first["model"]) == (1, "rome", 3, "demo")
    assert abs(datetime.fromisoformat(first["updated"]).timestamp() - time.time()) < 60
    assert set(first) == {"id", "name", "title", "model", "created", "updated", "num_turns"}


@pytest.mark.parametrize(
    ("args", "num_lines"), [([], 20), (["-n", "3"], 3), (["-n", "0"], 25), (["-n", "99"], 25)]
)
def test_the_list_is_as_long_as_wanted(
    llmctl: Llmctl, log: SessionLog, args: list[str], num_lines: int
) -> None:
    for number in range(25):
        talk(log, f"talk {number}")
    assert len(llmctl("logs", "list", *args).out.splitlines()) == 1 + num_lines


@pytest.mark.parametrize("command", ["list", "search"])
def test_a_number_below_zero_is_refused(llmctl: Llmctl, command: str) -> None:
    words = ["x"] if command == "search" else []
    fails(llmctl("logs", command, *words, "-n", "-1"), 2, "'-n'")


def test_columns_line_up_by_the_width_of_their_characters(llmctl: Llmctl, log: SessionLog) -> None:
    for name in ("東京旅行", "plain", "👩 emoji"):
        talk(log, "title", name=name)
    lines = llmctl("logs", "list").out.splitlines()
    assert len({cell_len(line[: line.index("title")]) for line in lines[1:]}) == 1


@pytest.mark.parametrize("width", [60, 100])
def test_lines_are_cut_to_a_terminal_and_whole_in_a_pipe(llmctl: Llmctl, log: SessionLog, width: int) -> None:
    session_id = log.start(name="長い名前" * 10)
    log.append(session_id, user("題" * 60, model="model/" + "x" * 80))
    lines = on_terminal("list", width=width).out.splitlines()
    assert len(lines) == 2
    assert all(cell_len(line) <= width for line in lines)
    assert lines[1].endswith("…")
    piped = llmctl("logs", "list").out
    assert "長い名前" * 10 in piped
    assert "x" * 80 in piped


def test_a_narrow_terminal_gets_titles_on_lines_of_their_own(log: SessionLog) -> None:
    session_id = log.start(name="長い名前" * 10)
    log.append(session_id, user("題" * 30, model="model/" + "x" * 80))
    lines = on_terminal("list", width=30).out.splitlines()
    assert all(cell_len(line) <= 30 for line in lines)
    assert lines[0].startswith("1  長い")
    assert "".join(line.strip() for line in lines[1:]) == "題" * 30


def test_a_terminal_shows_all_of_what_a_search_found(log: SessionLog) -> None:
    log.append(log.start(), user("before " * 8 + "needle" + " after" * 8))
    lines = on_terminal("search", "needle", width=40).out.splitlines()
    assert all(cell_len(line) <= 40 for line in lines)
    assert "needle" in " ".join(lines)


# show


def test_show_prints_the_latest_or_the_one_named(llmctl: Llmctl, log: SessionLog, rome: int) -> None:
    talk(log, "Latest?", "Yes.")
    latest, named = llmctl("logs", "show"), llmctl("logs", "show", "rome")
    assert (latest.code, latest.err, named.code, named.err) == (0, "", 0, "")
    assert latest.out.endswith("## User\n\nLatest?\n\n## Assistant\n\nYes.\n")
    assert named.out.startswith("# rome\n\n")
    assert "In Italy." in named.out
    assert "In France." not in named.out
    assert llmctl("logs", "show", str(rome)) == named


def test_show_all_has_what_was_undone(llmctl: Llmctl, rome: int) -> None:
    assert "## Assistant (undone)\n\nIn France.\n" in llmctl("logs", "show", "--all").out
    messages = json.loads(llmctl("logs", "show", "--all", "--json").out)["messages"]
    assert [(message["content"], message.get("retracted")) for message in messages] == [
        ("Where is it?", None),
        ("In France.", True),
        ("In Italy.", None),
    ]


def test_show_as_json_is_the_session(llmctl: Llmctl, rome: int) -> None:
    shown = json.loads(llmctl("logs", "show", "--json").out)
    assert (shown["llmctl_session"], shown["name"], shown["system"]) == (1, "rome", "Be brief.")
    question, answer = shown["messages"]
    assert (question["role"], question["content"]) == ("user", "Where is it?")
    assert (answer["reasoning"], answer["total_s"], answer["model"]) == ("Rome, so\nItaly.", 0.5, "demo")


def test_a_session_that_is_not_there_offers_near_names(llmctl: Llmctl, rome: int) -> None:
    fails(
        llmctl("logs", "show", "roma"), 3, "no such session: roma", "did you mean rome?", "llmctl logs list"
    )
    error = json.loads(llmctl("logs", "show", "roma", "--json").err)["error"]
    assert error["code"] == "not_found"


@pytest.mark.parametrize("args", [["show"], ["search", "owned"], ["list"], ["export"], ["show", "--json"]])
def test_stored_text_does_not_drive_a_terminal(log: SessionLog, args: list[str]) -> None:
    log.append(log.start(), user(HOSTILE, model=HOSTILE))
    out = on_terminal(*args, width=200).out
    assert "owned" in out
    assert not {"\x1b", "\x07", "\x9b", "\r", "\x7f", "\u202e"} & set(out)
    assert ("\\u001b" if "--json" in args else "\\x1b") in out


def test_stored_text_goes_into_a_pipe_unchanged(llmctl: Llmctl, log: SessionLog) -> None:
    log.append(log.start(), user(HOSTILE))
    assert HOSTILE.encode() in run_piped("show")
    assert HOSTILE.encode() in run_piped("export")
    assert json.loads(llmctl("logs", "show", "--json").out)["messages"][0]["content"] == HOSTILE


def run_piped(*args: str) -> bytes:
    command = [sys.executable, "-m", "llmctl", "logs", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout


# search


def test_search_shows_where_the_words_are(llmctl: Llmctl, log: SessionLog, rome: int) -> None:
    talk(log, "Tell me of pasta in Italy")
    ended = llmctl("logs", "search", "ITALY")
    assert (ended.code, ended.err) == (0, "")
    header, second, first = table(ended.out)
    assert header == ["ID", "SESSION", "WHEN", "ROLE", "MATCH"]
    assert (second[0], second[3], second[4]) == ("2", "user", "Tell me of pasta in Italy")
    assert (first[0], first[1], first[3], first[4]) == ("1", "rome", "assistant", "In Italy.")


def test_search_wants_all_words_and_takes_them_as_they_are(llmctl: Llmctl, log: SessionLog) -> None:
    talk(log, 'say "hi" AND go*', "say hi")
    assert len(table(llmctl("logs", "search", "say", "hi").out)) == 3
    assert len(table(llmctl("logs", "search", "say hi AND").out)) == 2
    assert len(table(llmctl("logs", "search", '"hi" go*').out)) == 2
    assert len(table(llmctl("logs", "search", "say", "-n", "1").out)) == 2
    assert len(table(llmctl("logs", "search", "say", "-n", "0").out)) == 3


def test_search_as_json_tells_session_and_turn(llmctl: Llmctl, rome: int) -> None:
    (hit,) = json.loads(llmctl("logs", "search", "france", "--json").out)
    assert abs(datetime.fromisoformat(hit.pop("created")).timestamp() - time.time()) < 60
    assert hit == {
        "session_id": rome,
        "session_name": "rome",
        "session_title": "Where is it?",
        "turn_id": 3,
        "role": "assistant",
        "retracted": True,
        "snippet": "In France.",
    }


def test_search_marks_what_was_undone(llmctl: Llmctl, rome: int) -> None:
    assert table(llmctl("logs", "search", "France").out)[1][3] == "assistant (undone)"


def test_finding_nothing_is_no_error(llmctl: Llmctl, rome: int) -> None:
    assert llmctl("logs", "search", "absent", "word") == Ended(0, "", "nothing found for 'absent word'\n")
    ended = llmctl("logs", "search", "absent", "--json")
    assert (ended.code, ended.out) == (0, "[]\n")


@pytest.mark.parametrize("query", ["", " "])
def test_searching_for_nothing_is_a_mistake(llmctl: Llmctl, query: str) -> None:
    fails(llmctl("logs", "search", query), 2, "query is empty")


# export


@pytest.mark.parametrize(
    ("args", "is_json"),
    [
        (["-o", "out.md"], False),
        (["-o", "out.json"], True),
        (["-o", "OUT.JSON"], True),
        (["-o", "out.txt"], False),
        (["-o", "out"], False),
        (["-o", "out.json", "--format", "md"], False),
        (["-o", "out.md", "--format", "json"], True),
        ([], False),
        (["-o", "-"], False),
        (["--format", "json"], True),
        (["--format", "md"], False),
    ],
)
def test_the_format_is_the_one_named_or_that_of_the_file(
    llmctl: Llmctl, rome: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], is_json: bool
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ended = llmctl("logs", "export", *args)
    assert ended.code == 0
    files = list(Path().iterdir())
    assert len(files) == (1 if "-o" in args and "-" not in args else 0)
    text = files[0].read_text() if files else ended.out
    assert bool(files) is (ended.out == "")
    assert text.startswith("{" if is_json else "# rome\n")
    assert text.endswith("\n")


def test_what_is_exported_as_json_can_be_read_again(llmctl: Llmctl, rome: int, tmp_path: Path) -> None:
    llmctl("logs", "export", "rome", "-o", str(tmp_path / "out.json"), "--all")
    loaded = from_json(json.loads((tmp_path / "out.json").read_text()), where="out.json")
    assert loaded.system == "Be brief."
    assert loaded.messages == (
        Message(role="user", content="Where is it?"),
        Message(role="assistant", content="In Italy."),
    )


def test_export_without_a_file_is_show(llmctl: Llmctl, rome: int) -> None:
    for flags in ([], ["--all"]):
        assert llmctl("logs", "export", *flags) == llmctl("logs", "show", *flags)
    assert llmctl("logs", "export", "--format", "json") == llmctl("logs", "show", "--json")


def test_a_file_that_exists_is_replaced_only_by_force(llmctl: Llmctl, rome: int, tmp_path: Path) -> None:
    target = tmp_path / "out.md"
    target.write_text("mine")
    fails(llmctl("logs", "export", "-o", str(target)), 2, str(target), "exists", "--force")
    assert target.read_text() == "mine"
    ended = llmctl("logs", "export", "-o", str(target), "--force")
    assert (ended.code, ended.err) == (0, f"written: {target}\n")
    assert target.read_text().startswith("# rome")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out.md"]


def test_export_to_where_nothing_can_be_written_is_refused(llmctl: Llmctl, rome: int, tmp_path: Path) -> None:
    fails(llmctl("logs", "export", "-o", str(tmp_path / "no" / "out.md")), 3, "no such folder")
    fails(llmctl("logs", "export", "-o", str(tmp_path)), 2, "is a folder")
    fails(llmctl("logs", "export", "-o", os.devnull, "--force"), 2, "no regular file")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_format_that_is_not_there_is_refused(llmctl: Llmctl, rome: int) -> None:
    fails(llmctl("logs", "export", "--format", "pdf"), 2, "--format", "md, json", "'pdf'")


# delete


def test_sessions_are_deleted_by_name_and_number(llmctl: Llmctl, log: SessionLog, rome: int) -> None:
    other, kept = talk(log, "x"), talk(log, "y")
    ended = llmctl("logs", "delete", "rome", str(other), str(rome), "--yes")
    assert ended == Ended(0, "deleted 2 sessions\n", "")
    assert [session.id for session in log.list(limit=None)] == [kept]


def test_the_name_of_a_deleted_session_is_not_offered_any_more(
    llmctl: Llmctl, log: SessionLog, rome: int
) -> None:
    talk(log, "x", name="kept")
    llmctl("logs", "delete", "rome", "--yes")
    assert (Path(os.environ["LLMCTL_CACHE_HOME"]) / SESSIONS).read_text() == "kept\n"


def test_nothing_is_deleted_when_one_of_several_is_not_there(
    llmctl: Llmctl, log: SessionLog, rome: int
) -> None:
    fails(llmctl("logs", "delete", "rome", "absent", "--yes"), 3, "no such session: absent")
    assert log.names() == ["rome"]


def test_all_sessions_can_be_deleted(llmctl: Llmctl, log: SessionLog, rome: int) -> None:
    talk(log, "x")
    ended = llmctl("logs", "delete", "--all", "-y", "--json")
    assert (ended.code, json.loads(ended.out)) == (0, {"deleted": 2})
    assert log.list(limit=None) == []


def test_a_day_separates_old_from_new(llmctl: Llmctl, log: SessionLog) -> None:
    for number, moment in enumerate(("2026-01-30 12:00", "2026-01-30 23:59", "2026-01-31 00:00"), start=1):
        talk(log, f"talk {number}")
        updated = datetime.fromisoformat(moment).timestamp()
        log._connection.execute("UPDATE sessions SET updated = ? WHERE id = ?", (updated, number))
    assert llmctl("logs", "delete", "--before", "2026-01-31", "--yes").out == "deleted 2 sessions\n"
    assert [session.title for session in log.list(limit=None)] == ["talk 3"]
    assert llmctl("logs", "delete", "--before", "2026-01-31").out == "deleted 0 sessions\n"


@pytest.mark.parametrize("date", ["yesterday", "2026-13-01", "31.01.2026", "", "0001-01-01x"])
def test_a_day_that_is_none_is_refused(llmctl: Llmctl, rome: int, date: str) -> None:
    fails(llmctl("logs", "delete", "--before", date, "--yes"), 2, "--before", "2026-01-31", repr(date))


@pytest.mark.parametrize(
    "args", [[], ["rome", "--all"], ["rome", "--before", "2026-01-31"], ["--all", "--before", "2026-01-31"]]
)
def test_what_to_delete_is_said_in_one_way(
    llmctl: Llmctl, log: SessionLog, rome: int, args: list[str]
) -> None:
    fails(llmctl("logs", "delete", *args, "--yes"), 2, "SESSION", "--all", "--before")
    assert log.names() == ["rome"]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_without_a_terminal_nothing_is_deleted_unless_yes_is_given(
    llmctl: Llmctl, log: SessionLog, rome: int, flags: list[str]
) -> None:
    fails(llmctl("logs", "delete", "rome", *flags), 2, "--yes")
    fails(llmctl("logs", "delete", "--all", *flags, stdin=b"y\n"), 2, "--yes")
    assert log.names() == ["rome"]


@pytest.mark.parametrize(
    ("typed", "num_deleted"),
    [(b"y\n", 1), (b"YES\n", 1), (b"n\n", 0), (b"\n", 0), (b"what\n", 0), (b"\x04", 0)],
)
def test_on_a_terminal_the_answer_decides(log: SessionLog, rome: int, typed: bytes, num_deleted: int) -> None:
    ended = on_terminal("delete", "rome", answer=typed)
    assert ended.code == 0
    assert "Delete 1 session with 3 turns for good? [y/N] " in ended.out
    assert ended.out.endswith(f"deleted {num_deleted} session{'' if num_deleted == 1 else 's'}\n")
    assert log.names() == ["rome"] * (1 - num_deleted)


def test_ctrl_c_at_the_question_deletes_nothing(log: SessionLog, rome: int) -> None:
    assert on_terminal("delete", "--all", answer=signal.SIGINT).code == 130
    assert contents(log.turns(rome)) == ["Be brief.", "Where is it?", "In Italy."]


# Errors


@pytest.mark.parametrize(
    "args", [["list"], ["show"], ["search", "x"], ["export"], ["delete", "--all", "--yes"]]
)
def test_a_log_that_is_no_database_is_named_with_its_remedy(llmctl: Llmctl, args: list[str]) -> None:
    path = Path(os.environ["LLMCTL_DATA_HOME"]) / "log.db"
    path.parent.mkdir()
    path.write_text("this is not a database " * 100)
    fails(llmctl("logs", *args), 7, str(path), "move it away")


def test_a_reader_that_stops_early_is_no_error(log: SessionLog) -> None:
    for number in range(50):
        talk(log, f"talk {number}")
    command = f"{sys.executable} -m llmctl logs list -n 0 | head -n 1"
    ended = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("ID")


def test_looking_at_conversations_imports_nothing_heavy(rome: int) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "llmctl", "logs", "list"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    modules = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "llmctl.sessions.store" in modules
    heavy: set[Any] = {"torch", "transformers", "numpy", "httpx2", "prompt_toolkit", "asyncio", "jinja2"}
    assert modules & heavy == set()
