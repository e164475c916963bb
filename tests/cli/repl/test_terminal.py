"""Keys, paste, interruption and resize at a real terminal, against a server that says what it is told to."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import terminal as keys
from tests.server import Reply, ScriptedServer
from tests.terminal import Terminal, terminal

REDRAWS = re.compile(rb"\x1b\[\d*[ABCDFGHJKST]|\x1b\[\d*;\d*H|\r(?!\n)")
"""Cursor movement, erasure and a return to the line's start: what an answer must not hold."""


@contextmanager
def session(server: ScriptedServer, *args: str, **options: Any) -> Iterator[Terminal]:
    with terminal("chat", "--url", server.url, *args, **options) as shown:
        shown.wait_for(keys.PROMPT)
        yield shown


def leave(shown: Terminal) -> None:
    shown.send(keys.CTRL_D)
    assert shown.ended() == 0


def test_ctrl_d_leaves_and_an_empty_line_does_not() -> None:
    with ScriptedServer() as server, session(server) as shown:
        shown.send(keys.ENTER * 3)
        shown.say("hello")
        leave(shown)
        assert shown.count(">>> ") == 2


def test_ctrl_c_at_an_empty_prompt_hints_and_in_a_line_clears_it() -> None:
    with ScriptedServer() as server, session(server) as shown:
        shown.send(keys.CTRL_C)
        shown.wait_for(r"\(Ctrl-D or /exit leaves\)")
        shown.send("half a line")
        shown.wait_for("half a line")
        shown.send(keys.CTRL_C)
        shown.wait(shown.is_idle, what="an empty line")
        shown.say("hello")
        leave(shown)
        assert [seen.last_user_message for seen in server.asked] == ["hello"]


def test_ctrl_c_stops_an_answer_keeps_its_text_and_the_server_sees_it() -> None:
    slow = Reply(pieces=[f"word{n} " for n in range(1000)], delay_s=0.05)
    with ScriptedServer(by_message={"long": slow}) as server, session(server) as shown:
        shown.send("long" + keys.ENTER)
        shown.wait_for("word5 ")
        shown.send(keys.CTRL_C)
        shown.wait(shown.is_idle, what="the prompt")
        shown.say("next")
        messages = server.asked[-1].body["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant", "user"]
        assert messages[1]["content"].startswith("word0 word1 word2")
        assert "word999" not in messages[1]["content"]
        assert server.asked[0].disconnected.wait(10)
        leave(shown)


def test_ctrl_c_before_the_answer_takes_the_question_back() -> None:
    with ScriptedServer(by_message={"hang": Reply(silence_s=30)}) as server, session(server) as shown:
        shown.send("hang" + keys.ENTER)
        shown.wait_for("waiting")
        shown.send(keys.CTRL_C)
        shown.wait_for("/retry asks again")
        shown.say("next")
        assert [message["content"] for message in server.asked[-1].body["messages"]] == ["next"]
        leave(shown)


def test_200_pasted_lines_are_one_question() -> None:
    text = "\n".join(f"line {number} of what was pasted" for number in range(200))
    with ScriptedServer(by_message={"line 199": Reply(pieces=["ok"])}) as server, session(server) as shown:
        shown.paste(text)
        shown.wait_for("line 199 of")
        shown.send(keys.ENTER)
        shown.wait_for("^ok$")
        shown.wait(shown.is_idle, what="the prompt")
        assert server.asked[-1].last_user_message == text
        leave(shown)


@pytest.mark.parametrize("key", [keys.ALT_ENTER, keys.NEWLINE])
def test_a_question_may_have_lines(key: str) -> None:
    with ScriptedServer() as server, session(server) as shown:
        shown.send("one" + key + "two" + keys.ENTER)
        shown.wait_for("^stop|· stop")
        assert server.asked[-1].last_user_message == "one\ntwo"
        leave(shown)


def test_a_block_goes_on_until_its_quotes_close() -> None:
    with ScriptedServer() as server, session(server) as shown:
        shown.send('"""one' + keys.ENTER + "two" + keys.ENTER + '"""' + keys.ENTER)
        shown.wait_for("· stop")
        assert server.asked[-1].last_user_message == "one\ntwo"
        leave(shown)


def test_ctrl_g_opens_the_editor_on_the_draft(tmp_path: Path) -> None:
    script = tmp_path / "editor"
    script.write_text('#!/bin/sh\ntr a-z A-Z < "$1" > "$1.new" && mv "$1.new" "$1"\n')
    script.chmod(0o755)
    with ScriptedServer() as server, session(server, env={"EDITOR": str(script)}) as shown:
        shown.send("quiet" + keys.CTRL_G)
        shown.wait_for(">>> QUIET")
        shown.send(keys.ENTER)
        shown.wait_for("· stop")
        assert server.asked[-1].last_user_message == "QUIET"
        leave(shown)


