"""`llmctl serve up`, `ps` and `stop` with real processes, and the demo model where it must serve."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from llmctl.core.places import Places
from llmctl.services.up.state import Fleets, FleetState
from tests.conftest import ROOT, Llmctl
from tests.services.worker.serving import until

QUESTION = {
    "model": "demo",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}
_LOADED_S = 120


class Up:
    """A `serve up` that a test starts and ends."""

    def __init__(self, *args: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmctl", "serve", "up", *args],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def first_line(self) -> str:
        """What it tells on stdout when all is served."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.lines
        return line

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def close(self) -> int:
        """Have it end, if it has not, and give its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(timeout=60)
        self._reading.join(timeout=10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code


@pytest.fixture
def up() -> Iterator[Any]:
    """Starts fleets that do not outlive the test."""
    started: list[Up] = []

    def begin(*args: str) -> Up:
        started.append(Up(*args))
        return started[-1]

    yield begin
    for each in started:
        each.close()


def running() -> list[FleetState]:
    return Fleets(Places.from_environ(os.environ)).running()


def parts_of(state: FleetState) -> list[psutil.Process]:
    return [psutil.Process(part.process.pid) for part in state.parts if part.process is not None]


def all_gone(parts: list[psutil.Process]) -> bool:
    return not any(part.is_running() and part.status() != psutil.STATUS_ZOMBIE for part in parts)


def ask(url: str, key: str | None = None) -> Any:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.post(f"{url}/chat/completions", json=QUESTION, headers=headers, timeout=60, trust_env=False)


def test_a_fleet_serves_lives_on_after_a_death_and_ends_with_one_ctrl_c(up: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret\n", encoding="utf-8")
    keys.chmod(0o600)
    fleet = up("demo", "--workers", "2", "--port", "0", "--json", "--api-key-file", str(keys))
    told = json.loads(fleet.first_line())
    assert told["models"] == ["demo"]
    assert [part["name"] for part in told["parts"]] == ["controller", "worker-1", "worker-2", "gateway"]
    assert ask(told["url"]).status_code == 401
    answer = ask(told["url"], "secret")
    assert answer.json()["choices"][0]["message"]["content"] == "The capital of France is Paris."
    # Not even the token lets a worker be asked by those who do not know it.
    worker = next(part for part in told["parts"] if part["kind"] == "worker")
    assert ask(f"{worker['url']}/v1").status_code == 401

    os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: fleet.said(f"{worker['name']} was killed by signal 9: started again in 1 s"), within_s=20)
    assert ask(told["url"], "secret").status_code == 200
    until(lambda: fleet.said(f"{worker['name']} serves demo again"), within_s=_LOADED_S)

    (state,) = running()
    parts = parts_of(state)
    assert len(parts) == 4
    fleet.process.send_signal(signal.SIGINT)
    assert fleet.process.wait(timeout=60) == 130
    assert all_gone(parts)
    assert running() == []
    assert not state.token_file.exists()
    assert not fleet.said("killed\n")
    assert (Path(told["logs"]) / "worker-1.log").exists()


def test_a_detached_fleet_is_listed_keeps_its_port_and_is_stopped(llmctl_process: Llmctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    try:
        started = llmctl_process("serve", "up", "--port", port, "--detach", "--seed", "1")
        assert (started.code, started.out) == (0, f"http://127.0.0.1:{port}/v1  demo\n"), started.err
        assert "worker-1 serves demo at" in started.err
        assert ask(f"http://127.0.0.1:{port}/v1").status_code == 200

        listed = llmctl_process("serve", "ps").out.splitlines()
        assert listed[0].split() == ["NAME", "URL", "MODELS", "PARTS", "UPTIME"]
        assert listed[1].split()[:4] == [port, f"http://127.0.0.1:{port}/v1", "demo", "3/3"]
        (state,) = json.loads(llmctl_process("serve", "ps", "--json").out)["fleets"]
        assert state["pid"] != os.getpid()
        assert all(part["is_alive"] for part in state["parts"])

        second = llmctl_process("serve", "up", "demo", "--port", port)
        assert second.code == 2
        assert f"serves demo (process {state['pid']})" in second.err
        status = ("--controller", state["controller"], "--token-file", state["token_file"])
        assert "demo" in llmctl_process("serve", "status", *status).out
    finally:
        parts = [part for state in running() for part in parts_of(state)]
        stopped = llmctl_process("serve", "stop")
    assert (stopped.code, stopped.err) == (0, f"fleet {port} has ended\n")
    assert len(parts) == 3
    assert all_gone(parts)
    assert running() == []


def test_the_parts_end_by_themselves_when_the_supervisor_is_killed(up: Any, llmctl: Llmctl) -> None:
    fleet = up("--port", "0", "--drain", "1")
    until(lambda: any(len(parts_of(state)) == 3 for state in running()), within_s=60)
    parts = parts_of(running()[0])
    fleet.process.kill()
    until(lambda: all_gone(parts), within_s=60)
    ended = llmctl("serve", "ps")
    assert (ended.code, ended.out) == (0, "")
    assert "no fleet runs" in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_fleet_that_is_still_being_started_ends_at_once(up: Any, number: int) -> None:
    fleet = up("--port", "0")
    until(lambda: any(len(parts_of(state)) == 3 for state in running()), within_s=60)
    parts = parts_of(running()[0])
    fleet.process.send_signal(number)
    assert fleet.process.wait(timeout=30) == 128 + number
    assert all_gone(parts)
    assert running() == []


def test_a_fleet_can_be_stopped_while_it_is_being_started(up: Any, llmctl: Llmctl) -> None:
    fleet = up("--port", "0")
    until(lambda: any(len(parts_of(state)) == 3 for state in running()), within_s=60)
    parts = parts_of(running()[0])
    ended = llmctl("serve", "stop", "--now", "--json")
    assert [each["was_killed"] for each in json.loads(ended.out)["ended"]] == [False]
    assert fleet.process.wait(timeout=30) == 143
    assert all_gone(parts)


def test_a_model_that_is_not_found_ends_the_start_by_its_kind(llmctl_process: Llmctl) -> None:
    ended = llmctl_process("serve", "up", "./nosuch", "--port", "0", "--detach", "--json")
    assert (ended.code, ended.out) == (3, "")
    error = json.loads(ended.err.splitlines()[-1])["error"]
    assert error["code"] == "not_found"
    assert error["message"].startswith("worker-1: no such folder: ./nosuch")
    assert running() == []


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--host", "0.0.0.0"), "--api-key-file"),
        (("--api-key-file", "./nosuch"), "nosuch"),
        (("--workers", "0"), "--workers"),
        (("demo", "demo"), "two models are called 'demo'"),
        (("--kv-memory", "5"), "--kv-memory"),
        (("--load-8bit", "--load-4bit"), "give one"),
        (("--dispatch-method", "luck"), "luck"),
        (("--gpus", "0,1,2", "--workers", "2"), "3 GPUs"),
        (("--port", "5000", "--controller-port", "5000"), "both 5000"),
        (("a=demo", "b=demo", "--task", "embed"), "--task NAME="),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_started(
    args: tuple[str, ...], told: str, llmctl: Llmctl
) -> None:
    ended = llmctl("serve", "up", *args)
    assert ended.code in (2, 3)
    assert told in ended.err
    assert not (Path(os.environ["LLMCTL_DATA_HOME"]) / "fleets").exists()


def test_a_port_of_another_program_is_told_before_anything_is_loaded(llmctl: Llmctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = llmctl("serve", "up", "--port", str(other.getsockname()[1]))
    assert ended.code == 2
    assert "is taken" in ended.err


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        ((), 3, "no fleet runs"),
        (("8000",), 3, "no fleet runs"),
        (("8000", "--all"), 2, "--all"),
    ],
)
def test_there_must_be_a_fleet_to_stop(args: tuple[str, ...], code: int, told: str, llmctl: Llmctl) -> None:
    ended = llmctl("serve", "stop", *args)
    assert ended.code == code
    assert told in ended.err


def test_to_stop_all_of_no_fleets_is_nothing_to_do(llmctl: Llmctl) -> None:
    ended = llmctl("serve", "stop", "--all", "--json")
    assert (ended.code, json.loads(ended.out)) == (0, {"ended": []})


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (4.9, "4 s"),
        (60, "1 min"),
        (3600 * 3 + 1200, "3 h 20 min"),
        (86400 * 5 + 7200, "5 d 2 h"),
        (-1, "0 s"),
    ],
)
def test_how_long_a_fleet_runs_is_told_in_two_numbers(seconds: float, told: str) -> None:
    from llmctl.cli.serve.ps import uptime

    assert uptime(seconds) == told
