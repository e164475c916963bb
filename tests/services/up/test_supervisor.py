"""The rules by which a fleet is kept alive and ended, with parts and time that are made up."""

import pytest

from llmctl.core.errors import DoesNotFitError, LlmctlError, NotFoundError, UsageError
from llmctl.services.up.plan import Share, Wish, parts_of
from llmctl.services.up.supervisor import GRACE_S, Supervisor
from tests.services.up.fakes import FakeClock, FakeLauncher

PORTS = {"controller": 1, "worker-1": 2, "worker-2": 3, "gateway": 8000}


class Watched:
    """A supervisor of two workers, and what it did and said."""

    def __init__(self, *, controller_port: int = 0) -> None:
        self.clock = FakeClock()
        self.launcher = FakeLauncher(self.clock)
        self.said: list[str] = []
        self.aloud: list[str] = []
        self.num_changes = 0
        share = Share(models=("demo",))
        wish = Wish(shares=[share], num_workers=2, port=8000, controller_port=controller_port)
        self.supervisor = Supervisor(
            parts_of(wish, token_file="t"), self.launcher, self.clock, say=self._say, changed=self._change
        )

    def _say(self, text: str, *, is_vital: bool = False) -> None:
        self.said.append(text)
        if is_vital:
            self.aloud.append(text)

    def _change(self) -> None:
        self.num_changes += 1

    def pass_time(self, seconds: float) -> None:
        """Look after the parts often, for so long."""
        end = self.clock.now() + seconds
        while self.clock.now() < end - 1e-9:
            self.supervisor.step()
            self.clock.time += min(0.1, end - self.clock.now())
        self.supervisor.step()

    def ready(self, *names: str) -> None:
        for name in names:
            self.launcher.make_ready(name, PORTS[name])
        self.supervisor.step()

    def bring_up(self) -> None:
        self.supervisor.step()
        self.ready("controller")
        self.supervisor.step()
        self.ready("worker-1", "worker-2", "gateway")
        assert self.supervisor.is_up
        self.launcher.started.clear()
        self.said.clear()


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.mark.parametrize("controller_port", [0, 21001])
def test_nobody_is_told_of_a_controller_that_is_not_there(controller_port: int) -> None:
    watched = Watched(controller_port=controller_port)
    watched.pass_time(1)
    assert watched.launcher.started == ["controller"]
    watched.ready("controller")
    watched.supervisor.step()
    assert watched.launcher.started == ["controller", "worker-1", "worker-2", "gateway"]
    for name in ("worker-1", "worker-2", "gateway"):
        assert "--controller=http://127.0.0.1:1" in watched.launcher.now[name].words


def test_a_fleet_is_up_when_all_are_there(watched: Watched) -> None:
    watched.supervisor.step()
    watched.ready("controller")
    watched.supervisor.step()
    watched.ready("worker-1", "gateway")
    assert not watched.supervisor.is_up
    assert [each.part.name for each in watched.supervisor.missing] == ["worker-2"]
    watched.ready("worker-2")
    assert watched.supervisor.is_up
    assert watched.supervisor.gateway_url == "http://127.0.0.1:8000"
    assert watched.said[-1] == "worker-2 serves demo at http://127.0.0.1:3, after 0.0 s"


def test_a_dead_worker_is_started_again_after_a_second_and_that_is_said(watched: Watched) -> None:
    watched.bring_up()
    watched.launcher.die("worker-1", -9)
    watched.pass_time(0.9)
    assert watched.launcher.started == []
    assert watched.aloud == ["worker-1 was killed by signal 9: started again in 1 s"]
    watched.pass_time(0.2)
    assert watched.launcher.started == ["worker-1"]
    watched.ready("worker-1")
    assert watched.said[-1].startswith("worker-1 serves demo again at")


