"""What every test stands on: folders of its own, no network, one thread, and ways to run the command."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
# Before torch is imported: on models as small as ours a second thread only waits for the first.
os.environ["OMP_NUM_THREADS"] = "1"
# Hub, settings and colour variables of whoever runs the tests must not reach them.
FOREIGN = (
    *("LLMCTL_", "HF_", "HUGGINGFACE_", "MODELSCOPE_", "FASTCHAT_", "XDG_"),
    *("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TERM", "COLUMNS"),
)


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LLMCTL_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("LLMCTL_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("LLMCTL_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    # A test that means to reach a hub names its stand-in; any other must not leave the machine.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("TERM", "xterm")


# Read before the isolation above removes it.
IS_SHARED_REQUIRED = bool(os.environ.get("LLMCTL_REQUIRE_SHARED"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and tokenizers beside the repository; the test is skipped without it."""
    if not SHARED.is_dir():
        if IS_SHARED_REQUIRED:
            pytest.fail("../shared is required and absent")
        pytest.skip("../shared is absent")
    return SHARED


@dataclass(frozen=True)
class Ended:
    """How a run of the command ended."""

    code: int
    out: str
    err: str


Llmctl = Callable[..., Ended]


@pytest.fixture
def llmctl(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Llmctl:
    """Run a command line in this process, `stdin` as its input: `llmctl("config", "show")`."""

    def run(*args: str, stdin: bytes = b"") -> Ended:
        from llmctl.cli.app import run as run_app

        path = tmp_path / "stdin"
        path.write_bytes(stdin)
        capfd.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        with path.open(encoding="utf-8") as file, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", file)
            code = run_app(list(args))
        signal.signal(signal.SIGTERM, before)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture
def llmctl_process() -> Llmctl:
    """Run a command line in a process of its own, `stdin` being bytes or a file; for what only that shows."""

    def run(
        *args: str, stdin: bytes | int = b"", env: dict[str, str] | None = None, cwd: Path = ROOT
    ) -> Ended:
        given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        ended = subprocess.run(
            [sys.executable, "-m", "llmctl", *args],
            capture_output=True,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            timeout=120,
            **given,  # type: ignore[arg-type]
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return run