def test_an_editor_that_is_not_there_costs_a_line_and_not_the_draft() -> None:
    with ScriptedServer() as server, session(server, env={"EDITOR": "no-such-editor"}) as shown:
        shown.send("draft" + keys.CTRL_G)
        shown.wait_for("no editor 'no-such-editor' is installed")
        shown.wait_for(">>> draft")
        shown.send(keys.ENTER)
        shown.wait_for("· stop")
        leave(shown)


def test_ctrl_r_and_history_reach_over_sessions() -> None:
    with ScriptedServer() as server:
        with session(server) as shown:
            shown.say("a memorable question")
            shown.say("another")
            leave(shown)
        with session(server) as shown:
            shown.send(keys.CTRL_R + "memor")
            shown.wait_for("a memorable question")
            shown.send(keys.ENTER)
            shown.send(keys.ENTER)
            shown.wait_for("· stop")
            leave(shown)
        assert server.asked[-1].last_user_message == "a memorable question"
        with session(server, "--no-history") as shown:
            shown.send("\x1b[A")
            time.sleep(0.3)
            assert shown.is_idle()
            leave(shown)


def test_tab_completes_commands_and_offers_a_menu() -> None:
    with ScriptedServer() as server, session(server) as shown:
        shown.send("/sta" + keys.TAB)
        shown.wait_for(">>> /stats")
        shown.send(keys.ENTER)
        shown.wait_for("answers        0")
        shown.send("/set reas" + keys.TAB)
        shown.wait_for(">>> /set reasoning")
        shown.send(" " + keys.TAB)
        shown.wait_for("fold")
        leave_menu(shown)


def leave_menu(shown: Terminal) -> None:
    shown.send(keys.CTRL_C)
    shown.wait(shown.is_idle, what="an empty line")
    leave(shown)


def test_keys_pressed_during_an_answer_are_not_shown_and_come_after_it() -> None:
    slow = Reply(pieces=[f"word{n} " for n in range(20)], delay_s=0.05)
    with ScriptedServer(by_message={"slow": slow}) as server, session(server) as shown:
        shown.send("slow" + keys.ENTER)
        shown.wait_for("word3")
        shown.send("typed ahead" + keys.ENTER)
        shown.wait_for("typed ahead")
        shown.wait(lambda: len(server.asked) == 2, what="the second question")
        shown.wait(shown.is_idle, what="the prompt")
        assert server.asked[-1].last_user_message == "typed ahead"
        assert not any("word" in line and "typed" in line for line in shown.lines())
        leave(shown)


@pytest.mark.parametrize("columns", [80, 40])
def test_an_answer_is_only_ever_appended(columns: int) -> None:
    text = "# Title\n\nSome **bold** text with 日本語 and 👩‍👩‍👧 emoji that is long enough to wrap. " * 3
    reply = Reply(
        pieces=re.findall(
            r"(?s).{1,3}", text + "\n\n```python\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nEND"
        )
    )
    with ScriptedServer(by_message={"go": reply}) as server, session(server, columns=columns) as shown:
        shown.send("go")
        shown.wait_for(">>> go")
        shown.send(keys.ENTER)
        shown.wait_for("^END$")
        shown.wait(shown.is_idle, what="the prompt")
        answer = shown.raw[shown.raw.rindex(b"Title") : shown.raw.rindex(b"END")]
        assert REDRAWS.search(answer.replace(b"\r\n", b"\n")) is None
        leave(shown)


def test_an_answer_follows_a_resize() -> None:
    words = " ".join(f"word{number:03}" for number in range(120))
    reply = Reply(pieces=re.findall(r"\S+ ?", words), delay_s=0.02)
    with ScriptedServer(by_message={"go": reply}) as server, session(server) as shown:
        shown.send("go" + keys.ENTER)
        shown.wait_for("word050")
        shown.resize(40, 24)
        shown.wait_for("word119")
        shown.wait(shown.is_idle, what="the prompt")
        # The emulator cuts lines where a terminal would reflow them, so the bytes are looked at.
        drawn = re.sub(rb"\x1b\[[\d;]*m", b"", shown.raw).decode()
        answer = drawn[drawn.index("word000") : drawn.index("word119") + len("word119")]
        lines = [line.rstrip() for line in answer.splitlines()]
        assert answer.split() == words.split()
        assert max(map(len, lines)) > 40
        assert all(len(line) <= 40 for line in lines[-5:])
        leave(shown)