def test_the_delay_grows_while_a_part_dies_again_and_again(watched: Watched) -> None:
    watched.bring_up()
    waits = []
    for _ in range(7):
        watched.launcher.die("worker-1", 1)
        begin = watched.clock.now()
        while "worker-1" not in watched.launcher.started:
            watched.pass_time(0.1)
        waits.append(round(watched.clock.now() - begin))
        watched.ready("worker-1")
        watched.launcher.started.clear()
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    watched.pass_time(61)
    watched.launcher.die("worker-1", 1)
    watched.pass_time(1.1)
    assert watched.launcher.started == ["worker-1"]


def test_a_dead_controller_comes_back_at_its_port_and_the_others_stay(watched: Watched) -> None:
    watched.bring_up()
    watched.launcher.die("controller", -9)
    watched.pass_time(1.2)
    assert watched.launcher.started == ["controller"]
    assert "--port=1" in watched.launcher.now["controller"].words
    assert all(watched.launcher.now[name].code is None for name in ("worker-1", "worker-2", "gateway"))


def test_a_gateway_comes_back_at_the_port_that_the_system_chose() -> None:
    watched = Watched()
    watched.supervisor.members[-1].port = 0
    watched.bring_up()
    watched.launcher.die("gateway", 1, "error: port 8000 is taken")
    watched.pass_time(1.2)
    assert "--port=8000" in watched.launcher.now["gateway"].words


def crash_at_start(watched: Watched, name: str, code: int, num_times: int) -> None:
    for _ in range(num_times):
        if watched.launcher.now[name].code is not None:
            watched.pass_time(31)
        watched.launcher.die(name, code, "Traceback", "RuntimeError: bad luck")
        watched.supervisor.step()


def test_a_worker_that_dies_five_times_at_its_start_is_given_up_and_the_others_go_on(
    watched: Watched,
) -> None:
    watched.supervisor.step()
    watched.ready("controller")
    watched.supervisor.step()
    watched.ready("worker-2", "gateway")
    crash_at_start(watched, "worker-1", 1, 5)
    assert watched.supervisor.is_up
    assert watched.supervisor.failure is None
    assert [each.part.name for each in watched.supervisor.workers] == ["worker-2"]
    assert watched.aloud[0] == "worker-1 ended with 1 (RuntimeError: bad luck): started again in 1 s"
    assert watched.aloud[-2:] == [
        "  RuntimeError: bad luck",
        "worker-1 ended with 1, 5 times while it started, and is given up: the others go on",
    ]
    watched.launcher.started.clear()
    watched.pass_time(100)
    assert watched.launcher.started == []


def test_without_a_worker_there_is_no_fleet(watched: Watched) -> None:
    watched.bring_up()
    for name in ("worker-1", "worker-2"):
        watched.launcher.die(name, 1)
        watched.supervisor.step()
        crash_at_start(watched, name, 6, 5)
    assert isinstance(watched.supervisor.failure, DoesNotFitError)
    assert "5 times" in watched.supervisor.failure.message


@pytest.mark.parametrize("name", ["controller", "gateway"])
def test_controller_and_gateway_of_a_fleet_that_was_up_are_never_given_up(
    watched: Watched, name: str
) -> None:
    watched.bring_up()
    watched.launcher.die(name, 1)
    watched.supervisor.step()
    crash_at_start(watched, name, 1, 8)
    assert watched.supervisor.failure is None


@pytest.mark.parametrize(
    ("name", "code", "kind"),
    [("worker-1", 3, NotFoundError), ("worker-2", 6, DoesNotFitError), ("gateway", 2, UsageError)],
)
def test_what_cannot_get_better_ends_the_start_with_its_own_kind(
    watched: Watched, name: str, code: int, kind: type[LlmctlError]
) -> None:
    watched.supervisor.step()
    watched.ready("controller")
    watched.supervisor.step()
    watched.launcher.die(name, code, "a warning", "error: it is so (do that)")
    watched.supervisor.step()
    assert type(watched.supervisor.failure) is kind
    assert watched.supervisor.failure.message == f"{name}: it is so (do that)"
    assert watched.aloud == ["  a warning"]


