"""Kills runs that make a folder (SIGKILL, as `kill -9`) and looks at what they leave, for every kind of job.

    run = lambda: convert(request, SILENT)
    check_kills(lambda moment: killed_after(moment, run), out, wanted=hashes_of(whole), moments=MOMENTS)
    run()  # unless `out` is there already

`killed_after` forks and counts calls, so each moment is hit; `killed_at` forks and waits, at random say;
`killed_command` starts `python -m llmctl ...`, which takes seconds.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tests.artifacts.delta.pairs import hashes_of

MOMENTS = (1, 2, 4, 7, 11, 16, 20, 24, 28, 33)
"""For `killed_after`: the call that changes the disk at which the run ends."""
_CALLS = ("pwrite", "fsync", "rename", "mkdir", "unlink")
_LIMIT_S = 120.0
_Moment = TypeVar("_Moment")


def killed_after(count: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that is killed before its call number `count`; returns whether it was."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(_end_of(child))
    left = count

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return run

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))
    try:
        work()
    finally:
        os._exit(0)


def killed_at(delay_s: float, work: Callable[[], object]) -> bool:
    """Run `work` in a process that is killed `delay_s` after it began; returns whether it was still at it."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(_end_of(child))


def killed_command(arguments: list[str], out: Path, delay_s: float) -> bool:
    """Run `llmctl` with `arguments`, and kill it `delay_s` after its work for `out` began; whether it was.

    Raises `AssertionError` for one that fails by itself.
    """
    # Every run opens this file to write, whatever an earlier one has left.
    lock = out.absolute().parent / f".{out.name}.llmctl-part" / "lock"
    before = _changed_at(lock)
    command = [sys.executable, "-m", "llmctl", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + _LIMIT_S
        while process.poll() is None and _changed_at(lock) == before:
            assert time.monotonic() < until, f"{arguments} does not begin"
            time.sleep(0.0005)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay_s)
        process.kill()
        _, told = process.communicate(timeout=_LIMIT_S)
        assert process.returncode in (0, -signal.SIGKILL), told.decode()
        return process.returncode != 0


def check_kills(
    killed: Callable[[_Moment], bool],
    out: Path,
    *,
    wanted: Mapping[str, str],
    moments: Iterable[_Moment],
    least: int = 5,
) -> int:
    """Call `killed` for each moment, until the folder `out` is there; returns how often it was killed.

    Raises `AssertionError` for a folder that is not `wanted` (files and hashes), and for fewer than `least`.
    """
    num_killed = 0
    for moment in moments:
        num_killed += killed(moment)
        if out.exists():
            # It was renamed, and killed behind that.
            assert hashes_of(out) == wanted
            break
    assert num_killed >= least
    return num_killed


def _changed_at(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _end_of(child: int) -> int:
    """How a process ended."""
    until = time.monotonic() + _LIMIT_S
    while time.monotonic() < until:
        found, how = os.waitpid(child, os.WNOHANG)
        if found:
            return how
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"a run takes more than {_LIMIT_S:g} s")
