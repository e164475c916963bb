"""Keeps the parts of a fleet alive, and ends them in order. Knows processes only by what starts them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmctl.core import errors
from llmctl.core.errors import LlmctlError
from llmctl.services.up.plan import Kind, Part
from llmctl.services.up.process import Clock, Launcher, Process, Told
from llmctl.services.up.restarts import MAX_DEATHS_AT_START, Restarts

ORDER_OF_END: tuple[Kind, ...] = ("gateway", "worker", "controller")
"""Who takes new requests ends first, who is needed by the others last."""
GRACE_S = 5.0
"""Beyond the drain: for parts to cancel what is open, and to say so to their clients."""
_STEP_S = 0.05
_REAP_S = 5.0
_ERRORS = {
    kind.exit_code: kind
    for kind in (
        errors.UsageError,
        errors.NotFoundError,
        errors.AccessError,
        errors.UnreachableError,
        errors.DoesNotFitError,
        errors.BadFileError,
        errors.AmbiguousError,
    )
}
"""Ends that come again at each start, by their exit code."""


class Say(Protocol):
    """Tells a user a line."""

    def __call__(self, text: str, *, is_vital: bool = False) -> None:
        """`is_vital`: one who wants to hear of errors only wants to hear this."""


def _nothing() -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Member:
    """A part, and the process that it is now."""

    part: Part
    restarts: Restarts = field(default_factory=Restarts)
    process: Process | None = None
    """None: it is to be started, at `due`."""
    due: float = 0.0
    started: float = 0.0
    told: Told | None = None
    """What the present process said of itself; None: it is not there yet."""
    port: int = 0
    is_given_up: bool = False
    was_ready: bool = False
    """Ever."""


class Supervisor:
    """Starts `parts`, of which one is the controller, and starts again what dies.

    `say` gets a line for each thing that a user may want to know of. `changed` is called when a process or a
    URL is another one. All in one thread: call `step` again and again.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        launcher: Launcher,
        clock: Clock,
        *,
        say: Say,
        changed: Callable[[], None] = _nothing,
    ) -> None:
        self.members = [Member(part, port=part.port) for part in parts]
        self.is_up = False
        """Whether all were there at once, or given up, since the beginning."""
        self.failure: LlmctlError | None = None
        """Why there is nothing left to watch over."""
        self._controller = self._only("controller")
        self._gateway = self._only("gateway")
        self._launcher, self._clock = launcher, clock
        self._say, self._changed = say, changed

    @property
    def gateway_url(self) -> str | None:
        """Where clients go, when that is known."""
        return None if self._gateway.told is None else self._gateway.told.url

    @property
    def controller_url(self) -> str | None:
        """Where the controller is or was; None until it was there."""
        if not self._controller.was_ready:
            return None
        return f"http://{self._controller.part.host}:{self._controller.port}"

    @property
    def workers(self) -> list[Member]:
        """Those that are not given up."""
        return [each for each in self.members if each.part.kind == "worker" and not each.is_given_up]

    @property
    def missing(self) -> list[Member]:
        """Who is not there, and may come."""
        return [each for each in self.members if each.told is None and not each.is_given_up]

    def step(self) -> None:
        """Look after all parts once."""
        for member in self.members:
            if self.failure is None:
                self._look_after(member)
        if not self.is_up and not self.missing and self.failure is None:
            self.is_up = True

    def stop(self, *, drain_s: float, is_hurried: Callable[[], bool]) -> None:
        """End all in order: open requests have `drain_s`. When `is_hurried` says so, at once."""
        end = self._clock.now() + drain_s
        for kind in ORDER_OF_END:
            alive = [each for each in self._alive() if each.part.kind == kind]
            if not is_hurried():
                self._end(alive, max(end, self._clock.now()) + GRACE_S, is_hurried)
            if is_hurried():
                break
        alive = self._alive()
        for process in self._processes(alive):
            process.kill()
        self._wait(alive, self._clock.now() + _REAP_S, lambda: False)

    def _end(self, members: list[Member], deadline: float, is_hurried: Callable[[], bool]) -> None:
        for process in self._processes(members):
            process.terminate()
        self._wait(members, deadline, is_hurried)
        for member in members:
            if member.process is not None and member.process.exit_code() is None and not is_hurried():
                self._say(f"{member.part.name} does not end and is killed", is_vital=True)
                member.process.kill()

    def _wait(self, members: list[Member], deadline: float, is_hurried: Callable[[], bool]) -> None:
        while (
            any(process.exit_code() is None for process in self._processes(members))
            and self._clock.now() < deadline
            and not is_hurried()
        ):
            self._clock.sleep(_STEP_S)

    def _alive(self) -> list[Member]:
        return [
            each for each in self.members if each.process is not None and each.process.exit_code() is None
        ]

    @staticmethod
    def _processes(members: list[Member]) -> list[Process]:
        return [each.process for each in members if each.process is not None]

    def _look_after(self, member: Member) -> None:
        if member.is_given_up:
            return
        if member.process is None:
            self._start_if_due(member)
        elif (code := member.process.exit_code()) is not None:
            self._bury(member, member.process, code)
        elif member.told is None:
            self._hear(member, member.process)

    def _start_if_due(self, member: Member) -> None:
        is_first = member is self._controller
        # Before the controller is there somebody else may be at its port, who must not get the token.
        if self._clock.now() < member.due or (not is_first and self.controller_url is None):
            return
        controller = None if is_first else self.controller_url
        words = member.part.command(port=member.port, controller=controller)
        member.started = self._clock.now()
        try:
            member.process = self._launcher.start(member.part.name, words, member.part.variables)
        except LlmctlError as error:
            self._put_off(member, error)
            return
        self._changed()

    def _put_off(self, member: Member, error: LlmctlError) -> None:
        """The system does not let it start, which may pass."""
        delay_s = member.restarts.died(lived_s=0.0, was_ready=False)
        member.due = self._clock.now() + delay_s
        if member.restarts.is_hopeless and not self.is_up:
            self.failure = error
        else:
            self._say(f"{error.message}: tried again in {delay_s:g} s", is_vital=True)

    def _hear(self, member: Member, process: Process) -> None:
        member.told = process.told()
        if member.told is None:
            return
        if member.part.kind != "worker":
            # Others know it by this port, so it will be the same after the next start.
            member.port = int(member.told.url.rpartition(":")[2])
        what = f" serves {', '.join(member.told.models)}" if member.told.models else " is"
        again = " again" if member.was_ready else ""
        took_s = self._clock.now() - member.started
        self._say(f"{member.part.name}{what}{again} at {member.told.url}, after {took_s:.1f} s")
        member.was_ready = True
        self._changed()

    def _bury(self, member: Member, process: Process, code: int) -> None:
        if member.told is None:
            # It may have been there for a moment.
            member.told = process.told()
        was_ready, member.told, member.process = member.told is not None, None, None
        now = self._clock.now()
        delay_s = member.restarts.died(lived_s=now - member.started, was_ready=was_ready)
        member.due = now + delay_s
        self._changed()
        lines = [] if was_ready else process.last_lines()
        if not self.is_up and not was_ready and code in _ERRORS:
            self.failure = _as_error(member, code, lines, self._say)
            return
        is_last_try = member.restarts.is_hopeless and (member.part.kind == "worker" or not self.is_up)
        if is_last_try:
            self._give_up(member, code, lines)
            return
        self._say(
            f"{member.part.name} {_end_of(code)}{_because(lines)}: started again in {delay_s:g} s",
            is_vital=True,
        )

    def _give_up(self, member: Member, code: int, lines: list[str]) -> None:
        member.is_given_up = True
        told = f"{member.part.name} {_end_of(code)}, {MAX_DEATHS_AT_START} times while it started"
        _show(lines, self._say)
        if member.part.kind == "worker" and self.workers:
            self._say(f"{told}, and is given up: the others go on", is_vital=True)
            return
        self.failure = _ERRORS.get(code, LlmctlError)(f"{told}{_because(lines)}", hint=_LOGS)

    def _only(self, kind: Kind) -> Member:
        found = [each for each in self.members if each.part.kind == kind]
        assert len(found) == 1
        return found[0]


_LOGS = "its log says more"
_ERROR = "error: "
_NUM_LINES = 8


def _as_error(member: Member, code: int, lines: list[str], say: Say) -> LlmctlError:
    """What ended a part, as it was told by it."""
    told = [line for line in lines if line.startswith(_ERROR)]
    if not told:
        _show(lines, say)
        return _ERRORS[code](f"{member.part.name} {_end_of(code)} while it started", hint=_LOGS)
    _show([line for line in lines if line != told[-1]], say)
    return _ERRORS[code](f"{member.part.name}: {told[-1].removeprefix(_ERROR)}")


def _show(lines: list[str], say: Say) -> None:
    for line in lines[-_NUM_LINES:]:
        say(f"  {line}", is_vital=True)


def _because(lines: list[str]) -> str:
    return f" ({lines[-1].removeprefix(_ERROR)})" if lines else ""


def _end_of(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
