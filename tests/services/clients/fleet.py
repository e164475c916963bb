"""A fleet of the demo model, as `llmctl serve up` starts it, for clients of all kinds.

with up(folder) as fleet:
    client = OpenAI(base_url=fleet.url, api_key="any")
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import FOREIGN, ROOT

MODEL = "demo"
ASKED = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
MESSAGES = [{"role": "user", "content": ASKED}]
LONGEST_S = 90.0


@dataclass(frozen=True)
class Part:
    """A process of the fleet."""

    name: str
    kind: str
    url: str
    pid: int

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """As lack of memory does it."""
        os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Fleet:
    """A controller, workers and a gateway, that serve."""

    told: dict[str, Any]
    """What the command said."""
    env: dict[str, str]

    @property
    def url(self) -> str:
        """What clients call the base URL."""
        return str(self.told["url"])

    @property
    def port(self) -> int:
        """Of the gateway."""
        return self.one("gateway").port

    @property
    def token(self) -> str:
        """What opens all parts."""
        return Path(self.told["token_file"]).read_text(encoding="ascii").strip()

    def parts(self, kind: str) -> list[Part]:
        """As they were when the fleet began to serve."""
        return [_part(each) for each in self.told["parts"] if each["kind"] == kind]

    def one(self, kind: str) -> Part:
        """The first of its kind."""
        return self.parts(kind)[0]

    def parts_now(self, kind: str) -> list[Part]:
        """As they are now, by `serve ps`."""
        command = [sys.executable, "-m", "llmctl", "serve", "ps", "--json"]
        ended = subprocess.run(
            command, env=self.env, cwd=ROOT, capture_output=True, check=True, timeout=LONGEST_S
        )
        (fleet,) = json.loads(ended.stdout)["fleets"]
        return [_part(each) for each in fleet["parts"] if each["kind"] == kind and each["is_alive"]]


@contextlib.contextmanager
def up(folder: Path, *flags: str) -> Iterator[Fleet]:
    """Serve the demo model from `__enter__` to `__exit__`; all that is kept lies in `folder`."""
    env = _environ(folder)
    command = [sys.executable, "-m", "llmctl", "serve", "up", MODEL]
    command += ["--port", "0", "--json", "--drain", "1", *flags]
    with subprocess.Popen(
        command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            yield Fleet(json.loads(line), env)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=LONGEST_S)
            finally:
                process.kill()


@contextlib.contextmanager
def part(folder: Path, *words: str) -> Iterator[str]:
    """The URL of one part, `worker demo` or another, started by itself."""
    command = [sys.executable, "-m", "llmctl", "serve", *words, "--port", "0"]
    with subprocess.Popen(
        command, env=_environ(folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = next((word.strip(",") for word in line.split() if word.startswith("http://")), None)
            assert url is not None, line + process.communicate()[0]
            yield url.removesuffix("/v1")
        finally:
            process.terminate()
            try:
                process.communicate(timeout=LONGEST_S)
            finally:
                process.kill()


def until(is_so: Callable[[], bool], *, within_s: float = LONGEST_S) -> float:
    """Wait until something is so; returns how long it took."""
    begin = time.monotonic()
    while not is_so():
        assert time.monotonic() - begin < within_s, "it did not come"
        time.sleep(0.05)
    return time.monotonic() - begin


def _environ(folder: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    places = {f"LLMCTL_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "CACHE")}
    return own | places | {"HOME": str(folder), "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}


def _part(told: dict[str, Any]) -> Part:
    return Part(name=told["name"], kind=told["kind"], url=told["url"], pid=told["pid"])
