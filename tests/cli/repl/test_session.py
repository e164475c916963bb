"""Whole sessions at a real terminal: what a user sees who scrolls back is kept as golden files.

`LLMCTL_GOLDEN=write pytest tests/cli/repl/test_session.py` writes them anew; look at them before you commit.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import terminal as keys
from tests.server import DemoServer, Reply, ScriptedServer
from tests.terminal import Terminal, terminal

GOLDEN = Path(__file__).parent / "golden"
# Read before the isolation of the tests removes it.
IS_WRITING = os.environ.get("LLMCTL_GOLDEN") == "write"
GREEDY = ("--temperature", "0")
CAPITAL = "What is the capital of France?"
# No joined emoji: the emulator forgets the rest of a chunk behind one.
DOCUMENT = """\
# A title 日本語

Some *text* with `code` and an emoji 😀 that is long enough to be wrapped once.

- one
- two, which is longer than the narrow terminal
  1. nested

```python
x = "a line of code that stays whole, however narrow"
```

| name | 値 |
|------|---:|
| 東京 | 1 |
| long name | 22 |
"""
CHANGING = (
    (r"first token [\d.]+ s", "first token N s"),
    (r"[\d.]+ tokens/s", "N tokens/s"),
    (r"[\d.]+ s on average", "N s on average"),
    (r"[\d.]+ \(best [\d.]+\)", "N (best N)"),
    (r"^[\d.]+ s · \d+ tok/s", "N s · N tok/s"),
    (r"[\d.]+ GiB of this process", "N GiB of this process"),
    (r"(bfloat16|float32) on cpu", "NUMBERS on cpu"),
    (r"http://127\.0\.0\.1:\d+", "http://SERVER"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?\S*", "DATE"),
)


def check_golden(name: str, shown: Terminal, folder: Path) -> None:
    """What was drawn is what was looked at before."""
    text = shown.text().replace(str(folder), "FOLDER") + "\n"
    for pattern, word in CHANGING:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    path = GOLDEN / f"{name}.txt"
    if IS_WRITING:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.fixture
def editor(tmp_path: Path) -> dict[str, str]:
    """An editor that appends a line to whatever it is given."""
    script = tmp_path / "editor"
    script.write_text("#!/bin/sh\nprintf 'What is the capital of Japan?' >> \"$1\"\n")
    script.chmod(0o755)
    return {"EDITOR": str(script)}


def every_command(shown: Terminal, *, is_local: bool) -> Iterator[str]:
    """Use each command once; yields what it does, for the failure's sake."""
    yield shown.say("/help regen")[-1]
    for line in (
        CAPITAL,
        "/regen",
        "/retry max_new_tokens=2",
        "/continue",
        "/stats",
        "/show",
        "/undo",
        "/system You are a pirate.",
        "/system",
        CAPITAL,
        '/system ""',
        "/set top_p 1.5",
        "/set top_p 0.9",
        "/set",
        "/model",
        "/template" if is_local else "/show parameters",
        "/name first",
        "/save talk",
        "/reset",
        "/file notes.txt -- Repeat after me: I like tea.",
        "/export md",
        "/copy",
        "/load talk",
        "/load first",
        "/edit",
        "/nonsense",
        "/show conversation",
    ):
        yield shown.say(line)[-1]


@pytest.mark.parametrize("columns", [80, 40])
def test_every_command_at_a_terminal(
    columns: int, tmp_path: Path, editor: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("tea\n")
    with terminal("chat", "demo", *GREEDY, columns=columns, env=editor, cwd=tmp_path) as shown:
        shown.wait_for(keys.PROMPT)
        for _ in every_command(shown, is_local=True):
            pass
        shown.send("/exit" + keys.ENTER)
        assert shown.ended() == 0
        check_golden(f"commands-{columns}", shown, tmp_path)


@pytest.mark.parametrize("columns", [80, 40])
def test_every_command_against_a_server(columns: int, tmp_path: Path, editor: dict[str, str]) -> None:
    (tmp_path / "notes.txt").write_text("tea\n")
    with DemoServer() as server:
        url = ("--url", server.url)
        with terminal("chat", *url, *GREEDY, columns=columns, env=editor, cwd=tmp_path) as shown:
            shown.wait_for(keys.PROMPT)
            for _ in every_command(shown, is_local=False):
                pass
            shown.send("/exit" + keys.ENTER)
            assert shown.ended() == 0
            check_golden(f"server-{columns}", shown, tmp_path)


@pytest.mark.parametrize("columns", [80, 40])
def test_every_key_at_a_terminal(columns: int, tmp_path: Path, editor: dict[str, str]) -> None:
    overflow = {
        "error": {"message": "maximum context length is 50 tokens", "code": "context_length_exceeded"}
    }
    replies = {
        "stall": Reply(pieces=["half ", "an ", "answer ", "that "], stall_after=4),
        "think": Reply(reasoning=["Let me ", "see."], pieces=["**Yes**, of course."]),
        "document": Reply(pieces=re.findall(r"(?s).{1,5}", DOCUMENT)),
        "too long": Reply(status=400, body=overflow),
        "line 199": Reply(pieces=["200 lines came."]),
    }
    with (
        ScriptedServer(by_message=replies) as server,
        terminal("chat", "--url", server.url, columns=columns, env=editor, cwd=tmp_path) as shown,
    ):
        shown.wait_for(keys.PROMPT)
        shown.send(keys.ENTER)
        shown.send(keys.CTRL_C)
        shown.wait_for("leaves")
        shown.send("given up")
        shown.wait_for("given up")
        shown.send(keys.CTRL_C)
        shown.wait(shown.is_idle, what="an empty line")
        shown.say("think")
        shown.say("document")
        shown.send("stall")
        shown.wait_for(">>> stall")
        shown.send(keys.ENTER)
        shown.wait_for("half an answer that")
        shown.send(keys.CTRL_C)
        shown.wait(shown.is_idle, what="the prompt")
        shown.send("one" + keys.ALT_ENTER + "two")
        shown.wait_for("two")
        shown.say("")
        shown.paste("\n".join(f"line {number}" for number in range(200)))
        shown.wait_for("line 199")
        shown.say("")
        shown.send("And " + keys.CTRL_G)
        shown.wait_for("Japan")
        shown.say("")
        shown.send(keys.CTRL_R + "thi")
        shown.wait_for("think")
        shown.send(keys.ENTER)
        shown.say("")
        shown.send("/set reas" + keys.TAB)
        shown.wait_for("reasoning")
        shown.say(" fold")
        shown.say("think")
        shown.send("too long")
        shown.wait_for("too long")
        shown.send(keys.ENTER)
        shown.wait_for(r"\[d\]rop")
        shown.send("s")
        shown.wait_for("asks again")
        shown.wait(shown.is_idle, what="the prompt")
        shown.send(keys.CTRL_D)
        assert shown.ended() == 0
        check_golden(f"keys-{columns}", shown, tmp_path)