def test_an_answer_of_10000_lines_is_whole() -> None:
    text = "\n".join(f"- item {number} *of* many" for number in range(10_000)) + "\n\nEND"
    pieces = [text[start : start + 200] for start in range(0, len(text), 200)]
    with ScriptedServer(by_message={"go": Reply(pieces=pieces)}) as server, session(server) as shown:
        shown.send("go" + keys.ENTER)
        shown.wait_for("^END$", timeout_s=120)
        items = [line for line in shown.lines() if re.search(r"item \d+", line)]
        assert [re.findall(r"item (\d+)", line) for line in items] == [[str(n)] for n in range(10_000)]
        leave(shown)


@pytest.mark.parametrize(
    ("args", "env"),
    [(("--plain",), {}), ((), {"TERM": "dumb"}), ((), {"NO_COLOR": "1"}), (("--color", "never"), {})],
    ids=["plain", "dumb", "no-color", "never"],
)
def test_nothing_is_coloured_where_nobody_wants_it(args: tuple[str, ...], env: dict[str, str]) -> None:
    reply = Reply(pieces=["# Title\n\nSome **bold** text.\n\n```python\nx = 1\n```\n"])
    with ScriptedServer(by_message={"go": reply}) as server, session(server, *args, env=env) as shown:
        shown.send("go" + keys.ENTER)
        shown.wait_for("x = 1")
        shown.wait_for("· stop")
        leave(shown)
        assert re.search(rb"\x1b\[[\d;]*[34]\d[\d;]*m|\x1b\[[\d;]*2m", shown.raw) is None
        if "NO_COLOR" not in env and "never" not in args:
            assert re.search(rb"\x1b\[[\d;]+m", shown.raw) is None


def test_simple_style_shows_markdown_as_it_is_written() -> None:
    with (
        ScriptedServer(by_message={"go": Reply(pieces=["**bold**"])}) as server,
        session(server, "--style", "simple") as shown,
    ):
        shown.say("go")
        assert "**bold**" in shown.lines()
        leave(shown)


def test_a_model_cannot_drive_the_terminal() -> None:
    reply = Reply(pieces=["a\x1b[2Jb\x1b]0;title\x07c"])
    with ScriptedServer(by_message={"go": reply}) as server, session(server) as shown:
        shown.say("go")
        assert b"\x1b[2J" not in shown.raw
        assert b"\x1b]0;" not in shown.raw
        assert r"\x1b[2J" in shown.text()
        leave(shown)


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_sigterm_ends_it_and_leaves_the_terminal_usable(number: signal.Signals) -> None:
    slow = Reply(pieces=[f"word{n} " for n in range(1000)], delay_s=0.05)
    with ScriptedServer(by_message={"long": slow}) as server, session(server) as shown:
        shown.send("long" + keys.ENTER)
        shown.wait_for("word5 ")
        shown.signal(number)
        assert shown.ended() == 143
        assert "Traceback" not in shown.text()
        assert "Task was destroyed" not in shown.text()


def test_a_model_that_does_not_load_ends_the_session_with_its_code(tmp_path: Path) -> None:
    with terminal("chat", str(tmp_path / "nosuch")) as shown:
        assert shown.ended(timeout_s=60) == 3
        assert "no such folder" in shown.text()


def test_pipes_get_text_and_nothing_else(tmp_path: Path) -> None:
    with (
        ScriptedServer(by_message={"go": Reply(pieces=["# Title\n\n**bold**\n"])}) as server,
        terminal("chat", "--url", server.url, "-p", "go", "--style", "rich") as shown,
    ):
        assert shown.ended() == 0
        assert "Title" in shown.text()
        assert "**" not in shown.text()


@pytest.mark.parametrize("delay_s", [0, 0.001, 0.01, 0.05, 0.2])
def test_ctrl_c_right_behind_enter_stops_the_answer_too(delay_s: float) -> None:
    with ScriptedServer(by_message={"hang": Reply(silence_s=60)}) as server, session(server) as shown:
        for count in range(1, 4):
            shown.send("hang" + keys.ENTER)
            time.sleep(delay_s)
            shown.send(keys.CTRL_C)
            shown.wait(lambda count=count: shown.text().count("asks again") == count, what="the prompt")
            shown.wait(shown.is_idle, what="an empty line")
        shown.say("next")
        leave(shown)


def test_ctrl_c_when_nothing_goes_on_ends_nothing() -> None:
    with ScriptedServer() as server, session(server) as shown:
        for _ in range(20):
            shown.signal(signal.SIGINT)
            time.sleep(0.01)
        # One that is late would clear the line.
        time.sleep(0.5)
        shown.say("next")
        leave(shown)
