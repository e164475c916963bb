"""Servers that misbehave, and models that overflow: one clear line, and the talk goes on."""

from typing import Any

import pytest

from llmctl.cli.chat.opening import Opening, ServerOpener
from llmctl.core.settings import Settings
from llmctl.core.types import ChatRequest
from tests import terminal as keys
from tests.cli.repl.conftest import Talk
from tests.fake import FakeBackend
from tests.server import Reply, ScriptedServer
from tests.terminal import terminal

FAULTS: dict[str, tuple[Reply, str]] = {
    "401": (Reply(status=401, body='{"error": {"message": "bad key"}}'), "bad key"),
    "404": (Reply(status=404, body='{"error": {"message": "no such model"}}'), "no such model"),
    "429": (Reply(status=429, body='{"error": "slow down"}', headers={"Retry-After": "7"}), "7"),
    "500": (Reply(status=500, body="<html>oops</html>"), "500"),
    "garbage": (Reply(raw=[b"\x00\xff\x1b[2J garbage"]), ""),
    "cut": (Reply(pieces=["half an answer"], cut_after=1), "cut"),
    "silent": (Reply(silence_s=20), "nothing for 1 s"),
    "error event": (Reply(pieces=["half"], error={"message": "the GPU is gone"}), "the GPU is gone"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_answer_is_one_line_and_the_next_one_works(fault: str) -> None:
    reply, told = FAULTS[fault]
    with (
        ScriptedServer(by_message={"fail": reply}) as server,
        terminal("chat", "--url", server.url, "--timeout", "1") as shown,
    ):
        shown.wait_for(keys.PROMPT)
        shown.say("fail")
        lines = [line for line in shown.lines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert told in shown.text()
        shown.say("are you there?")
        assert "are you there?" in shown.lines()
        assert "Traceback" not in shown.text()
        shown.send(keys.CTRL_D)
        assert shown.ended() == 0


def test_a_server_that_is_not_there_yet_is_tried_again() -> None:
    with ScriptedServer() as server:
        url = server.url
    with terminal("chat", "--url", url) as shown:
        shown.wait_for("error: ")
        shown.send("hello" + keys.ENTER)
        shown.wait_for("/retry asks again")
        shown.send(keys.CTRL_D)
        assert shown.ended() == 0


def chat(*roles_and_texts: str) -> list[tuple[str, str]]:
    roles = ("user", "assistant")
    return [(roles[place % 2], text) for place, text in enumerate(roles_and_texts)]


LONG = "x" * 40


def test_an_overflow_asks_and_dropping_the_oldest_goes_on(talk: Talk) -> None:
    backend = FakeBackend(context_length=120)
    talked = talk(LONG, LONG, backend=backend, choices=["d"])
    assert talked.terminal.asked == [{"d": "drop the oldest turns", "s": "stop"}]
    assert talked.said() == [("user", LONG)]
    assert "the model no longer sees the oldest 2 turns" in talked.err
    assert talked.turns == chat(LONG, "echo: " + LONG)


@pytest.mark.parametrize("choice", ["s", None])
def test_an_overflow_that_is_stopped_takes_the_question_back(talk: Talk, choice: str | None) -> None:
    talked = talk(LONG, LONG, backend=FakeBackend(context_length=120), choices=[choice])
    assert talked.turns == chat(LONG, "echo: " + LONG)
    assert "/retry asks again" in talked.err


@pytest.mark.parametrize(("how", "num_turns"), [("drop", 2), ("stop", 2)])
def test_a_setting_chooses_beforehand_and_says_so(talk: Talk, how: str, num_turns: int) -> None:
    settings = Settings().with_flags({"overflow": how})
    talked = talk(LONG, LONG, backend=FakeBackend(context_length=120), settings=settings)
    assert talked.terminal.asked == []
    assert len(talked.turns) == num_turns
    assert ("no longer sees" in talked.err) is (how == "drop")
    assert ("error: the prompt has" in talked.err) is (how == "stop")


def test_a_question_that_alone_is_too_long_is_told(talk: Talk) -> None:
    talked = talk("x" * 200, backend=FakeBackend(context_length=100), choices=["d"])
    assert "this question alone is too long" in talked.err
    assert talked.turns == []


def test_dropping_leaves_room_for_an_answer(talk: Talk) -> None:
    backend = FakeBackend(context_length=400)
    talked = talk(*[LONG] * 6, backend=backend, choices=["d"] * 6)
    request: Any = talked.backend.requests[-1]
    assert isinstance(request, ChatRequest)
    assert sum(len(message.content) for message in request.messages) < 400


def test_the_opener_of_a_server_leaves_the_model_to_it() -> None:
    assert ServerOpener(Opening(settings=Settings(url="http://x/v1"))).opening.model is None
    named = Settings(url="http://x/v1").with_flags({"model": "m"})
    assert ServerOpener(Opening(settings=named)).opening.model == "m"


def test_a_lowered_limit_can_be_raised_to_the_models_own() -> None:
    with terminal("chat", "demo", "--temperature", "0", "--context", "16") as shown:
        shown.wait_for(keys.PROMPT)
        shown.send("What is the capital of France?" + keys.ENTER)
        shown.wait_for(r"\[r\]aise the limit to 1024")
        shown.send("r")
        shown.wait_for("The capital of France is Paris.")
        shown.wait(shown.is_idle, what="the prompt")
        assert "(the context is now 1024 tokens)" in shown.text()
        shown.say("/show")
        assert "1024 tokens" in shown.text()
        shown.send(keys.CTRL_D)
        assert shown.ended() == 0


def test_the_limit_for_silence_is_set_in_the_talk() -> None:
    with (
        ScriptedServer(by_message={"hang": Reply(silence_s=20)}) as server,
        terminal("chat", "--url", server.url) as shown,
    ):
        shown.wait_for(keys.PROMPT)
        shown.say("/set timeout 0.3")
        shown.say("hang")
        assert "said nothing for 0.3 s" in shown.text()
        shown.say("/set context 100")
        assert "the server decides on its context" in shown.text()
        shown.send(keys.CTRL_D)
        assert shown.ended() == 0
