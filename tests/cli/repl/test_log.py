"""What of a session survives: a kill, two terminals at once, and a log that cannot be written."""

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from llmctl.cli.chat.conversation import Conversation
from llmctl.cli.repl.repl import Repl
from llmctl.core.types import Delta, GenerationRequest
from llmctl.sessions.store import SessionLog
from tests import terminal as keys
from tests.cli.repl.conftest import FakeTerminal, Talk
from tests.conftest import Llmctl
from tests.fake import FakeBackend
from tests.server import Reply, ScriptedServer
from tests.terminal import Terminal, terminal

NUM_TURNS = 8


def contents(log_path: Path) -> list[tuple[str, str]]:
    """Role and content of all that the newest session holds."""
    with SessionLog.open(log_path) as log:
        latest = log.latest()
        assert latest is not None
        return [(turn.role, turn.content) for turn in log.turns(latest.id)]


def test_a_kill_in_mid_answer_loses_at_most_that_answer(log_path: Path) -> None:
    slow = Reply(pieces=[f"word{n} " for n in range(1000)], delay_s=0.05)
    with ScriptedServer(by_message={"long": slow}) as server:
        with terminal("chat", "--url", server.url) as shown:
            shown.wait_for(keys.PROMPT)
            shown.say("one")
            shown.send("long" + keys.ENTER)
            shown.wait_for("word5 ")
            shown.signal(signal.SIGKILL)
            assert shown.ended() == -signal.SIGKILL
        assert contents(log_path) == [("user", "one"), ("assistant", "one"), ("user", "long")]
        with terminal("chat", "--url", server.url, "-c") as shown:
            shown.wait_for(keys.PROMPT)
            shown.wait_for("(the last question got no answer; /retry asks it)")
            assert "(session 1: 2 turns" in shown.text()
            shown.send(keys.CTRL_D)
            assert shown.ended() == 0


