"""What each command of the REPL does to the conversation, the model and the log."""

import base64
import json
from pathlib import Path

import pytest

from llmctl.cli.repl import terminal
from llmctl.cli.repl.commands.table import COMMANDS, completions, is_command
from llmctl.cli.repl.repl import Repl
from llmctl.cli.repl.view import Look
from llmctl.core.errors import LlmctlError, UnreachableError
from llmctl.core.settings import Settings
from llmctl.core.types import ChatRequest
from llmctl.sessions.store import SessionLog
from tests.cli.repl.conftest import FakeTerminal, Talk, Talked
from tests.fake import FakeBackend, Says


def sampling(talked: Talked, request: int = -1) -> object:
    found = talked.backend.requests[request]
    return found.sampling


def test_help_lists_every_command_and_key(talk: Talk) -> None:
    out = talk("/help").out
    for command in COMMANDS:
        assert f"{command.usage}  " in out
        assert command.meaning in out
    assert "Ctrl-G" in out


def test_help_of_one_command_tells_its_aliases(talk: Talk) -> None:
    out = talk("/help undo").out
    assert out.count("\n") == 1
    assert "!!remove" in out


@pytest.mark.parametrize("line", ["/exit", "/quit", "/bye", "!!exit"])
def test_exit_leaves_and_nothing_more_is_read(talk: Talk, line: str) -> None:
    talked = talk("hi", line, "hello")
    assert (talked.code, talked.terminal.lines) == (0, ["hello"])
    assert talked.backend.is_closed


def test_an_unknown_command_names_the_nearest_and_is_not_sent(talk: Talk) -> None:
    talked = talk("/regn")
    assert talked.err == (
        "error: no command /regn (did you mean /regen? to say it to the model begin with a space)\n"
    )
    assert talked.backend.requests == []


@pytest.mark.parametrize("text", ["/etc/hosts is what?", " /help", "//", "/ ", "a /help", "/1"])
def test_what_is_no_command_is_said(talk: Talk, text: str) -> None:
    assert not is_command(text)
    assert talk(text).said() == [("user", text)]


def test_a_command_that_takes_nothing_says_so(talk: Talk) -> None:
    assert talk("/undo twice").err == "error: /undo takes nothing, not 'twice'\n"


def test_reset_begins_a_new_session_under_the_same_system_message(talk: Talk, log: SessionLog) -> None:
    talked = talk("/system Be brief.", "one", "/reset", "two")
    assert talked.said() == [("system", "Be brief."), ("user", "two")]
    sessions = log.list(limit=None)
    assert [session.title for session in sessions] == ["two", "one"]


@pytest.mark.parametrize("line", ["/undo", "!!remove"])
def test_undo_takes_back_the_last_exchange(talk: Talk, log: SessionLog, line: str) -> None:
    talked = talk("one", "two", line)
    assert talked.turns == [("user", "one"), ("assistant", "echo: one")]
    assert "the last question now is: one" in talked.err
    (session,) = log.list(limit=None)
    assert [turn.content for turn in log.turns(session.id)] == ["one", "echo: one"]
    assert len(log.turns(session.id, with_retracted=True)) == 4


def test_undo_of_nothing_says_so(talk: Talk) -> None:
    assert "there is nothing to take back" in talk("/undo").err


def test_regen_replaces_the_last_answer(talk: Talk, log: SessionLog) -> None:
    backend = FakeBackend([Says(("first",)), Says(("second",))])
    talked = talk("one", "/regen", backend=backend)
    assert talked.turns == [("user", "one"), ("assistant", "second")]
    assert talked.said(0) == talked.said(1) == [("user", "one")]
    (session,) = log.list(limit=None)
    assert [turn.content for turn in log.turns(session.id)] == ["one", "second"]


def test_a_regen_that_fails_keeps_the_old_answer(talk: Talk) -> None:
    backend = FakeBackend([Says(("first",)), Says(error=UnreachableError("the server is gone"))])
    talked = talk("one", "/regen", backend=backend)
    assert talked.turns == [("user", "one"), ("assistant", "first")]
    assert "error: the server is gone" in talked.err
    assert "the last answer stays" in talked.err


def test_retry_asks_once_with_sampling_of_its_own(talk: Talk) -> None:
    talked = talk("one", "/retry temperature=1.5 max-tokens=3", "two")
    retried, later = talked.backend.requests[1], talked.backend.requests[2]
    assert (retried.sampling.temperature, retried.sampling.max_new_tokens) == (1.5, 3)
    assert (later.sampling.temperature, later.sampling.max_new_tokens) == (0.7, None)
    assert talked.said(1) == [("user", "one")]


