"""`llmctl serve controller` and `llmctl serve status`, as processes on free ports of this machine."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llmctl.services import wire
from llmctl.services.fleet import FleetView
from llmctl.services.wire import ModelState
from llmctl.services.worker.registration import Registration
from tests.conftest import ROOT, Llmctl
from tests.services.controller.served import ServedController
from tests.services.fleet_states import worker
from tests.terminal import CTRL_C, terminal

TOKEN = "token-of-the-fleet"
_LONGEST_S = 30.0


class ControllerProcess:
    """`llmctl serve controller` and the URL that it told."""

    def __init__(self, *args: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "llmctl", "serve", "controller", "--port", str(port), *args]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        before: list[str] = []
        while not (line := self.process.stderr.readline()).startswith("controller at "):
            assert line, before
            before.append(line)
        self.told = line
        self.url = self.told.split()[2].rstrip(",")
        self.port = int(self.url.rpartition(":")[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code and the rest of its stderr."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=_LONGEST_S)
        return self.process.returncode, rest


@contextmanager
def running(*args: str, port: int = 0) -> Iterator[ControllerProcess]:
    started = ControllerProcess(*args, port=port)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.communicate()


def token_file(folder: Path) -> str:
    path = folder / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return str(path)


# The process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_controller_tells_its_port_and_ends_in_peace(number: signal.Signals, code: int) -> None:
    with running() as controller:
        assert controller.told.startswith("controller at http://127.0.0.1:")
        assert controller.port > 0
        with httpx2.Client(base_url=controller.url, trust_env=False) as client:
            assert client.post("/workers", json=wire.to_json(worker(1))).status_code == 200
            # An open question does not hold it up.
            version = client.get("/workers").json()["version"]
            asked = subprocess.Popen(
                [sys.executable, "-c", _ASK, f"{controller.url}/workers?since={version}&wait=30"],
                stdout=subprocess.PIPE,
            )
            assert asked.stdout is not None
            assert asked.stdout.readline() == b"asks\n"
            time.sleep(0.2)
            begin = time.monotonic()
            ended = controller.end(number)
            assert time.monotonic() - begin < 3
            assert b'"w1"' in asked.communicate(timeout=_LONGEST_S)[0]
    assert ended[0] == code
    assert "Traceback" not in ended[1]


_ASK = "import sys, urllib.request as r; print('asks', flush=True); print(r.urlopen(sys.argv[1]).read())"


def test_a_killed_controller_is_whole_again_within_five_seconds() -> None:
    async def live() -> tuple[float, set[str]]:
        first = ControllerProcess()
        states = {number: worker(number, started=time.time()) for number in (1, 2)}
        reports = [
            Registration([first.url], token=None, state=lambda number=number: states[number])  # type: ignore[misc]
            for number in states
        ]
        async with FleetView([first.url], token=None) as view, reports[0].kept(), reports[1].kept():
            await until(lambda: ids(view) == {"w1", "w2"})
            await asyncio.to_thread(first.end, signal.SIGKILL)
            await until(lambda: view.faults[first.url] is not None)
            # Traffic goes on.
            assert {view.choose("m").id for _ in range(50)} == {"w1", "w2"}
            with running(port=first.port) as again:
                begin = time.monotonic()
                seen: set[str] = set()
                while seen != {"w1", "w2"}:
                    assert ids(view) == {"w1", "w2"}
                    assert time.monotonic() - begin < 5
                    await asyncio.sleep(0.05)
                    seen = await asyncio.to_thread(listed, again.url)
                took_s = time.monotonic() - begin
                await until(lambda: view.faults[again.url] is None)
                return took_s, ids(view)

    took_s, known = asyncio.run(live())
    assert took_s < 5
    assert known == {"w1", "w2"}


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONGEST_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.01)


def ids(view: FleetView) -> set[str]:
    return {heard.state.id for heard in view.workers}


def listed(url: str) -> set[str]:
    return {each["id"] for each in httpx2.get(f"{url}/workers", trust_env=False).json()["workers"]}


def test_a_token_is_taken_from_a_file_that_a_variable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCTL_CLUSTER_TOKEN_FILE", token_file(tmp_path))
    with running("--dispatch-method", "shortest_queue", "--interval", "0.5") as controller:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx2.get(f"{controller.url}/workers", trust_env=False).status_code == 401
        with httpx2.Client(base_url=controller.url, headers=headers, trust_env=False) as client:
            assert client.get("/workers").json()["dispatch"] == "least-wait"
            state = worker(1, url="http://gpu1.example:21002")
            terms = client.post("/workers", json=wire.to_json(state)).json()
            assert terms == {"interval_s": 0.5, "expires_s": 1.5}


def test_a_port_that_is_taken_is_one_line(llmctl_process: Llmctl) -> None:
    with ServedController() as taken:
        ended = llmctl_process("serve", "controller", "--port", taken.url.rpartition(":")[2])
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "another program listens there" in ended.err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--host", "0.0.0.0"], "--token-file"),
        (["--host", "::"], "--token-file"),
        (["--interval", "0"], "--interval must be from 0.1 to 600 s, not 0"),
        (["--interval", "nan"], "--interval must be"),
        (["--dispatch-method", "random"], "one of least-wait, lottery, prefix"),
        (["--ssl"], "proxy"),
        (["--port", "70000"], "70000"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(llmctl: Llmctl, args: list[str], told: str) -> None:
    ended = llmctl("serve", "controller", *args)
    assert ended.code == 2
    assert told in ended.err


def test_a_token_file_that_is_missing_does_not_leave_a_controller_open(llmctl: Llmctl) -> None:
    ended = llmctl("serve", "controller", "--port", "0", "--token-file", "nowhere")
    assert ended.code == 3
    assert "nowhere" in ended.err


# What it shows


@pytest.fixture(scope="module")
def _fleet() -> Iterator[ServedController]:
    with ServedController(interval_s=60.0) as served:
        large = ModelState(name="large", aliases=("big",), context_length=4096, max_running=4, num_running=1)
        embeds = ModelState(name="bge", capabilities=("embeddings",))
        served.tell(
            worker(1, models=(large, embeds), num_running=1, num_waiting=2, kv_used=0.254, tokens_per_s=12.34)
        )
        served.tell(worker(2, "small", is_draining=True))
        yield served


@pytest.fixture
def fleet(_fleet: ServedController) -> ServedController:
    """Two workers, of which one drains."""
    return _fleet


def test_status_is_a_table(llmctl: Llmctl, fleet: ServedController) -> None:
    ended = llmctl("serve", "status", "--controller", fleet.url)
    assert (ended.code, ended.err) == (0, "")
    lines = [re.split(r"\s{2,}", line) for line in ended.out.splitlines()]
    assert lines[0] == [f"controller {fleet.url}"]
    assert lines[2] == ["WORKER", "STATE", "RUNNING", "WAITING", "KV", "TOKENS/S", "HEARD", "MODELS"]
    assert lines[3][:6] == ["http://127.0.0.1:9001", "serving", "1/4", "2", "25%", "12.3"]
    assert lines[3][7] == "large, bge"
    assert lines[4][1] == "draining"
    assert lines[6] == ["MODEL", "CONTEXT", "WORKERS", "RUNNING", "WAITING", "CAN"]
    assert lines[7] == ["bge", "-", "1", "0/1", "0", "embeddings"]
    assert lines[8] == ["large (big)", "4096", "1", "1/4", "0", "chat, completions"]
    assert len(lines) == 9


def test_status_can_be_read_by_programs(llmctl: Llmctl, fleet: ServedController) -> None:
    ended = llmctl("serve", "status", "--controller", fleet.url, "--json")
    told = json.loads(ended.out)
    assert told["controllers"] == [{"url": fleet.url, "error": None}]
    assert [each["id"] for each in told["workers"]] == ["w1", "w2"]
    assert 0 <= told["workers"][0].pop("age_s") < 60
    assert wire.from_json(told["workers"][0]).tokens_per_s == 12.34
    assert [model["name"] for model in told["models"]] == ["bge", "large"]


def test_status_of_an_empty_fleet_says_so(llmctl: Llmctl) -> None:
    with ServedController() as empty:
        ended = llmctl("serve", "status", "--controller", empty.url)
    assert (ended.code, ended.out.splitlines()[1]) == (0, "no worker has registered")


def test_status_tells_of_controllers_that_do_not_answer(llmctl: Llmctl, fleet: ServedController) -> None:
    dead = "http://127.0.0.1:9"
    ended = llmctl("serve", "status", "--controller", dead, "--controller", fleet.url, "--json")
    assert ended.code == 0
    assert "nothing listens" in json.loads(ended.out)["controllers"][0]["error"]
    assert len(json.loads(ended.out)["workers"]) == 2


def test_status_without_a_controller_is_an_error(llmctl: Llmctl) -> None:
    ended = llmctl("serve", "status", "--controller", "http://127.0.0.1:9")
    assert ended.code == 5
    assert "nothing listens" in ended.err


def test_status_of_another_machine_needs_a_token(llmctl: Llmctl) -> None:
    ended = llmctl("serve", "status", "--controller", "gpu1.example:21001")
    assert ended.code == 2
    assert "--token-file" in ended.err


def test_status_shows_the_token(llmctl: Llmctl, tmp_path: Path) -> None:
    with ServedController(token=TOKEN) as controller:
        refused = llmctl("serve", "status", "--controller", controller.url)
        shown = llmctl(
            "serve", "status", "--controller", controller.url, "--token-file", token_file(tmp_path)
        )
    assert (refused.code, shown.code) == (4, 0)


def test_status_is_told_again_while_it_is_watched(fleet: ServedController) -> None:
    command = [sys.executable, "-m", "llmctl", "serve", "status", "--watch", "--json"]
    process = subprocess.Popen(
        [*command, "--controller", fleet.url], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    told: list[Any] = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=_LONGEST_S)
    assert process.returncode == 130
    assert b"Traceback" not in error
    assert told[1]["workers"][0]["age_s"] > told[0]["workers"][0]["age_s"]


def test_a_watched_table_is_redrawn_in_its_place() -> None:
    with ServedController() as controller:
        controller.tell(worker(1, num_waiting=5))
        args = ("serve", "status", "--watch", "--controller", controller.url)
        with terminal(*args, columns=100, rows=12) as screen:
            screen.wait_for(r"9001\s+serving\s+0/4\s+5\s")
            controller.tell(worker(1, num_waiting=6))
            controller.tell(worker(2))
            screen.wait_for(r"9001\s+serving\s+0/4\s+6\s")
            screen.wait_for("9002")
            assert screen.text().count("9001") == 1
            screen.send(CTRL_C)
            assert screen.ended() == 130
