"""Real processes on a lifeline, of a small program that stands for a part."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmctl.core.errors import LlmctlError
from llmctl.services.up.process import LogLauncher, Process, Told
from tests.conftest import ROOT
from tests.services.worker.serving import until

PART = """
import os, sys, time
say = lambda text: print(text, file=sys.stderr, flush=True)
for word in sys.argv[1:]:
    say(word)
while os.read(0, 1):
    pass
"""
WORKER = "worker at http://127.0.0.1:5 serves a, b/c, Ctrl-C ends it"


@pytest.fixture
def launcher(tmp_path: Path) -> LogLauncher:
    return LogLauncher([sys.executable, "-c", PART], tmp_path)


@pytest.fixture
def started() -> Iterator[list[Process]]:
    found: list[Process] = []
    yield found
    for process in found:
        process.kill()
        until(lambda process=process: process.exit_code() is not None)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (WORKER, Told(url="http://127.0.0.1:5", models=("a", "b/c"))),
        (
            "worker at http://127.0.0.1:5/v1 serves a, Ctrl-C ends it",
            Told(url="http://127.0.0.1:5", models=("a",)),
        ),
        ("controller at http://[::1]:21001, Ctrl-C ends it", Told(url="http://[::1]:21001")),
        ("gateway at http://0.0.0.0:8000/v1, Ctrl-C ends it", Told(url="http://0.0.0.0:8000")),
    ],
)
def test_a_part_says_where_it_is(
    launcher: LogLauncher, started: list[Process], line: str, told: Told
) -> None:
    started.append(launcher.start("x", ["a warning with http://nowhere:1", line, "more"], {}))
    until(lambda: started[0].told() is not None)
    assert started[0].told() == told
    assert started[0].exit_code() is None


def test_what_an_earlier_process_said_is_not_taken_for_this_one(
    launcher: LogLauncher, started: list[Process], tmp_path: Path
) -> None:
    started.append(launcher.start("x", [WORKER], {}))
    until(lambda: started[0].told() is not None)
    started[0].kill()
    until(lambda: started[0].exit_code() == -signal.SIGKILL)
    started.append(launcher.start("x", ["second"], {}))
    until(lambda: started[1].last_lines() == ["second"])
    assert started[1].told() is None
    assert WORKER in launcher.log_of("x").read_text(encoding="utf-8")


def test_a_log_that_somebody_removes_is_missed_by_nobody(
    launcher: LogLauncher, started: list[Process]
) -> None:
    started.append(launcher.start("x", ["one"], {}))
    until(lambda: started[0].last_lines() == ["one"])
    launcher.log_of("x").unlink()
    assert started[0].told() is None
    assert started[0].last_lines() == []


def test_a_part_can_be_ended_in_peace(launcher: LogLauncher, started: list[Process]) -> None:
    started.append(launcher.start("x", [WORKER], {}))
    until(lambda: started[0].told() is not None)
    started[0].terminate()
    until(lambda: started[0].exit_code() == -signal.SIGTERM)
    started[0].terminate()
    started[0].kill()


def test_what_cannot_be_started_is_told(tmp_path: Path) -> None:
    with pytest.raises(LlmctlError, match="cannot start the x: No such file"):
        LogLauncher([str(tmp_path / "nosuch")], tmp_path).start("x", [], {})


LAUNCH = """
import sys, time
from pathlib import Path
from llmctl.services.up.process import LogLauncher
launcher = LogLauncher([sys.executable, "-m", "llmctl.cli.serve.leash", "30"], Path(sys.argv[1]))
controller = launcher.start("c", ["serve", "controller", "--port", "0"], {})
while controller.told() is None:
    time.sleep(0.05)
print(controller.pid, flush=True)
time.sleep(600)
"""


def test_a_part_ends_in_peace_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(tmp_path)], cwd=ROOT, env=os.environ, stdout=subprocess.PIPE
    )
    with supervisor:
        assert supervisor.stdout is not None
        part = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
    until(lambda: not part.is_running() or part.status() == psutil.STATUS_ZOMBIE)
    assert "Traceback" not in (tmp_path / "c.log").read_text(encoding="utf-8")