def test_two_terminals_in_one_session_lose_no_turn(log_path: Path) -> None:
    with ScriptedServer() as server:
        command = ("chat", "--url", server.url, "--session", "shared")
        with terminal(*command) as first:
            first.wait_for(keys.PROMPT)
            first.say("begin")
            with terminal(*command) as second:
                second.wait_for(keys.PROMPT)

                def talk(shown: Terminal, name: str) -> None:
                    for number in range(NUM_TURNS):
                        shown.say(f"{name} {number}")
                    shown.send(keys.CTRL_D)

                threads = [
                    threading.Thread(target=talk, args=pair) for pair in ((first, "left"), (second, "right"))
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert (first.ended(), second.ended()) == (0, 0)
    said = contents(log_path)
    expected = {f"{name} {number}" for name in ("left", "right") for number in range(NUM_TURNS)} | {"begin"}
    for role in ("user", "assistant"):
        assert sorted(text for who, text in said if who == role) == sorted(expected)


def test_a_log_that_cannot_be_written_is_told_and_the_talk_goes_on(
    talk: Talk, log_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def break_log(_repl: Repl, _terminal: FakeTerminal) -> None:
        with contextlib.closing(sqlite3.connect(log_path)) as other:
            other.execute("DROP TABLE turns")

    talked = talk("one", "two", prepare=break_log)
    assert [record.message for record in caplog.records if "is not kept" in record.message] != []
    assert talked.turns[-1] == ("assistant", "echo: two")


def test_a_log_that_is_no_database_is_told_once(llmctl: Llmctl, log_path: Path) -> None:
    log_path.parent.mkdir(parents=True)
    log_path.write_bytes(b"no database" * 1000)
    ended = llmctl("chat", "-p", "What is the capital of France?")
    assert ended.code == 0
    assert "Paris" in ended.out
    assert ended.err.count("this conversation is not kept") == 1
    assert llmctl("chat", "-c", "-p", "And of Spain?").code == 7


def test_continue_goes_on_with_the_last_conversation(llmctl: Llmctl, log_path: Path) -> None:
    first = llmctl("chat", "--temperature", "0", "-p", "My name is Ann.")
    second = llmctl("chat", "--temperature", "0", "-c", "-p", "What is my name?")
    assert (first.code, second.code, second.err) == (0, 0, "")
    assert "Ann" in second.out
    assert [role for role, _ in contents(log_path)] == ["user", "assistant"] * 2


def test_continue_without_a_conversation_is_not_found(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "-c", "-p", "hello")
    assert (ended.code, ended.out) == (3, "")
    assert "there is no conversation to continue" in ended.err


def test_a_session_has_a_name_and_can_be_gone_on_with(llmctl: Llmctl, log_path: Path) -> None:
    llmctl("chat", "--session", "trip", "-p", "My name is Ann.")
    llmctl("chat", "--session", "other", "-p", "hello")
    assert "Ann" in llmctl("chat", "--session", "trip", "-p", "What is my name?").out
    cache = Path(os.environ["LLMCTL_CACHE_HOME"])
    assert sorted((cache / "sessions.txt").read_text().split()) == ["other", "trip"]


def test_a_session_by_a_number_that_is_not_there_is_not_found(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "--session", "12", "-p", "hello")
    assert ended.code == 3
    assert "12" in ended.err


def test_no_log_keeps_nothing_and_makes_nothing(llmctl: Llmctl, log_path: Path) -> None:
    assert llmctl("chat", "--no-log", "-p", "hello").code == 0
    assert not log_path.exists()


def test_continue_with_no_log_reads_and_does_not_write(llmctl: Llmctl, log_path: Path) -> None:
    llmctl("chat", "-p", "My name is Ann.")
    before = contents(log_path)
    assert "Ann" in llmctl("chat", "-c", "--no-log", "-p", "What is my name?").out
    assert contents(log_path) == before


def test_a_server_is_gone_back_to_with_its_session(llmctl: Llmctl) -> None:
    with ScriptedServer(models=[{"id": "first"}, {"id": "second"}]) as server:
        assert llmctl("chat", "second", "--url", server.url, "-p", "one").out == "one\n"
        assert llmctl("chat", "-c", "-p", "two").out == "two\n"
        assert server.asked[-1].body["model"] == "second"
        assert [each["content"] for each in server.asked[-1].body["messages"]] == ["one", "one", "two"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-c", "--session", "x"), "--continue and --session name two conversations"),
        (("-c", "--raw", "-p", "x"), "--continue does not go with --raw"),
        (("--session", "x", "--messages", "x"), "--session does not go with --messages"),
        (("-c", "--style", "programmatic"), "--continue does not go with --style programmatic"),
        (("--url", "http://x", "--dtype", "float32"), "--dtype is for a model in this process"),
        (("--url", "http://x", "--context", "9"), "--context is for a model in this process"),
        (("--url", "http://x", "--revision", "r"), "--revision is for a model in this process"),
        (("--url", "http://x", "--trust-remote-code"), "--trust-remote-code is for a model in this process"),
        (("--api-key-file", "x"), "--api-key-file is for a server"),
        (("--style", "rich", "--json", "-p", "x"), "--style rich does not go with --json"),
        (("--style", "rich", "--plain"), "--style rich does not go with --plain"),
        (("--timeout", "0"), "--timeout: timeout must be more than 0"),
        (("--session", "-x"), "a session cannot be called '-x'"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    llmctl: Llmctl, args: tuple[str, ...], message: str
) -> None:
    ended = llmctl("chat", *args, stdin=b"x" if "-p" not in args else b"")
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


def test_a_context_limit_holds_and_one_above_the_models_is_refused(llmctl: Llmctl) -> None:
    over = llmctl("chat", "--context", "8", "-p", "What is the capital of France?")
    assert (over.code, over.out) == (6, "")
    assert "holds 8 with the answer" in over.err
    above = llmctl("chat", "--context", "1000000", "-p", "hello")
    assert above.code == 2
    assert "context 1000000: demo takes at most 1024 tokens" in above.err


def test_a_log_that_was_locked_for_a_while_is_written_again(
    talk: Talk, log: SessionLog, log_path: Path
) -> None:
    def lose_session(repl: Repl, _terminal: FakeTerminal) -> None:
        repl.conversation.set_system("Be brief.")

    talk("one", prepare=lose_session)
    (session,) = log.list(limit=None)
    assert [turn.role for turn in log.turns(session.id)] == ["system", "user", "assistant"]


def test_a_session_that_was_deleted_meanwhile_goes_on_as_a_new_one(talk: Talk, log: SessionLog) -> None:
    class Deleting(FakeBackend):
        async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
            async for delta in super().generate(request):
                yield delta
            log.delete([session.id for session in log.list(limit=None)])

    talked = talk("one", "two", backend=Deleting())
    assert talked.turns[-1] == ("assistant", "echo: two")


@pytest.mark.parametrize("lines", [["q", "/undo", "/system X", "q2"], ["/system X", "q"]])
def test_the_system_message_in_force_is_kept(talk: Talk, log: SessionLog, lines: list[str]) -> None:
    talk(*lines)
    (session,) = log.list(limit=None)
    assert [turn.content for turn in log.turns(session.id) if turn.role == "system"] == ["X"]


def test_two_new_conversations_of_one_name_are_one(talk: Talk, log: SessionLog) -> None:
    first, second = Conversation(log, name="shared"), Conversation(log, name="shared")
    talk("one", conversation=first)
    talk("two", conversation=second)
    (session,) = log.list(limit=None)
    assert [turn.content for turn in log.turns(session.id)] == ["one", "echo: one", "two", "echo: two"]
