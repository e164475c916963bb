"""What goes to a terminal's stderr at the same time: progress, lines of the log, and lines that pass."""

import io
import logging

import pytest
from rich.console import Console as RichConsole

from llmctl.cli.console import Console
from llmctl.cli.progress import RichProgress
from llmctl.core import log
from llmctl.core.errors import UsageError
from tests.terminal import terminal

ERASE = "\r\x1b[2K"


def test_lines_of_the_log_stand_by_themselves_beside_a_spinner() -> None:
    with terminal("chat", "demo", "-v", "-p", "What is the capital of France?") as shown:
        assert shown.ended(timeout_s=60) == 0
        lines = shown.lines()
    assert lines[0] == "family llama-family: config.json: model_type llama"
    assert lines[-1] == "The capital of France is Paris."
    # Braille is what spinners are drawn in, heavy lines are bars.
    assert not [line for line in lines if any("\u2800" <= sign <= "\u28ff" or sign == "━" for sign in line)]


def test_a_log_is_written_as_before_once_the_progress_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(0)
    with Console().progress() as progress:
        progress.stage("work")
        logging.getLogger("llmctl").warning("one")
    logging.getLogger("llmctl").warning("two")
    assert capsys.readouterr().err == "one\ntwo\n"


def test_a_name_in_a_stage_cannot_drive_the_terminal() -> None:
    drawn = io.StringIO()
    with RichProgress(RichConsole(file=drawn, force_terminal=True)) as progress:
        progress.stage("load \x1b]0;PWNED\x07[red]\nx")
    assert "\x1b]0;" not in drawn.getvalue()
    assert "PWNED" in drawn.getvalue()
    assert "[red] x" in drawn.getvalue()


@pytest.mark.parametrize("kind", ["aside", "note", "error"])
def test_a_passing_line_makes_way_for_what_stays(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "is_live", True)
    console = Console()
    say = {
        "aside": lambda: console.aside("stays\n"),
        "note": lambda: console.note("stays"),
        "error": lambda: console.error(UsageError("stays")),
    }[kind]
    console.status("passes")
    say()
    say()
    first, second, end = capsys.readouterr().err.removeprefix(f"{ERASE}passes").split("\n")
    assert (first, end) == (ERASE + second, "")
    assert second.endswith("stays")
