"""Every way that the command line can end: one line, the right exit code, and never a traceback unasked."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
import typer

from llmctl.cli.commands import COMMANDS, Entry
from llmctl.cli.console import Console
from llmctl.cli.options import Json, console_of
from llmctl.core import errors
from llmctl.core.errors import LlmctlError, NotFoundError
from tests.conftest import ROOT, Llmctl

USAGE = {
    "no such command": (["chta"], "No such command 'chta'. Did you mean 'chat'?", "llmctl --help"),
    "no such command in a group": (
        ["config", "shwo"],
        "No such command 'shwo'. Did you mean 'show'?",
        "llmctl config --help",
    ),
    "like no command at all": (["qqq"], "No such command 'qqq'", "llmctl --help"),
    "a command of a group": (
        ["pull", "x"],
        "no such command: llmctl pull",
        "did you mean llmctl models pull?",
    ),
    "a command of several groups": (
        ["-v", "list"],
        "no such command: llmctl list",
        "did you mean llmctl models list or llmctl logs list?",
    ),
    "another tool's word": (["run", "demo"], "no such command: llmctl run", "did you mean llmctl chat?"),
    "another tool's word in a group": (
        ["logs", "rm", "1"],
        "no such command: llmctl logs rm",
        "did you mean llmctl logs delete?",
    ),
    "a command of another group": (
        ["logs", "pull", "x"],
        "no such command: llmctl logs pull",
        "did you mean llmctl models pull?",
    ),
    "no such flag": (["doctor", "--frobnicate"], "No such option: --frobnicate", "llmctl doctor --help"),
    "a misspelt flag": (
        ["chat", "--temprature", "1"],
        "No such option: --temprature (Possible options: --conv-template, --temperature, --template)",
        "llmctl chat --help",
    ),
    "too many words": (
        ["config", "show", "extra"],
        "Got unexpected extra argument(s) (extra)",
        "llmctl config show --help",
    ),
    "no number": (
        ["chat", "--top-k", "many"],
        "Invalid value for '--top-k': must be a whole number: 'many'",
        "llmctl chat --help",
    ),
    "no such colour": (
        ["--color", "blue", "doctor"],
        "Invalid value for '--color': 'blue' is not one of auto, always, never",
        "llmctl --help",
    ),
}


@pytest.mark.parametrize(("args", "message", "hint"), USAGE.values(), ids=USAGE)
def test_a_mistake_in_the_command_line_is_one_line_and_a_pointer_to_help(
    llmctl: Llmctl, args: list[str], message: str, hint: str
) -> None:
    ended = llmctl(*args)
    assert (ended.code, ended.out, ended.err) == (2, "", f"error: {message} ({hint})\n")


@pytest.mark.parametrize(("args", "message", "hint"), USAGE.values(), ids=USAGE)
def test_with_json_a_mistake_is_one_object_on_stderr(
    llmctl: Llmctl, args: list[str], message: str, hint: str
) -> None:
    # Last, so that the mistake is met first: what --json asks for holds for the whole line.
    ended = llmctl(*args, "--json")
    assert (ended.code, ended.out) == (2, "")
    error = json.loads(ended.err)["error"]
    assert error == {"code": "usage", "message": message, "hint": hint}
    assert ended.err.count("\n") == 1


def test_a_flag_without_its_value_is_a_mistake(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "-p")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: Option '-p' requires an argument (llmctl")


# A command that ends as it is told: `llmctl end NAME`.


def raise_it(ctx: typer.Context, name: str, is_json: Json = False) -> None:
    """End in some way."""
    ways: dict[str, BaseException] = {
        "interrupt": KeyboardInterrupt(),
        "abort": typer.Abort(),
        "exit-0": typer.Exit(0),
        "exit-5": typer.Exit(5),
        "value": ValueError("strange\n  value"),
        "silent": ZeroDivisionError(),
        "eof": EOFError("input ended"),
        "lines": NotFoundError("no model\n'x'", hint="look\n again"),
    }
    if name == "note":
        console_of(ctx).note("by the way")
        return
    if name == "cause":
        try:
            raise FileNotFoundError("the cause")
        except FileNotFoundError as error:
            raise NotFoundError("no such model") from error
    if name in ways:
        raise ways[name]
    raise getattr(errors, name)("it went wrong", hint="try again")


def return_it(code: Annotated[int, typer.Argument()]) -> int:
    """End with an exit code."""
    return code


@pytest.fixture(autouse=True)
def _test_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "end", Entry("End in some way.", f"{__name__}:raise_it"))
    monkeypatch.setitem(COMMANDS, "give", Entry("End with an exit code.", f"{__name__}:return_it"))


@pytest.fixture(autouse=True)
def _signal_handler_restored() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


ERRORS = [name for name, value in vars(errors).items() if isinstance(value, type) and "Error" in name]


@pytest.mark.parametrize("name", ERRORS)
def test_our_errors_end_with_their_exit_code_in_one_line(llmctl: Llmctl, name: str) -> None:
    ended = llmctl("end", name)
    assert ended.code == getattr(errors, name).exit_code
    assert (ended.out, ended.err) == ("", "error: it went wrong (try again)\n")


@pytest.mark.parametrize("name", ERRORS)
def test_with_json_our_errors_are_one_object(llmctl: Llmctl, name: str) -> None:
    ended = llmctl("end", name, "--json")
    kind = getattr(errors, name)
    assert (ended.code, ended.out) == (kind.exit_code, "")
    assert json.loads(ended.err) == {
        "error": {"code": kind.code, "message": "it went wrong", "hint": "try again"}
    }


def test_an_error_of_several_lines_is_still_one(llmctl: Llmctl) -> None:
    assert llmctl("end", "lines").err == "error: no model 'x' (look again)\n"


def test_an_error_of_ours_shows_its_cause_with_debug_only(llmctl: Llmctl) -> None:
    assert llmctl("end", "cause").err == "error: no such model\n"
    err = llmctl("end", "cause", "--debug").err
    assert "FileNotFoundError: the cause" in err
    assert err.endswith("error: no such model\n")


UNFORESEEN = {
    "value": "ValueError: strange value",
    "silent": "ZeroDivisionError",
    "eof": "EOFError: input ended",
}


@pytest.mark.parametrize(("name", "text"), UNFORESEEN.items())
def test_what_nobody_foresaw_is_one_line_and_exit_code_1(llmctl: Llmctl, name: str, text: str) -> None:
    ended = llmctl("end", name)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.strip() == (
        f"error: {text} (this is a defect of llmctl: run again with --debug and report what it prints)"
    )


@pytest.mark.parametrize(("name", "text"), UNFORESEEN.items())
@pytest.mark.parametrize("before", [True, False])
def test_with_debug_the_traceback_comes_before_the_line(
    llmctl: Llmctl, name: str, text: str, before: bool
) -> None:
    ended = llmctl("--debug", "end", name) if before else llmctl("end", name, "--debug")
    assert ended.code == 1
    assert ended.err.lstrip().startswith("Traceback (most recent call last):\n")
    assert "in raise_it" in ended.err
    assert ended.err.splitlines()[-1].startswith(f"error: {text}")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["end", "interrupt"], 130),
        (["end", "abort"], 130),
        (["end", "exit-0"], 0),
        (["end", "exit-5"], 5),
        (["give", "0"], 0),
        (["give", "7"], 7),
        (["config", "show"], 0),
    ],
)
def test_other_ends_have_their_code_and_say_nothing(llmctl: Llmctl, args: list[str], code: int) -> None:
    ended = llmctl(*args)
    assert (ended.code, ended.err) == (code, "")


@pytest.fixture
def reading_command(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A llmctl that has begun and reads from a pipe that stays silent."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "llmctl", "chat", "-f", str(fifo)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    silent = open_when_read(fifo, process)
    yield process
    os.close(silent)
    process.kill()
    process.communicate()


def open_when_read(fifo: Path, process: subprocess.Popen[bytes]) -> int:
    """The writing end of `fifo`, which can be opened as soon as `process` has it open for reading."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.01)
    process.kill()
    pytest.fail(f"llmctl did not begin to read: {process.communicate()}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_at_once_and_in_silence(
    reading_command: subprocess.Popen[bytes], number: signal.Signals, code: int
) -> None:
    reading_command.send_signal(number)
    out, err = reading_command.communicate(timeout=30)
    assert (reading_command.returncode, out, err) == (code, b"", b"")


