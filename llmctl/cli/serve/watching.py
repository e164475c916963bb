"""Runs a fleet for as long as the user wants it, and tells what becomes of it."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from llmctl.cli.console import Console
from llmctl.core.errors import LlmctlError
from llmctl.services.up import state as notes
from llmctl.services.up.plan import Wish, parts_of
from llmctl.services.up.process import LogLauncher, SystemClock
from llmctl.services.up.served import near_url, served_models
from llmctl.services.up.state import FleetState, PartState, Running
from llmctl.services.up.supervisor import GRACE_S, Supervisor

log = logging.getLogger(__name__)

LEASH = "llmctl.cli.serve.leash"
LOGS = "logs"
_TERMINATED_EXIT = 143
_QUICK_S, _CALM_S = 0.05, 0.2
_ASK_S = 0.1
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How the fleet is told of."""

    is_json: bool = False
    num_cores: int | None = None
    """For the workers together."""


def watch(console: Console, wish: Wish, folder: Path, manner: Manner) -> None:
    """Start the fleet and keep it alive until a signal; what `folder` notes of it is gone then.

    Raises `KeyboardInterrupt` after Ctrl-C, and what ended the fleet otherwise.
    """
    try:
        _Watch(console, wish, folder, manner).run()
    finally:
        notes.forget(folder)


class _Watch:
    def __init__(self, console: Console, wish: Wish, folder: Path, manner: Manner) -> None:
        self._console, self._wish, self._manner = console, wish, manner
        supervisor = Running.of(os.getpid())
        assert supervisor is not None
        self._state = FleetState(
            folder=str(folder),
            host=wish.host,
            port=wish.port,
            drain_s=wish.drain_s,
            supervisor=supervisor,
        )
        token_file = self._state.token_file
        self._token = token_file.read_text(encoding="ascii").strip()
        self._logs = folder / LOGS
        self._logs.mkdir()
        self._clock = SystemClock()
        leash = (sys.executable, "-m", LEASH, f"{wish.drain_s + GRACE_S:g}")
        self._fleet = Supervisor(
            parts_of(wish, token_file=str(token_file), num_cores=manner.num_cores),
            LogLauncher(leash, self._logs),
            self._clock,
            say=self._say,
            changed=self._note_change,
        )
        self._heard: list[int] = []
        """Signals."""
        self._next_ask = 0.0
        self._shown = ""

    def run(self) -> None:
        self._console.note(f"the parts of the fleet write their logs in {self._logs}")
        with self._hearing_signals():
            try:
                self._note()
                self._keep_alive()
            finally:
                self._end()
        if self._fleet.failure is not None:
            raise self._fleet.failure
        if signal.SIGINT in self._heard:
            raise KeyboardInterrupt
        if self._state.url is None:
            # Whoever waits for a fleet must not think that there was one.
            raise typer.Exit(_TERMINATED_EXIT)

    def _keep_alive(self) -> None:
        began = self._clock.now()
        while not self._heard and self._fleet.failure is None:
            self._fleet.step()
            if self._state.url is None:
                self._tell_when_served()
                self._show_progress(self._clock.now() - began)
            self._clock.sleep(
                _CALM_S if self._state.url is not None and not self._fleet.missing else _QUICK_S
            )

    def _show_progress(self, seconds: float) -> None:
        """A passing line while models are loaded."""
        if self._state.url is not None or self._fleet.failure is not None or not self._console.is_watched:
            return
        missing = [
            f"{each.part.name} ({', '.join(each.part.models) or 'the default model'})"
            if each.part.kind == "worker"
            else each.part.name
            for each in self._fleet.missing
        ]
        text = f"{seconds:.0f} s: waiting for {', '.join(missing) or 'the first report'}"
        if text != self._shown:
            self._shown = text
            self._console.status(text)

    def _tell_when_served(self) -> None:
        """The line that others wait for."""
        fleet, now = self._fleet, self._clock.now()
        if not fleet.is_up or fleet.missing or now < self._next_ask:
            return
        self._next_ask = now + _ASK_S
        assert fleet.controller_url is not None
        assert fleet.gateway_url is not None
        models = served_models(
            fleet.controller_url, fleet.gateway_url, token=self._token, num_workers=len(fleet.workers)
        )
        if models is None:
            return
        self._console.status("")
        self._state = replace(self._state, url=f"{near_url(fleet.gateway_url)}/v1", models=models)
        self._note_change()
        self._announce()

    def _announce(self) -> None:
        if self._manner.is_json:
            self._console.json(as_dict(self._state), indent=None)
        else:
            self._console.line(ready_line(self._state))
            controller, token_file = self._state.controller, self._state.token_file
            log.info("llmctl serve status --controller %s --token-file %s", controller, token_file)

    def _note_change(self) -> None:
        """A disk that is full is no reason to end a fleet."""
        try:
            self._note()
        except LlmctlError as error:
            self._console.note(f"llmctl serve ps will not tell this: {error.message}", is_vital=True)

    def _note(self) -> None:
        fleet = self._fleet
        gateway = next(each for each in fleet.members if each.part.kind == "gateway")
        parts = tuple(
            PartState(
                name=each.part.name,
                kind=each.part.kind,
                url=each.told.url if each.told is not None else None,
                process=Running.of(each.process.pid) if each.process is not None else None,
            )
            for each in fleet.members
        )
        self._state = replace(self._state, port=gateway.port, controller=fleet.controller_url, parts=parts)
        notes.write(self._state)

    def _say(self, text: str, *, is_vital: bool = False) -> None:
        self._console.note(text, is_vital=is_vital)

    def _end(self) -> None:
        """In peace, but where nothing was served there is nothing to wait for."""
        self._console.status("")
        is_open = self._fleet.failure is None and self._state.url is not None
        if is_open:
            self._console.note("the fleet ends, when open requests have; once more ends it now")
        self._fleet.stop(
            drain_s=self._wish.drain_s if is_open else 0.0, is_hurried=lambda: len(self._heard) > 1
        )

    @contextlib.contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        def hear(number: int, _: FrameType | None) -> None:
            self._heard.append(number)

        numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        before = {number: signal.signal(number, hear) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def ready_line(state: FleetState) -> str:
    """Where clients go and what they find there."""
    return f"{state.url}  {', '.join(state.models)}"


def as_dict(state: FleetState) -> dict[str, Any]:
    """A fleet for programs."""
    return {
        "name": state.name,
        "url": state.url,
        "models": list(state.models),
        "controller": state.controller,
        "token_file": str(state.token_file),
        "logs": str(Path(state.folder) / LOGS),
        "pid": state.supervisor.pid,
        "started": state.supervisor.started,
        "parts": [{**_bare(part), "is_alive": part.is_alive} for part in state.parts],
    }


def _bare(part: PartState) -> dict[str, Any]:
    found = asdict(part)
    process = found.pop("process")
    return {**found, "pid": None if process is None else process["pid"]}