def test_an_end_without_a_word_is_told_all_the_same(watched: Watched) -> None:
    watched.supervisor.step()
    watched.launcher.die("controller", 7)
    watched.supervisor.step()
    assert watched.supervisor.failure is not None
    assert watched.supervisor.failure.message == "controller ended with 7 while it started"


def test_after_the_start_the_same_end_is_no_reason_to_end_all(watched: Watched) -> None:
    watched.bring_up()
    watched.launcher.die("worker-1", 1)
    watched.supervisor.step()
    crash_at_start(watched, "worker-1", 3, 1)
    assert watched.supervisor.failure is None


def test_a_system_that_lets_nothing_start_is_asked_again(watched: Watched) -> None:
    watched.bring_up()
    watched.launcher.die("worker-1", 1)
    watched.launcher.refuses = LlmctlError("cannot start the worker-1: no memory")
    watched.pass_time(1.2)
    assert watched.aloud[-1] == "cannot start the worker-1: no memory: tried again in 2 s"
    watched.launcher.refuses = None
    watched.pass_time(2.2)
    assert watched.launcher.started == ["worker-1"]


def test_a_system_that_lets_nothing_start_at_first_ends_the_start(watched: Watched) -> None:
    watched.launcher.refuses = LlmctlError("cannot start the controller: no memory")
    watched.pass_time(30)
    assert watched.supervisor.failure is watched.launcher.refuses


def test_all_end_in_order(watched: Watched) -> None:
    watched.bring_up()
    for process in watched.launcher.now.values():
        process.ends_after_s = 0.3
    watched.supervisor.stop(drain_s=5, is_hurried=lambda: False)
    assert watched.launcher.journal == [
        "gateway told to end",
        "gateway ended",
        "worker-1 told to end",
        "worker-2 told to end",
        "worker-1 ended",
        "worker-2 ended",
        "controller told to end",
        "controller ended",
    ]


def test_who_does_not_end_in_time_is_killed(watched: Watched) -> None:
    watched.bring_up()
    watched.launcher.now["gateway"].ends_after_s = None
    watched.launcher.now["worker-1"].ends_after_s = None
    begin = watched.clock.now()
    watched.supervisor.stop(drain_s=5, is_hurried=lambda: False)
    assert [line for line in watched.launcher.journal if "killed" in line] == [
        "gateway killed",
        "worker-1 killed",
    ]
    assert watched.launcher.journal[-1] == "controller ended"
    assert watched.clock.now() - begin == pytest.approx(5 + 2 * GRACE_S, abs=0.5)
    assert watched.aloud[-1] == "worker-1 does not end and is killed"


def test_a_second_signal_kills_all_at_once(watched: Watched) -> None:
    watched.bring_up()
    watched.launcher.now["gateway"].ends_after_s = None
    begin = watched.clock.now()
    watched.supervisor.stop(drain_s=60, is_hurried=lambda: watched.clock.now() > begin + 2)
    assert watched.launcher.journal[1:] == [
        *("controller killed", "worker-1 killed", "worker-2 killed", "gateway killed")
    ]
    assert watched.clock.now() - begin < 3


def test_the_dead_are_not_told_to_end(watched: Watched) -> None:
    watched.bring_up()
    watched.launcher.die("worker-1", -9)
    watched.supervisor.stop(drain_s=5, is_hurried=lambda: False)
    assert not any(line.startswith("worker-1") for line in watched.launcher.journal)


def test_each_change_of_a_process_is_noted(watched: Watched) -> None:
    watched.bring_up()
    before = watched.num_changes
    watched.launcher.die("worker-1", 1)
    watched.supervisor.step()
    assert watched.num_changes == before + 1
    watched.pass_time(1.2)
    assert watched.num_changes == before + 2
    watched.ready("worker-1")
    assert watched.num_changes == before + 3