# Both ways in which Python keeps what it writes: an error comes at once, or when it exits.
BUFFERED = pytest.mark.parametrize("environ", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])


@BUFFERED
@pytest.mark.parametrize("args", [["--help"], ["--version"], ["chat", "-h"], ["config"], ["config", "show"]])
def test_a_reader_that_goes_away_is_no_error(args: list[str], environ: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = run_into(writing, *args, environ=environ)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


@BUFFERED
def test_head_gets_its_line_and_nobody_complains(environ: dict[str, str]) -> None:
    command = f"set -o pipefail; {sys.executable} -m llmctl --help | head -n 1"
    ended = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, env=without_buffering(environ)
    )
    assert ended.stdout.startswith(b"Usage: llmctl ")
    assert ended.stderr == b""


@BUFFERED
def test_a_full_disk_is_told_in_one_line(environ: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = run_into(full.fileno(), "config", "show", environ=environ)
    assert ended.returncode == 1
    assert ended.stderr == b"error: cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize(
    ("command", "code", "err"),
    [
        ("config show >&-", 1, "error: cannot write to stdout: it is closed\n"),
        ("--version >&-", 1, ""),
        ("chat -h >&-", 0, ""),
        ("config show 2>&- >/dev/null", 0, ""),
        ("nonsense 2>&-", 2, ""),
        ("--version 0<&-", 0, ""),
    ],
)
def test_a_stream_that_the_caller_closed_is_no_trouble(command: str, code: int, err: str) -> None:
    ended = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m llmctl {command}"], cwd=ROOT, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (code, err)


