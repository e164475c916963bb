"""The table of a controller: who registers is in, who leaves or is silent is out."""

import json
import logging
import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmctl.core.errors import AmbiguousError, BusyError, NotFoundError, NoWorkerError
from llmctl.services import wire
from llmctl.services.controller.table import WorkerTable
from llmctl.services.wire import ModelState, WorkerState
from tests.services.fleet_states import Clock, worker

EXPIRES_S = 6.0


class Fixture:
    """A table, its clock, and how often it said that it changed."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.num_changes = 0
        self.table = WorkerTable(
            method="least-wait",
            expires_s=EXPIRES_S,
            on_change=self._count,
            clock=self.clock,
            rng=random.Random(0),
        )

    def _count(self) -> None:
        self.num_changes += 1


@pytest.fixture
def held() -> Fixture:
    return Fixture()


def ids(table: WorkerTable) -> set[str]:
    return {state.id for state in table.states()}


def test_a_worker_that_registers_can_be_chosen(held: Fixture) -> None:
    held.table.tell(worker(1, "a"))
    held.table.tell(worker(2, "b"))
    assert held.table.choose("b").url == worker(2).url
    assert [model.name for model in held.table.models()] == ["a", "b"]


def test_a_silent_worker_is_taken_out(held: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    held.table.tell(worker(1))
    held.clock.now += EXPIRES_S - 0.1
    assert ids(held.table) == {"w1"}
    held.clock.now += 0.1
    assert ids(held.table) == set()
    assert "http://127.0.0.1:9001 is silent for 6 s" in caplog.text


def test_a_heartbeat_keeps_a_worker_in(held: Fixture) -> None:
    for _ in range(10):
        held.table.tell(worker(1))
        held.clock.now += EXPIRES_S / 2
    assert ids(held.table) == {"w1"}
    assert held.num_changes == 1


def test_a_worker_that_was_forgotten_is_back_with_its_next_heartbeat(held: Fixture) -> None:
    held.table.tell(worker(1))
    held.clock.now += 100
    held.table.tell(worker(1))
    assert ids(held.table) == {"w1"}


def test_a_worker_that_leaves_is_out_at_once(held: Fixture) -> None:
    held.table.tell(worker(1))
    assert held.table.leave("w1")
    assert ids(held.table) == set()
    assert not held.table.leave("w1")


def test_a_draining_worker_is_told_but_not_chosen(held: Fixture) -> None:
    held.table.tell(worker(1, is_draining=True))
    assert [heard.state.is_draining for heard in held.table.listing().workers] == [True]
    assert held.table.models() == ()
    with pytest.raises(NoWorkerError):
        held.table.choose("m")


def test_a_worker_that_was_started_again_takes_its_old_place(held: Fixture) -> None:
    held.table.tell(worker(1, id="old", started=5.0))
    held.table.tell(worker(1, id="new", started=6.0))
    assert ids(held.table) == {"new"}


def test_an_older_worker_does_not_take_the_place_of_a_newer(held: Fixture) -> None:
    held.table.tell(worker(1, id="new", started=6.0))
    with pytest.raises(AmbiguousError, match="started later"):
        held.table.tell(worker(1, id="old", started=5.0))
    assert ids(held.table) == {"new"}
    held.clock.now += EXPIRES_S
    held.table.tell(worker(1, id="old", started=5.0))
    assert ids(held.table) == {"old"}


def test_a_table_has_a_limit(held: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_WORKERS", 2)
    held.table.tell(worker(1))
    held.table.tell(worker(2))
    with pytest.raises(BusyError, match="2 workers"):
        held.table.tell(worker(3))
    held.table.tell(worker(2, num_running=3))


@pytest.mark.parametrize(
    "after",
    [
        worker(1, is_draining=True),
        worker(1, "m", "n"),
        worker(1, url="http://127.0.0.1:9"),
        worker(1, models=(ModelState(name="m", max_running=4, aliases=("x",)),)),
        worker(1, models=(ModelState(name="m", max_running=4, capabilities=("embeddings",)),)),
    ],
)
def test_what_a_gateway_must_know_changes_the_version(held: Fixture, after: WorkerState) -> None:
    held.table.tell(worker(1))
    before = held.table.version
    held.table.tell(after)
    assert held.table.version > before
    assert held.num_changes == 2


def test_load_alone_changes_no_version(held: Fixture) -> None:
    held.table.tell(worker(1))
    before = held.table.version
    held.table.tell(worker(1, num_running=4, num_waiting=9, kv_used=0.9, tokens_per_s=50.0))
    assert held.table.version == before
    assert held.table.listing().workers[0].state.num_waiting == 9


def test_two_lives_of_a_controller_are_told_apart() -> None:
    one, other = Fixture().table.listing(), Fixture().table.listing()
    assert one.boot != other.boot
    assert one.version != other.version


def test_a_listing_can_be_told(held: Fixture) -> None:
    held.table.tell(worker(1))
    held.clock.now += 1.5
    told = held.table.listing()
    assert told.workers[0].age_s == told.up_s == 1.5
    assert wire.listing_from_json(json.loads(json.dumps(wire.listing_to_json(told)))) == told


def test_what_was_sent_to_a_worker_counts_until_its_next_heartbeat(held: Fixture) -> None:
    held.table.tell(worker(1))
    held.table.tell(worker(2))
    chosen = [held.table.choose("m").id for _ in range(8)]
    assert sorted(chosen) == ["w1"] * 4 + ["w2"] * 4
    held.table.tell(worker(1))
    assert [held.table.choose("m").id for _ in range(4)] == ["w1"] * 4


def test_a_model_nobody_serves_is_unknown_and_one_that_went_will_be_back(held: Fixture) -> None:
    held.table.tell(worker(1, "a"))
    held.table.tell(worker(2, "b"))
    held.table.leave("w2")
    with pytest.raises(NotFoundError, match="'c'") as caught:
        held.table.choose("c")
    assert not isinstance(caught.value, NoWorkerError)
    assert caught.value.hint == "there is a"
    with pytest.raises(NoWorkerError, match="'b'"):
        held.table.choose("b")
    for _ in range(40):
        held.clock.now += 2
        held.table.tell(worker(1, "a"))
    with pytest.raises(NotFoundError, match="'b'"):
        held.table.choose("b")


def test_an_empty_table_says_that_nobody_is_there_yet(held: Fixture) -> None:
    with pytest.raises(NoWorkerError):
        held.table.choose("m")


def test_many_model_names_are_not_all_told(held: Fixture) -> None:
    held.table.tell(worker(1, *(f"m{number:03}" for number in range(200))))
    with pytest.raises(NotFoundError) as caught:
        held.table.choose("x")
    assert len(caught.value.hint or "") < 100


NUMBERS = st.integers(1, 4)


class Walk(RuleBasedStateMachine):
    """Workers come, tell, leave, fall silent and start again; the controller starts again too."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.WARNING)
        self.held = Fixture()
        self.told: dict[str, tuple[WorkerState, float]] = {}
        self.num_lives = 0
        self.outline = self._outline()
        self.version = self.held.table.version

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)

    @rule(number=NUMBERS, is_draining=st.booleans(), num_waiting=st.integers(0, 9))
    def tell(self, number: int, is_draining: bool, num_waiting: int) -> None:
        old = [each for each, (state, _) in self.told.items() if state.url == worker(number).url]
        known = self.told[old[0]][0] if old else worker(number, started=self.held.clock.now)
        state = replace(known, is_draining=is_draining, num_waiting=num_waiting)
        self.held.table.tell(state)
        self.told[state.id] = (state, self.held.clock.now)

    @rule(number=NUMBERS)
    def start_again(self, number: int) -> None:
        self.num_lives += 1
        state = worker(number, id=f"life{self.num_lives}", started=self.held.clock.now)
        self.held.table.tell(state)
        self.told = {each: told for each, told in self.told.items() if told[0].url != state.url}
        self.told[state.id] = (state, self.held.clock.now)

    @rule(number=NUMBERS)
    def leave(self, number: int) -> None:
        for each in [each for each, (state, _) in self.told.items() if state.url == worker(number).url]:
            assert self.held.table.leave(each)
            del self.told[each]

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.9, 6.0, 30.0]))
    def pass_time(self, seconds: float) -> None:
        self.held.clock.now += seconds
        self._expire()

    @rule()
    def start_the_controller_again(self) -> None:
        clock, self.held = self.held.clock, Fixture()
        self.held.clock.now = clock.now
        self.told.clear()
        self.outline, self.version = self._outline(), self.held.table.version

    @invariant()
    def the_table_holds_who_was_heard_of_lately(self) -> None:
        listed = {heard.state.id: heard for heard in self.held.table.listing().workers}
        assert {each: heard.state for each, heard in listed.items()} == {
            each: state for each, (state, _) in self.told.items()
        }
        for each, (_, heard_at) in self.told.items():
            assert listed[each].age_s == pytest.approx(self.held.clock.now - heard_at, abs=1e-3)

    @invariant()
    def every_url_is_there_once(self) -> None:
        urls = [state.url for state in self.held.table.states()]
        assert len(set(urls)) == len(urls)

    @invariant()
    def the_version_grows_exactly_when_more_than_load_changes(self) -> None:
        assert (self.held.table.version > self.version) == (self._outline() != self.outline)
        self.outline, self.version = self._outline(), self.held.table.version

    @invariant()
    def a_choice_is_made_whenever_somebody_takes_requests(self) -> None:
        if any(not state.is_draining for state, _ in self.told.values()):
            assert not self.told[self.held.table.choose("m").id][0].is_draining
        else:
            with pytest.raises(NoWorkerError):
                self.held.table.choose("m")

    def _expire(self) -> None:
        last = self.held.clock.now - EXPIRES_S
        self.told = {each: told for each, told in self.told.items() if told[1] > last}

    def _outline(self) -> set[tuple[str, str, bool]]:
        return {(state.id, state.url, state.is_draining) for state, _ in self.told.values()}


TestTable = Walk.TestCase
TestTable.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
