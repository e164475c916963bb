"""`llmctl serve worker` as a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llmctl.cli.serve.fastchat_flags import OF_WORKERS
from llmctl.services.controller.app import Settings, build
from llmctl.services.http.guard import Keys
from tests.conftest import ROOT, Llmctl
from tests.services.worker.serving import ServedApp, until

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ENDLESS = {"prompt": "a", "max_tokens": 300, "ignore_eos": True, "stream": True}


class Process:
    """A worker that a test starts and ends."""

    def __init__(self, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llmctl", "serve", "worker", *args],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.lines.extend(iter(self._process.stderr.readline, ""))

    @property
    def url(self) -> str:
        """Where it serves, once it does."""
        until(lambda: any(" serves " in line for line in self.lines) or not self.is_alive, within_s=90)
        found = re.search(r"http://[^/\s]+", "".join(self.lines))
        assert found, self.lines
        return found[0]

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """Its exit code, when it has ended."""
        code = self._process.wait(timeout=60)
        self._reading.join(timeout=10)
        return code

    def kill(self) -> None:
        """End it, however it is."""
        if self.is_alive:
            self._process.kill()
        self._process.wait()
        self._reading.join(timeout=10)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def start() -> Iterator[Any]:
    """Starts workers that do not outlive the test."""
    started: list[Process] = []

    def begin(*args: str) -> Process:
        started.append(Process(*args))
        return started[-1]

    yield begin
    for each in started:
        each.kill()


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text("secret\n", encoding="utf-8")
    path.chmod(0o600)
    return str(path)


def post(url: str, path: str, **body: Any) -> Any:
    response = httpx2.post(url + path, json=body, timeout=60, trust_env=False)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_worker_serves_the_demo_model_by_the_names_it_was_given(start: Any) -> None:
    # As FastChat's worker is called.
    model = ("--model-path", "demo", "--model-names", "a,org/b", "--limit-worker-concurrency", "3")
    fleet = ("--controller-address", "http://127.0.0.1:9", "--worker-address", "x", "--no-register")
    worker = start(*model, *fleet, "--port", "0", "--seed", "7", "--no-prefix-cache")
    told = post(worker.url, CHAT, model="org/b", messages=QUESTION, temperature=0)
    assert told["choices"][0]["message"]["content"] == "The capital of France is Paris."
    drawn = [
        post(worker.url, "/v1/completions", model="a", prompt="Once", max_tokens=20, temperature=1.0)
        for _ in range(2)
    ]
    assert drawn[0]["choices"] == drawn[1]["choices"]
    metrics = httpx2.get(worker.url + "/metrics", trust_env=False).text
    assert 'llmctl_max_requests_running{model_name="a"} 3.0' in metrics
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert [line for line in worker.lines if "serves" not in line] == []


def test_a_worker_of_a_fleet_registers_drains_and_leaves(start: Any, key_file: str) -> None:
    app = build(Settings(keys=Keys.of(["secret"]), interval_s=0.2))
    with ServedApp(app) as controller:

        def workers() -> list[Any]:
            told = controller.client.get("/workers", headers={"Authorization": "Bearer secret"})
            found: list[Any] = told.json()["workers"]
            return found

        worker = start("--port", "0", "--controller", controller.url, "--token-file", key_file)
        until(lambda: len(workers()) == 1, within_s=90)
        assert workers()[0]["url"] == worker.url
        headers = {"Authorization": "Bearer secret"}
        body = {"model": "demo", **ENDLESS}
        with (
            httpx2.Client(base_url=worker.url, headers=headers, timeout=60, trust_env=False) as client,
            client.stream("POST", "/v1/completions", json=body) as response,
        ):
            pieces = response.iter_raw()
            next(pieces)
            worker.signal(signal.SIGTERM)
            until(lambda: [each["is_draining"] for each in workers()] == [True])
            # What was begun goes on to its end.
            rest = b"".join(pieces)
        assert b'"finish_reason":"length"' in rest
        assert rest.endswith(b"data: [DONE]\n\n")
        assert worker.ended() == 0
        assert workers() == []


def test_ctrl_c_ends_a_worker_that_is_still_loading(start: Any) -> None:
    worker = start("--port", "0", "-v")
    until(lambda: any("listens" in line for line in worker.lines), within_s=60)
    worker.signal(signal.SIGINT)
    assert worker.ended() == 130


def test_a_model_that_does_not_load_ends_the_worker_by_its_kind(start: Any) -> None:
    worker = start("--port", "0", "a=demo", "--model", "b=./nosuch")
    assert worker.ended() == 3
    assert len(worker.lines) == 1
    assert "no such folder: ./nosuch" in worker.lines[0]


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(llmctl_process: Llmctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        begin = time.monotonic()
        ended = llmctl_process("serve", "worker", "./nosuch", "--port", str(other.getsockname()[1]))
    assert ended.code not in (0, 3)
    assert "port" in ended.err
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--host", "0.0.0.0"), "--api-key-file"),
        (("--controller", "http://192.0.2.7:21001"), "--token-file"),
        (("--controller", "not a url"), "scheme, host and port"),
        (("--worker-address", "http://127.0.0.1:9"), "--controller"),
        (("--controller", "127.0.0.1:9", "--worker-address", "x/y"), "--worker-address"),
        (("--kv-memory", "5"), "--kv-memory"),
        (("--max-waiting", "-1"), "--max-waiting"),
        (("--load-8bit", "--load-4bit"), "give one"),
        (("--template", "./nosuch.jinja"), "nosuch.jinja"),
        (("--task", "x"), "--task"),
        (("demo", "--model", "demo"), "two models are called 'demo'"),
        (("--token-file", "./nosuch"), "nosuch"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(args: tuple[str, ...], told: str, llmctl: Llmctl) -> None:
    ended = llmctl("serve", "worker", "--port", "0", *args)
    assert ended.code in (2, 3)
    assert told in ended.err
    assert ended.err.count("\n") == 1


def test_a_key_of_clients_alone_would_keep_gateways_out(key_file: str, llmctl: Llmctl) -> None:
    args = ("--controller", "127.0.0.1:9", "--api-key-file", key_file)
    ended = llmctl("serve", "worker", "--port", "0", *args)
    assert (ended.code, "--token-file" in ended.err) == (2, True)


@pytest.mark.parametrize("flag", sorted(OF_WORKERS))
def test_flags_of_fastchats_workers_are_refused_with_what_to_do(flag: str, llmctl: Llmctl) -> None:
    for given in ((flag,), (f"{flag}=4",), (flag.replace("-", "_").replace("__", "--", 1), "4")):
        ended = llmctl("serve", "worker", *given)
        assert ended.code == 2
        assert OF_WORKERS[flag] in " ".join(ended.err.split())


def test_refused_flags_are_an_object_for_programs_too(llmctl: Llmctl) -> None:
    ended = llmctl("serve", "worker", "--ssl", "--json")
    assert json.loads(ended.err)["error"]["code"] == "usage"