def run_into(stdout: int, *args: str, environ: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "llmctl", *args]
    return subprocess.run(
        command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, env=without_buffering(environ)
    )


def without_buffering(environ: dict[str, str]) -> dict[str, str]:
    """This process's environment, in which only `environ` decides on buffering."""
    return {key: text for key, text in os.environ.items() if key != "PYTHONUNBUFFERED"} | environ


RED, PLAIN = "\033[1;31merror:\033[0m ", "error: "


@pytest.mark.parametrize(
    ("environ", "args", "label"),
    [
        ({}, [], PLAIN),
        ({}, ["--color", "always"], RED),
        ({"FORCE_COLOR": "1"}, [], RED),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, [], PLAIN),
        ({"FORCE_COLOR": "1"}, ["--color", "never"], PLAIN),
        ({"FORCE_COLOR": "1"}, ["--color", "auto"], RED),
        ({"NO_COLOR": "1"}, ["--color", "always"], RED),
        ({"NO_COLOR": ""}, ["--color", "always"], RED),
    ],
)
def test_a_pipe_gets_colour_only_when_asked(
    llmctl: Llmctl,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    args: list[str],
    label: str,
) -> None:
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    assert llmctl(*args, "doctor", "--nope").err.startswith(label + "No such option")


@pytest.mark.parametrize(
    ("environ", "args", "label"),
    [
        ({}, [], RED),
        ({"NO_COLOR": ""}, [], RED),
        ({"NO_COLOR": "1"}, [], PLAIN),
        ({"TERM": "dumb"}, [], PLAIN),
        ({}, ["--color", "never"], PLAIN),
        ({"NO_COLOR": "1"}, ["--color", "always"], RED),
    ],
)
def test_a_terminal_gets_colour_unless_told_otherwise(
    environ: dict[str, str], args: list[str], label: str
) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "llmctl", *args, "nonsense"]
    subprocess.run(command, cwd=ROOT, stderr=theirs, env=os.environ | environ)
    said = os.read(ours, 1000).decode()
    os.close(ours)
    os.close(theirs)
    assert said == f"{label}No such command 'nonsense' (llmctl --help)\r\n"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], "always"), (["--color", "never"], "never"), (["--color", "auto"], "auto")],
)
def test_the_colour_of_the_settings_holds_until_a_flag(
    llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch, flags: list[str], expected: str
) -> None:
    monkeypatch.setenv("LLMCTL_COLOR", "always")
    monkeypatch.setitem(COMMANDS, "color", Entry("Tell the colour.", f"{__name__}:tell_color"))
    assert llmctl(*flags, "color").out == f"{expected}\n"
    assert llmctl("color", *flags).out == f"{expected}\n"


def tell_color(ctx: typer.Context) -> None:
    """Tell the colour."""
    from llmctl.cli.options import settings_of

    settings_of(ctx)
    console: Console = console_of(ctx)
    console.line(str(console.color))


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet_leaves_out_notes_and_warnings_but_no_errors(
    llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setenv("LLMCTL_NONSENSE", "1")
    assert "LLMCTL_NONSENSE" in llmctl("config", "show").err
    assert llmctl("config", "show", flag).err == ""
    assert llmctl(flag, "config", "show").err == ""
    assert llmctl("end", "note").err == "by the way\n"
    assert llmctl("end", "note", flag).err == ""
    assert llmctl("end", "LlmctlError", flag).err == "error: it went wrong (try again)\n"


def test_verbosity_does_not_outlive_its_run(llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCTL_NONSENSE", "1")
    assert llmctl("-q", "config", "show").err == ""
    assert llmctl("config", "show").err.count("LLMCTL_NONSENSE") == 1


def test_an_error_shows_what_its_stream_cannot_write_as_escapes(llmctl_process: Llmctl) -> None:
    ended = llmctl_process("größe", env={"PYTHONUTF8": "1", "PYTHONIOENCODING": "ascii:strict"})
    assert (ended.code, ended.err) == (2, "error: No such command 'gr\\xf6\\xdfe' (llmctl --help)\n")


def test_exit_codes_of_the_edges_are_those_of_the_table() -> None:
    from llmctl.cli import app

    assert (LlmctlError.exit_code, app.SIGINT_EXIT, app.SIGTERM_EXIT) == (1, 130, 143)