def test_retry_asks_what_got_no_answer(talk: Talk) -> None:
    backend = FakeBackend([Says(error=UnreachableError("the server is gone"))])
    talked = talk("one", "/retry", backend=backend)
    assert "/retry asks again" in talked.err
    assert talked.turns == [("user", "one"), ("assistant", "echo: one")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/retry temperature", "/retry takes KEY=VALUE, not 'temperature'"),
        ("/retry temperature=-1", "temperature must be at least 0 and at most 100, not -1.0"),
        ("/retry temprature=1", "unknown key 'temprature' (did you mean 'temperature'?)"),
        ("/regen", "there is no answer to answer again"),
        ("/retry", "there is no answer to ask again"),
        ("/continue", "there is no answer to go on with"),
        ("/edit-last", "there is no question to change"),
        ("/copy", "there is no answer to copy"),
        ("/save", "/save needs a file"),
        ("/export pdf", "/export takes md or json, not 'pdf'"),
        ("/export md", "nothing was said yet"),
        ("/load", "/load needs a file or a session"),
        ("/load nosuch.json", "no such file: nosuch.json"),
        ("/load nosuch", "nosuch"),
        ("/file", "/file needs a path"),
        ("/file nosuch.txt", "no such file: nosuch.txt"),
        ("/file 'a", "quotation"),
        ("/set nosuch 1", "unknown key 'nosuch'"),
        ("/set top_p 2", "top_p must be more than 0 and at most 1, not 2"),
        ("/set top_k many", "top_k must be a whole number, not 'many'"),
        ("/set reasoning loud", "reasoning must be one of show, fold, hide, not 'loud'"),
        ("/set footer maybe", "footer must be one of on, off, not 'maybe'"),
        ("/show nosuch", "/show nosuch: known are"),
        ("/show reasoning", "the last answer came without reasoning"),
        ("/template nosuch.jinja", "no template file 'nosuch.jinja'"),
        ("/model nosuch", "no such model: nosuch"),
        ("/name 12", "12"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_the_talk_goes_on(talk: Talk, line: str, message: str) -> None:
    talked = talk(line, "still here")
    errors = [text for text in talked.err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "echo: still here" in talked.out


def test_continue_goes_on_with_the_last_answer(talk: Talk, log: SessionLog) -> None:
    backend = FakeBackend([Says(("Once upon ",), reason="length"), Says((" a time.",))])
    talked = talk("a story", "/continue", backend=backend)
    request = talked.backend.requests[1]
    assert isinstance(request, ChatRequest)
    assert request.continues_last
    assert talked.said() == [("user", "a story"), ("assistant", "Once upon")]
    assert talked.turns[-1] == ("assistant", "Once upon a time.")
    (session,) = log.list(limit=None)
    assert [turn.content for turn in log.turns(session.id)] == ["a story", "Once upon a time."]


def test_edit_last_puts_the_question_back_and_replaces_the_exchange(talk: Talk) -> None:
    talked = talk("wun", "/edit-last", "one")
    assert talked.terminal.drafts[2] == "wun"
    assert talked.turns == [("user", "one"), ("assistant", "echo: one")]


def test_edit_last_that_is_turned_away_changes_nothing(talk: Talk) -> None:
    talked = talk("one", "/edit-last")
    assert "(nothing changed)" in talked.err
    assert talked.turns == [("user", "one"), ("assistant", "echo: one")]


def test_edit_sends_what_the_editor_leaves(talk: Talk) -> None:
    assert talk("/edit shout").said() == [("user", "SHOUT")]


def test_edit_of_nothing_sends_nothing(talk: Talk) -> None:
    talked = talk("/edit")
    assert talked.backend.requests == []
    assert "nothing is sent" in talked.err


def test_files_go_with_the_next_question(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b c.md").write_text("```\ncode\n```\n")
    talked = talk(f"/file {tmp_path}/a.py '{tmp_path}/b c.md'", "what is it?", "and?")
    (_, content), *_ = talked.said(0)
    assert content == "a.py:\n```\nx = 1\n```\n\nb c.md:\n````\n```\ncode\n```\n````\n\nwhat is it?"
    assert talked.said(1)[-1] == ("user", "and?")


def test_file_with_text_is_sent_at_once(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert talk(f"/file {tmp_path}/a.txt -- what's it?").said() == [
        ("user", "a.txt:\n```\nx\n```\n\nwhat's it?")
    ]


def test_undo_takes_off_what_is_attached(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert talk(f"/file {tmp_path}/a.txt", "/undo", "hi").said() == [("user", "hi")]


def test_a_file_that_is_no_text_is_refused(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\xff\x00")
    assert "is not UTF-8 text (byte 0)" in talk(f"/file {tmp_path}/a.bin").err


def test_system_is_shown_set_and_removed(talk: Talk, log: SessionLog) -> None:
    talked = talk(
        "/system", "/system Be brief.", "/system", "one", "/system Sing.", "two", '/system ""', "three"
    )
    assert talked.out.splitlines()[:2] == ["(no system message)", "Be brief."]
    assert [talked.said(n)[0] for n in range(3)] == [
        ("system", "Be brief."),
        ("system", "Sing."),
        ("user", "one"),
    ]
    (session,) = log.list(limit=None)
    assert "system" not in [turn.role for turn in log.turns(session.id)]


def test_model_shows_and_changes_what_answers(talk: Talk, log: SessionLog) -> None:
    talked = talk("one", "/model", "/model other", "two")
    assert "fake\n" in talked.out
    assert "(the model is now other)" in talked.err
    (session,) = log.list(limit=None)
    assert [turn.model for turn in log.turns(session.id)] == ["fake", "fake", "other", "other"]


def test_set_lists_every_key_with_value_and_range(talk: Talk) -> None:
    rows = [line.split(maxsplit=2) for line in talk("one", "/set top_k 5", "/set").out.splitlines()]
    found = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert found["temperature"] == ["0.7", "at least 0 and at most 100"]
    assert found["top_k"] == ["5", "at least 0"]
    assert found["overflow"] == ["ask", "ask|drop|stop"]
    assert found["style"] == ["simple", "rich|simple"]


@pytest.mark.parametrize("line", ["/set temperature 0.1", "/set temperature=0.1", "!!set temperature 0.1"])
def test_set_holds_for_all_answers_until_it_is_set_back(talk: Talk, line: str) -> None:
    if line.startswith("!!"):
        assert "no command !!set" in talk(line).err
        return
    talked = talk(line, "one", "/set temperature default", "two")
    assert [request.sampling.temperature for request in talked.backend.requests] == [0.1, 0.7]


def test_save_and_load_bring_a_conversation_back(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "kept"
    talk("/system Be brief.", "one", f"/save {path}")
    saved = json.loads((tmp_path / "kept.json").read_text())
    assert [message["content"] for message in saved["messages"]][-2:] == ["one", "echo: one"]
    talked = talk(f"/load {path}", "two")
    assert talked.said() == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "echo: one"),
        ("user", "two"),
    ]


def test_a_file_of_fastchat_loads(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "fastchat.json"
    path.write_text(
        json.dumps(
            {
                "template_name": "vicuna_v1.1",
                "system_message": "A chat.",
                "roles": ["USER", "ASSISTANT"],
                "messages": [["USER", "hello"], ["ASSISTANT", "hi"]],
                "offset": 0,
            }
        )
    )
    talked = talk(f"!!load {path}", "two")
    assert talked.said() == [
        ("system", "A chat."),
        ("user", "hello"),
        ("assistant", "hi"),
        ("user", "two"),
    ]


def test_load_goes_on_with_a_session_by_name(talk: Talk, log: SessionLog) -> None:
    talk("one", "/name tales")
    talked = talk("/load tales", "two")
    assert ">>> one" in talked.out
    assert talked.said() == [("user", "one"), ("assistant", "echo: one"), ("user", "two")]
    assert [session.num_turns for session in log.list(limit=None)] == [4]


@pytest.mark.parametrize("kind", ["md", "json"])
def test_export_prints_or_writes_the_same(talk: Talk, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    talked = talk("one", f"/export {kind}", f"/export {kind} {path}")
    assert "echo: one" in path.read_text()
    assert talked.out.count("echo: one") == 2
    if kind == "json":
        assert json.loads(path.read_text())["messages"][0]["content"] == "one"


def test_copy_hands_the_answer_to_the_terminal(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sent: list[str] = []

    def control(sequence: str) -> bool:
        sent.append(sequence)
        return True

    backend = FakeBackend([Says(("take\n```\nx = 1\n```\n",))])
    talked = talk(
        "one",
        "/copy code",
        backend=backend,
        prepare=lambda repl, _: monkeypatch.setattr(repl.console, "control", control),
    )
    encoded = base64.b64encode(b"x = 1\n").decode()
    assert sent == [f"\033]52;c;{encoded}\a"]
    assert "6 characters copied" in talked.err


def test_show_tells_of_model_conversation_and_reasoning(talk: Talk) -> None:
    backend = FakeBackend([Says(("yes",), reasoning=("let me ", "think"))], context_length=1000)
    talked = talk("one", "/show", "/show reasoning", "/show conversation", backend=backend)
    assert "1000 tokens" in talked.out
    assert "let me think\n" in talked.out
    assert ">>> one\nyes\n" in talked.out


def test_stats_count_tokens_and_speed(talk: Talk) -> None:
    out = talk("one", "two", "/stats").out
    assert "answers        2" in out
    assert "first token    0.50 s on average" in out


def test_reasoning_is_told_from_the_answer_and_not_sent_again(talk: Talk) -> None:
    backend = FakeBackend([Says(("yes",), reasoning=("let me think",))])
    talked = talk("one", "two", backend=backend)
    assert talked.out.startswith("yes\n")
    assert "let me think" in talked.err
    assert talked.said()[1] == ("assistant", "yes")


@pytest.mark.parametrize(("mode", "is_told"), [("fold", True), ("hide", False)])
def test_reasoning_can_be_folded_or_hidden(talk: Talk, mode: str, is_told: bool) -> None:
    backend = FakeBackend([Says(("yes",), reasoning=("let me think",))])
    talked = talk("one", backend=backend, look=Look(style="simple", reasoning=mode))
    assert "let me think" not in talked.err + talked.out
    assert ("(thought for " in talked.err) is is_told


def test_the_footer_tells_times_rate_context_and_reason(talk: Talk) -> None:
    backend = FakeBackend([Says(("a", "b", "c"))], context_length=1000)
    err = talk("one", backend=backend).err
    assert err == "first token 0.50 s · 2.0 tokens/s · context 6/1000 · stop\n"


def test_the_footer_says_that_the_context_is_full(talk: Talk) -> None:
    backend = FakeBackend([Says(("a",) * 7, reason="length")], context_length=10)
    assert "length (the context is full)" in talk("one", backend=backend).err


def test_the_footer_can_be_switched_off(talk: Talk) -> None:
    assert talk("/set footer off", "one").err == "(footer = off)\n"


def test_a_partial_answer_is_kept_when_the_stream_breaks(talk: Talk, log: SessionLog) -> None:
    backend = FakeBackend([Says(("half an ",), error=UnreachableError("cut off"))])
    talked = talk("one", backend=backend)
    assert talked.turns == [("user", "one"), ("assistant", "half an ")]
    assert talked.err == "error: cut off\n"
    assert talked.out == "half an \n"


def test_no_log_keeps_nothing(talk: Talk, log: SessionLog) -> None:
    from llmctl.cli.chat.conversation import Conversation

    talked = talk("one", "/show", conversation=Conversation(None))
    assert "not kept" in talked.out
    assert log.list(limit=None) == []


def test_a_backend_that_fails_to_open_is_told_once_and_tried_again(talk: Talk) -> None:
    settings = Settings(url="http://127.0.0.1:1/v1")
    failures: list[LlmctlError] = [UnreachableError("nobody there"), UnreachableError("still nobody")]
    talked = talk("one", "/retry", settings=settings, failures=failures)
    assert [line for line in talked.err.splitlines() if "nobody" in line] == [
        "error: nobody there",
        "error: still nobody",
    ] or talked.turns == [("user", "one"), ("assistant", "echo: one")]


def test_tab_offers_commands_keys_values_and_subjects(talk: Talk) -> None:
    found: dict[str, list[str]] = {}

    def look(repl: Repl, _: FakeTerminal) -> None:
        for text in ("/re", "/set temp", "/set reasoning ", "/show co", "/export ", "hello", "/help und"):
            found[text] = [choice.text for choice in completions(repl, text)]

    talk(prepare=look)
    assert found["/re"] == ["/reset", "/regen", "/retry"]
    assert found["/set temp"] == ["temperature"]
    assert found["/set reasoning "] == ["show", "fold", "hide", "default"]
    assert found["/show co"] == ["conversation"]
    assert found["/export "] == ["md", "json"]
    assert found["hello"] == []
    assert found["/help und"] == ["undo"]


def test_tab_offers_paths_and_sessions(talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    talk("one", "/name nightly")
    found: dict[str, list[str]] = {}

    def look(repl: Repl, _: FakeTerminal) -> None:
        for text in ("/file ", "/file x n", f"/file {tmp_path}/fo", "/load n"):
            found[text] = [choice.text for choice in completions(repl, text)]

    talk(prepare=look)
    assert found["/file "] == ["folder/", "notes.txt"]
    assert found["/file x n"] == ["notes.txt"]
    assert found[f"/file {tmp_path}/fo"] == [f"{tmp_path}/folder/"]
    assert found["/load n"] == ["nightly", "notes.txt"]


@pytest.mark.parametrize("line", ["/load ~nosuchuser/x", "/file ~nosuchuser/x", "/save ~nosuchuser/x"])
def test_the_home_of_nobody_is_a_folder_that_is_not_there(talk: Talk, line: str) -> None:
    talked = talk("one", line, "still here")
    assert "error: " in talked.err
    assert "echo: still here" in talked.out


@pytest.mark.parametrize("line", [f"/load {'a' * 300}", f"/save {'a' * 300}", f"/file {'a' * 300}"])
def test_a_name_that_no_file_can_have_is_one_line(talk: Talk, line: str) -> None:
    talked = talk("one", line, "still here")
    assert sum(text.startswith("error: ") for text in talked.err.splitlines()) == 1
    assert "echo: still here" in talked.out


def test_a_device_is_not_attached(talk: Talk) -> None:
    assert "/dev/zero is a device or pipe, not a file" in talk("/file /dev/zero").err


@pytest.mark.parametrize(("choice", "is_replaced"), [("r", True), ("k", False), (None, False)])
def test_a_file_is_replaced_only_when_that_is_wanted(
    talk: Talk, tmp_path: Path, choice: str | None, is_replaced: bool
) -> None:
    path = tmp_path / "a.md"
    path.write_text("old")
    talk("one", f"/export md {path}", choices=[choice])
    assert ("echo: one" in path.read_text()) is is_replaced


def test_what_is_saved_is_what_the_log_has(talk: Talk, log: SessionLog, tmp_path: Path) -> None:
    talk("one", f"/save {tmp_path}/a.json")
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["title"] == "one"
    assert [each["model"] for each in saved["messages"]] == ["fake", "fake"]
    assert saved["messages"][1]["finish_reason"] == "stop"


def test_continue_keeps_the_reasoning(talk: Talk) -> None:
    backend = FakeBackend([Says(("half",), reasoning=("why",), reason="length"), Says((" more",))])
    talked = talk("one", "/continue", "/show reasoning", backend=backend)
    assert "why" in talked.out
    assert talked.turns[-1] == ("assistant", "half more")


def test_an_edited_question_that_fails_leaves_the_old_exchange(talk: Talk, log: SessionLog) -> None:
    backend = FakeBackend([Says(("first",)), Says(error=UnreachableError("gone"))])
    talked = talk("one", "/edit-last", "uno", backend=backend)
    assert talked.turns == [("user", "one"), ("assistant", "first")]
    (session,) = log.list(limit=None)
    assert [turn.content for turn in log.turns(session.id)] == ["one", "first"]


def test_set_takes_values_with_equals_signs_and_newlines(talk: Talk) -> None:
    talked = talk("/set stop a=b", "one", r"/set stop \n", "two")
    assert [request.sampling.stop for request in talked.backend.requests] == [("a=b",), ("\n",)]


def test_a_quoted_block_is_no_command() -> None:
    assert terminal.unwrapped('"""/help"""') == " /help"
    assert terminal.unwrapped('"""a""" or """b"""') == '"""a""" or """b"""'
    assert terminal.unwrapped('"""\none\ntwo\n"""') == "one\ntwo"


def test_what_is_shown_cannot_drive_the_terminal(talk: Talk) -> None:
    out = talk("/system a\x1b[2Jb", "/system").out
    assert "\x1b" not in out
    assert r"a\x1b[2Jb" in out


def test_an_overflow_that_dropping_does_not_help_brings_the_turns_back(talk: Talk) -> None:
    backend = FakeBackend(context_length=60)
    talked = talk("hello", "x" * 100, backend=backend, choices=["d"])
    assert talked.turns == [("user", "hello"), ("assistant", "echo: hello")]
    assert talked.err.count("error: the prompt has") <= 2
