"""A folder for the shells: files to complete, lists of names, and programs that tell when they are run."""

import fcntl
import functools
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmctl.cli.completions.command import SCRIPTS
from llmctl.cli.completions.tree import command_tree
from llmctl.core import lazy
from llmctl.core.places import Places
from tests.cli.completions import cases
from tests.cli.completions.sample import ENTRIES
from tests.conftest import IS_SHARED_REQUIRED

INSTALL_TIMEOUT_S = 180


@dataclass(frozen=True)
class Place:
    """Where the shells of one test file live."""

    root: Path

    @property
    def cwd(self) -> Path:
        """Where they start."""
        return self.root / "cwd"

    @property
    def ran(self) -> Path:
        """Exists once `llmctl` or Python was started, and holds its arguments."""
        return self.root / "ran"

    @property
    def env(self) -> dict[str, str]:
        """All that they know of the world."""
        return {
            "HOME": str(self.root / "home"),
            "LLMCTL_CACHE_HOME": str(self.root / "cache"),
            "PATH": f"{self.root / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
            "ZDOTDIR": str(self.root / "zsh"),
        }

    def traces(self) -> list[str]:
        """What must not have come about by completing: programs that ran, names that were expanded."""
        return [str(path) for path in (self.ran, *self.root.rglob("traces")) if path.exists()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The folder, filled."""
    return make_place(tmp_path_factory.mktemp("shell"))


def make_place(root: Path) -> Place:
    """Fill `root`."""
    place = Place(root)
    for folder in ("bin", "cache", "zsh", "home/models", "cwd/sub", "cwd/my dir", "cwd/.hidden"):
        (place.root / folder).mkdir(parents=True)
    for file in ("cwd/README.md", "cwd/sub/inner.txt"):
        (place.root / file).touch()
    write_list(place.root / "cache", "models", cases.MODELS | cases.DROPPED)
    write_list(place.root / "cache", "sessions", cases.SESSIONS)
    for name in ("llmctl", "python", "python3"):
        program = place.root / "bin" / name
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> '{place.ran}'\n")
        program.chmod(0o755)
    return place


def write_list(folder: Path, name: str, lines: set[str]) -> None:
    """A list of names, its last line without an end as after a crash."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text("\n".join(sorted(lines)), encoding="utf-8")


def typed_flag(line: str) -> str:
    """`--flag=` where the last word of `line` is one with a part of its value; else nothing."""
    flag, equals, _ = shlex.split(f"{line}x")[-1].partition("=")
    return flag + equals if equals and flag.startswith("--") else ""


def arguments(shell: str, line: str, place: Place) -> list[str]:
    """What `llmctl` is started with when a shell that is not a terminal's runs `line`."""
    place.ran.unlink(missing_ok=True)
    subprocess.run([find_shell(shell), "-c", line], cwd=place.cwd, env=place.env, check=True)
    given = place.ran.read_text(encoding="utf-8").splitlines()
    place.ran.unlink()
    assert place.traces() == []
    return given


CACHE_VARIABLES = ("LLMCTL_CACHE_HOME", "XDG_CACHE_HOME", "HOME", "relative XDG_CACHE_HOME", "tilde")


def check_cache_folders(
    root: Path, variable: str, sessions: Callable[[Place, dict[str, str]], set[str]]
) -> None:
    """`sessions`, asked of a shell, come from the folder that Python finds for the same environment."""
    place = make_place(root)
    env = place.env
    del env["LLMCTL_CACHE_HOME"]
    env |= {
        "LLMCTL_CACHE_HOME": {"LLMCTL_CACHE_HOME": f"{root}/own", "XDG_CACHE_HOME": f"{root}/xdg"},
        "XDG_CACHE_HOME": {"XDG_CACHE_HOME": f"{root}/xdg"},
        "HOME": {},
        "relative XDG_CACHE_HOME": {"XDG_CACHE_HOME": "xdg"},
        "tilde": {"LLMCTL_CACHE_HOME": "~/my cache"},
    }[variable]
    folder = Places.from_environ(env).cache if variable != "tilde" else Path(env["HOME"]) / "my cache"
    write_list(folder, "sessions", {"found"})
    assert sessions(place, env) == {"found"}


@functools.cache
def sample_script(shell: str) -> str:
    """The script of `shell` for the commands of `sample`."""
    text: str = lazy.load(SCRIPTS[shell])(command_tree(ENTRIES))
    return text


def find_shell(name: str) -> str:
    """The program; on CI's bare machine it is installed, and elsewhere the test is skipped without it."""
    found = shutil.which(name)
    if found is None and (IS_SHARED_REQUIRED or os.environ.get("CI")):
        _install(name)
        found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def _install(name: str) -> None:
    """With Debian's own tool, one test process at a time; a failure is told by the reason of the skip."""
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    lock = Path(os.environ.get("TMPDIR", "/tmp")) / "llmctl-tests-apt.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if shutil.which(name):
            return
        for command in (["update"], ["install", "-y", "--no-install-recommends", name]):
            try:
                ended = subprocess.run(
                    ["apt-get", "-q", *command],
                    env=env,
                    capture_output=True,
                    text=True,
                    timeout=INSTALL_TIMEOUT_S,
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"{name} is not installed: apt-get {command[0]} takes too long")
            if ended.returncode != 0:
                pytest.skip(f"{name} is not installed: apt-get {command[0]}: {ended.stderr.strip()[-300:]}")
