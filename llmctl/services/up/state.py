"""What is noted of the fleets of this machine, for `serve ps` and `serve stop`: a folder each, with its logs.

A process is known by its number and by when it started: a number that another has now is nobody's.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from llmctl.core.errors import AmbiguousError, LlmctlError, NotFoundError, UsageError
from llmctl.core.files import write_whole
from llmctl.core.places import Places, private_folder
from llmctl.services.parts import is_loopback

FOLDER = "fleets"
STATE, TOKEN = "fleet.json", "token"
_NUM_KEPT = 5
"""Folders of fleets that have ended, for their logs."""
_NEW_S = 60.0
"""A folder without a note may be one that is just being made."""
_SAME_START_S = 0.5
_POLL_S = 0.1
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process as it can be recognised."""

    pid: int
    started: float
    """Seconds since 1970, as the system tells it."""

    @classmethod
    def of(cls, pid: int) -> "Running | None":
        """The process with this number, if there is one."""
        try:
            return cls(pid=pid, started=psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    @property
    def is_alive(self) -> bool:
        """Whether it is this one and no other, and has not ended."""
        try:
            process = psutil.Process(self.pid)
            # Where the clock was set meanwhile the system tells another start of the same process.
            is_same = abs(process.create_time() - self.started) < _SAME_START_S or _is_ours(process)
            return is_same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still this one."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartState:
    """One part, as it is now."""

    name: str
    kind: str
    url: str | None = None
    """None: it cannot be asked yet."""
    process: Running | None = None
    """None: it waits to be started again, or is given up."""

    @property
    def is_alive(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.is_alive


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """One fleet."""

    folder: str
    host: str
    port: int
    """Of the gateway; 0 until the system has chosen one."""
    supervisor: Running
    url: str | None = None
    """Where clients go, once all is served."""
    controller: str | None = None
    models: tuple[str, ...] = ()
    drain_s: float = 0.0
    parts: tuple[PartState, ...] = ()

    @property
    def name(self) -> str:
        """What `serve stop` calls it."""
        return str(self.port)

    @property
    def token_file(self) -> Path:
        """The cluster token."""
        return Path(self.folder) / TOKEN

    def is_at(self, host: str, port: int) -> bool:
        """Whether it has this address, or one that keeps others from having it."""
        both = (self.host, host)
        is_same = (
            self.host == host or all(map(is_loopback, both)) or any(each in _EVERYWHERE for each in both)
        )
        return port != 0 and self.port == port and is_same


class Fleets:
    """The folder with the notes of all fleets."""

    def __init__(self, places: Places) -> None:
        self._folder = places.data / FOLDER

    def new_folder(self, port: int) -> Path:
        """A folder for one fleet, with a token that nobody else can read."""
        try:
            folder = private_folder(private_folder(self._folder) / f"{port}-{secrets.token_hex(3)}")
            handle = os.open(folder / TOKEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        except OSError as error:
            raise LlmctlError(f"cannot write in {self._folder}: {error.strerror or error}") from error
        return folder

    def running(self) -> list[FleetState]:
        """Those that live, by port; what others have left behind is cleaned away."""
        found = []
        for folder in self._folders():
            state = read(folder)
            if state is not None and state.supervisor.is_alive:
                found.append(state)
            elif state is not None or (is_empty(folder) and time.time() - _age_of(folder) > _NEW_S):
                forget(folder)
        self._keep_few({Path(state.folder) for state in found})
        return sorted(found, key=lambda state: (state.port, state.host))

    def refuse_second(self, host: str, port: int) -> None:
        """Raise `UsageError` where a fleet has this address already."""
        for state in self.running():
            if state.is_at(host, port):
                what = f"that serves {', '.join(state.models)}" if state.models else "that is being started"
                raise UsageError(
                    f"port {port} has a fleet {what} (process {state.supervisor.pid})",
                    hint=f"end it, llmctl serve stop {state.name}, or give another --port",
                )

    def _folders(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if path.is_dir()]
        except OSError:
            return []

    def _keep_few(self, living: set[Path]) -> None:
        ended = [path for path in self._folders() if path not in living and not (path / TOKEN).exists()]
        for path in sorted(ended, key=_age_of, reverse=True)[_NUM_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)


def write(state: FleetState) -> None:
    """Note it, whole or not at all. Raises what `write_whole` raises."""
    write_whole(Path(state.folder) / STATE, json.dumps(asdict(state), indent=1))


def read(folder: Path) -> FleetState | None:
    """What is noted in `folder`; None where that is nothing, or nothing that can be understood."""
    try:
        found: dict[str, Any] = json.loads((folder / STATE).read_bytes())
        return FleetState(
            **{
                **found,
                "folder": str(folder),
                "supervisor": _running(found["supervisor"]),
                "url": _text(found["url"]),
                "controller": _text(found["controller"]),
                "models": tuple(_checked(each, str) for each in found["models"]),
                "drain_s": _checked(found["drain_s"], int, float),
                "parts": tuple(_part(each) for each in found["parts"]),
            }
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def is_empty(folder: Path) -> bool:
    """Whether there is no note: one that cannot be read may be of a fleet that lives."""
    return not (folder / STATE).exists()


def forget(folder: Path) -> None:
    """A fleet has ended: its logs are kept, token and note are not."""
    for name in (STATE, TOKEN):
        (folder / name).unlink(missing_ok=True)


def chosen(running: list[FleetState], name: str | None) -> FleetState:
    """The fleet that is called `name` or has that URL; without a name the only one.

    Raises `NotFoundError` and `AmbiguousError`.
    """
    fits = [each for each in running if name is None or name in _names(each)]
    if len(fits) == 1:
        return fits[0]
    there = _listed(running)
    if fits:
        what = "several fleets run" if name is None else f"several fleets are called {name}"
        raise AmbiguousError(f"{what}: {there}", hint="name one by its URL, or all with --all")
    if name is None or not running:
        raise NotFoundError("no fleet runs on this machine", hint="llmctl serve up starts one")
    raise NotFoundError(f"no fleet is called {name}", hint=f"there is {there}")


def end(state: FleetState, *, wait_s: float, is_hurried: bool = False) -> bool:
    """Have a fleet end, and wait for it; it is killed after `wait_s`. Returns whether it ended in peace."""
    supervisor = state.supervisor
    supervisor.signal(signal.SIGTERM)
    if is_hurried:
        # Apart, or they are taken for one.
        time.sleep(_POLL_S)
        supervisor.signal(signal.SIGTERM)
    is_peaceful = _is_gone([supervisor], wait_s)
    if not is_peaceful:
        # Its parts end by themselves when it is gone.
        supervisor.signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        parts = [part.process for part in state.parts if part.process is not None]
        _is_gone([supervisor, *parts], wait_s)
        forget(Path(state.folder))
    return is_peaceful


def _is_gone(processes: Iterable[Running], wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while is_there := any(each.is_alive for each in processes):
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    return not is_there


def _part(found: dict[str, Any]) -> PartState:
    process = found["process"]
    return PartState(
        name=_checked(found["name"], str),
        kind=_checked(found["kind"], str),
        url=_text(found["url"]),
        process=None if process is None else _running(process),
    )


def _running(found: dict[str, Any]) -> Running:
    pid, started = _checked(found["pid"], int), _checked(found["started"], int, float)
    if pid < 1:
        raise ValueError(f"no process has the number {pid}")
    return Running(pid=pid, started=started)


def _text(found: Any) -> str | None:
    return None if found is None else str(_checked(found, str))


def _checked(found: Any, *kinds: type) -> Any:
    if isinstance(found, bool) or not isinstance(found, kinds):
        raise TypeError(f"{found!r} is of the wrong type")
    return found


def _is_ours(process: psutil.Process) -> bool:
    """Whether it runs a part of a fleet, or watches over one."""
    words = process.cmdline()
    return any("llmctl" in word for word in words) and any("serve" in word for word in words)


def _names(state: FleetState) -> tuple[str, ...]:
    bare = (state.url or "").removesuffix("/v1")
    return (state.name, bare, f"{bare}/v1") if bare else (state.name,)


def _listed(running: list[FleetState]) -> str:
    return ", ".join(each.url or f"{each.name} (starting)" for each in running)


def _age_of(path: Path) -> float:
    """When something was last made or removed in a folder."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
