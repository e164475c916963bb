"""The gateway's copy of the table: controllers may come and go, workers that live are not lost with them."""

import logging
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmctl.core.errors import NotFoundError, NoWorkerError, UnreachableError
from llmctl.services.controller.table import WorkerTable
from llmctl.services.dispatch import Method
from llmctl.services.fleet import FleetView
from llmctl.services.traffic import FAILED_S, STALE_S
from llmctl.services.wire import Heard, ModelState, WorkerState
from tests.services.fleet_states import Clock, listing, worker

ONE, TWO = "http://127.0.0.1:21001", "http://127.0.0.1:21002"


class Held:
    """A view that is told what controllers would tell it."""

    def __init__(self, *controllers: str, method: Method | None = None) -> None:
        self.clock = Clock()
        self.view = FleetView(
            controllers or (ONE,), token=None, method=method, clock=self.clock, rng=random.Random(0)
        )

    def take(self, *workers: WorkerState | Heard, url: str = ONE, **fields: Any) -> None:
        self.view.take(url, listing(*workers, **fields))

    def lose(self, url: str = ONE) -> None:
        """The controller at `url` does not answer any more."""
        self.view.lose(url, UnreachableError("gone"))

    def ids(self) -> set[str]:
        return {heard.state.id for heard in self.view.workers}

    def chosen(self, num: int = 40, **options: Any) -> Counter[str]:
        return Counter(self.view.choose("m", **options).id for _ in range(num))


@pytest.fixture
def held() -> Held:
    return Held()


# Which workers there are


def test_a_table_is_taken_over_whole(held: Held) -> None:
    held.take(worker(1), worker(2))
    held.take(worker(2), worker(3))
    assert held.ids() == {"w2", "w3"}


def test_ages_grow_while_a_table_stands(held: Held) -> None:
    held.take(Heard(state=worker(1), age_s=1.5))
    held.clock.now += 2
    assert [heard.age_s for heard in held.view.workers] == [3.5]


def test_the_last_table_stands_when_all_controllers_are_gone(held: Held) -> None:
    held.take(worker(1), worker(2))
    held.lose()
    held.clock.now += 3600
    assert set(held.chosen()) == {"w1", "w2"}
    assert isinstance(held.view.faults[ONE], UnreachableError)


def test_a_controller_that_was_just_started_is_not_believed_about_who_is_missing(held: Held) -> None:
    held.take(worker(1), worker(2))
    held.lose()
    held.take(boot="two", up_s=0.5)
    assert held.ids() == {"w1", "w2"}
    held.take(worker(2), boot="two", up_s=2.5)
    assert held.ids() == {"w1", "w2"}
    held.take(worker(2), boot="two", up_s=6.5)
    assert held.ids() == {"w2"}


def test_a_young_controller_is_believed_about_who_left_since_its_start(held: Held) -> None:
    held.take(worker(1), worker(2))
    held.take(worker(1), worker(2), boot="two", up_s=1.0)
    held.take(worker(2), boot="two", up_s=2.0)
    assert held.ids() == {"w2"}


def test_a_controller_that_dies_again_while_it_is_young_loses_nobody(held: Held) -> None:
    held.take(worker(1), worker(2))
    held.take(worker(2), boot="two", up_s=1.0)
    held.take(boot="three", up_s=1.0)
    assert held.ids() == {"w1", "w2"}


def test_of_two_controllers_what_was_heard_last_counts() -> None:
    held = Held(ONE, TWO)
    held.take(Heard(state=worker(1, is_draining=True), age_s=0.5), url=TWO)
    held.take(Heard(state=worker(1), age_s=1.5), worker(2), url=ONE)
    assert held.ids() == {"w1", "w2"}
    assert set(held.chosen()) == {"w2"}


def test_a_worker_that_only_one_of_two_controllers_knows_is_known() -> None:
    held = Held(ONE, TWO)
    held.take(worker(1), url=ONE)
    held.take(worker(2), url=TWO)
    held.take(url=TWO)
    assert held.ids() == {"w1"}


def test_what_a_dead_controller_said_last_yields_to_what_a_live_one_says() -> None:
    held = Held(ONE, TWO)
    held.take(worker(1), worker(2), url=ONE)
    held.take(worker(1), url=TWO)
    held.lose(ONE)
    held.take(url=TWO)
    assert held.ids() == {"w2"}


def test_a_worker_that_was_started_again_is_there_once() -> None:
    held = Held(ONE, TWO)
    held.take(Heard(state=worker(1, id="old"), age_s=3.0), url=ONE)
    held.take(worker(1, id="new"), url=TWO)
    assert held.ids() == {"new"}


def test_a_worker_that_moved_is_where_it_was_heard_of_last() -> None:
    held = Held(ONE, TWO)
    held.take(Heard(state=worker(1), age_s=3.0), url=ONE)
    held.take(worker(1, url="http://127.0.0.1:9"), url=TWO)
    assert [heard.state.url for heard in held.view.workers] == ["http://127.0.0.1:9"]


# Who is chosen


def test_nobody_is_chosen_before_a_controller_has_answered(held: Held) -> None:
    assert not held.view.has_workers
    with pytest.raises(NoWorkerError) as caught:
        held.view.choose("m")
    assert caught.value.retry_after_s > 0


def test_a_model_that_nobody_serves_is_unknown(held: Held) -> None:
    held.take(worker(1, "a", "b"))
    with pytest.raises(NotFoundError, match="'m'") as caught:
        held.view.choose("m")
    assert not isinstance(caught.value, NoWorkerError)
    assert caught.value.hint == "there is a, b"


def test_a_model_whose_only_worker_went_will_be_back(held: Held) -> None:
    held.take(worker(1), worker(2, "other"))
    held.take(worker(2, "other"))
    with pytest.raises(NoWorkerError, match="'m'"):
        held.view.choose("m")


def test_a_draining_worker_is_not_chosen(held: Held) -> None:
    held.take(worker(1, is_draining=True))
    assert not held.view.has_workers
    with pytest.raises(NoWorkerError):
        held.view.choose("m")


def test_workers_that_were_tried_are_left_out(held: Held) -> None:
    held.take(worker(1), worker(2))
    assert set(held.chosen(without={"w1"})) == {"w2"}
    with pytest.raises(NoWorkerError):
        held.view.choose("m", without={"w1", "w2"})


def test_an_alias_is_as_good_as_a_name(held: Held) -> None:
    held.take(worker(1, models=(ModelState(name="long", aliases=("m",)),)))
    assert held.view.choose("m").id == "w1"


def test_a_worker_that_can_do_what_is_needed_is_preferred(held: Held) -> None:
    chats = worker(1)
    embeds = worker(2, models=(ModelState(name="m", capabilities=("embeddings",)),))
    held.take(chats, embeds)
    assert set(held.chosen(needs="embeddings")) == {"w2"}
    assert set(held.chosen(needs="chat")) == {"w1"}
    # The worker itself says what it cannot do.
    assert set(held.chosen(needs="score")) <= {"w1", "w2"}


def test_the_load_of_the_model_counts_where_a_worker_has_several(held: Held) -> None:
    busy = ModelState(name="other", num_running=4, num_waiting=50, max_running=4)
    held.take(
        worker(1, models=(ModelState(name="m", max_running=4), busy), num_waiting=50, num_running=4),
        worker(2, num_running=4, num_waiting=1),
    )
    assert set(held.chosen()) == {"w1"}


def test_the_controllers_say_how_to_choose_and_the_gateway_may_say_otherwise() -> None:
    fleet = (worker(1, num_running=3), worker(2))
    told, own = Held(), Held(method="least-wait")
    for held in (told, own):
        held.take(*fleet, dispatch="lottery")
    assert set(told.chosen(num=100)) == {"w1", "w2"}
    assert set(own.chosen(num=100)) == {"w2"}


def test_a_way_to_choose_that_is_not_known_is_least_wait(held: Held) -> None:
    held.take(worker(1, num_running=3), worker(2), dispatch="quantum")
    assert set(held.chosen()) == {"w2"}


def test_one_prefix_stays_with_one_worker(held: Held) -> None:
    held.take(worker(1), worker(2), worker(3), dispatch="prefix")
    assert len(held.chosen(prefix=b"You are")) == 1
    assert len({held.view.choose("m", prefix=bytes([each])).id for each in range(50)}) == 3


# What the gateway itself has sent


def test_requests_on_their_way_count_before_they_are_told(held: Held) -> None:
    held.take(worker(1), worker(2))
    flights = [held.view.begin(held.view.choose("m").id) for _ in range(6)]
    assert sorted(Counter(each.id for each in [held.view.choose("m")])) != []
    held.view.begin("w1")
    assert set(held.chosen()) == {"w2"}
    for flight in flights:
        flight.end()
    assert set(held.chosen()) == {"w2"}


def test_requests_that_the_worker_has_told_are_not_counted_twice(held: Held) -> None:
    held.take(worker(1), worker(2, num_running=1))
    for _ in range(2):
        held.view.begin("w1")
    assert set(held.chosen()) == {"w2"}
    held.clock.now += 1
    held.take(worker(1, num_running=2), worker(2, num_running=3))
    assert set(held.chosen()) == {"w1"}


def test_a_heartbeat_from_before_the_request_does_not_count_it(held: Held) -> None:
    held.take(worker(1), worker(2, num_running=1))
    held.clock.now += 1
    flights = [held.view.begin("w1") for _ in range(2)]
    held.clock.now += 0.5
    held.take(Heard(state=worker(1), age_s=1.0), worker(2, num_running=1))
    assert set(held.chosen()) == {"w2"}
    for flight in flights:
        flight.end()
    assert set(held.chosen()) == {"w1"}


def test_requests_that_ended_since_the_heartbeat_free_their_places(held: Held) -> None:
    flights = []
    held.take(worker(1), worker(2))
    for _ in range(3):
        flights.append(held.view.begin("w1"))
    held.clock.now += 1
    held.take(worker(1, num_running=3), worker(2, num_running=1))
    assert set(held.chosen()) == {"w2"}
    held.clock.now += 0.1
    for flight in flights:
        flight.end()
        flight.end()
    assert set(held.chosen()) == {"w1"}


def test_without_controllers_the_requests_on_their_way_are_what_counts(held: Held) -> None:
    held.take(worker(1, num_running=4, num_waiting=20), worker(2))
    held.lose()
    held.clock.now += STALE_S + 1
    held.view.begin("w2")
    assert set(held.chosen()) == {"w1"}


def test_a_request_to_a_worker_that_is_gone_ends_in_peace(held: Held) -> None:
    held.take(worker(1))
    flight, late = held.view.begin("w1"), held.view.begin("nobody")
    held.take()
    flight.end()
    late.end()
    held.take(worker(1))
    assert set(held.chosen()) == {"w1"}


def test_a_worker_that_failed_is_passed_over_until_it_is_heard_of(held: Held) -> None:
    held.take(worker(1), worker(2, num_running=3, num_waiting=7))
    held.clock.now += 0.5
    held.view.mark_failed("w1")
    assert set(held.chosen()) == {"w2"}
    held.take(Heard(state=worker(1), age_s=1.0), worker(2, num_running=3, num_waiting=7))
    assert set(held.chosen()) == {"w2"}
    held.clock.now += 1
    held.take(worker(1), worker(2, num_running=3, num_waiting=7))
    assert set(held.chosen()) == {"w1"}


def test_a_worker_that_failed_is_tried_again_after_a_while(held: Held) -> None:
    held.take(worker(1), worker(2, num_running=3))
    held.view.mark_failed("w1")
    held.clock.now += FAILED_S - 0.1
    assert set(held.chosen()) == {"w2"}
    held.clock.now += 0.1
    assert set(held.chosen()) == {"w1"}


def test_the_only_worker_is_tried_even_if_it_failed(held: Held) -> None:
    held.take(worker(1))
    held.view.mark_failed("w1")
    assert held.view.choose("m").id == "w1"
    held.view.mark_failed("nobody")


class Walk(RuleBasedStateMachine):
    """Two controllers, three workers and a gateway; whoever lives reports and asks every 2 s."""

    URLS = (ONE, TWO)

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.WARNING)
        self.held = Held(*self.URLS)
        self.clock = self.held.clock
        self.tables: dict[str, WorkerTable | None] = dict.fromkeys(self.URLS)
        self.alive: dict[int, WorkerState] = {}
        self.num_lives = 0
        self.met: set[str] = set()
        """Workers that the gateway has heard of and that are still there."""
        self.calm_s = 0.0
        """How long nobody has died, come or gone."""

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)

    @rule(url=st.sampled_from(URLS), num_rounds=st.integers(0, 2))
    def start_a_controller(self, url: str, num_rounds: int) -> None:
        self.tables[url] = WorkerTable(method="least-wait", expires_s=6.0, clock=self.clock)
        self._disturb(num_rounds)

    @rule(url=st.sampled_from(URLS), num_rounds=st.integers(0, 2))
    def kill_a_controller(self, url: str, num_rounds: int) -> None:
        self.tables[url] = None
        self._disturb(num_rounds)

    @rule(number=st.integers(1, 3), num_rounds=st.integers(0, 2))
    def start_a_worker(self, number: int, num_rounds: int) -> None:
        self._end(number)
        self.num_lives += 1
        self.alive[number] = worker(number, id=f"life{self.num_lives}", started=self.clock.now)
        self._disturb(num_rounds)

    @rule(number=st.integers(1, 3), num_rounds=st.integers(0, 2))
    def kill_a_worker(self, number: int, num_rounds: int) -> None:
        self._end(number)
        self._disturb(num_rounds)

    @rule(number=st.integers(1, 3), num_rounds=st.integers(0, 2))
    def stop_a_worker(self, number: int, num_rounds: int) -> None:
        for table in self.tables.values():
            if table is not None and number in self.alive:
                table.leave(self.alive[number].id)
        self._end(number)
        self._disturb(num_rounds)

    @rule()
    def calm_down(self) -> None:
        self._pass(8)

    @invariant()
    def no_worker_that_lives_is_lost(self) -> None:
        assert self.met <= self.held.ids()

    @invariant()
    def in_calm_times_only_those_are_known_that_live(self) -> None:
        if self.calm_s > 14.0 and all(self.tables.values()):
            assert self.held.ids() == {state.id for state in self.alive.values()}

    @invariant()
    def every_url_is_known_once(self) -> None:
        urls = [heard.state.url for heard in self.held.view.workers]
        assert len(set(urls)) == len(urls)

    def _end(self, number: int) -> None:
        if number in self.alive:
            self.met.discard(self.alive.pop(number).id)

    def _disturb(self, num_rounds: int) -> None:
        self.calm_s = 0.0
        self._pass(num_rounds)

    def _pass(self, num_rounds: int) -> None:
        """Rounds of 2 s: the gateway asks, the workers report, the gateway asks again."""
        for _ in range(num_rounds):
            self.clock.now += 1.0
            self._ask()
            self.clock.now += 1.0
            for table in self.tables.values():
                for state in self.alive.values() if table is not None else ():
                    assert table is not None
                    table.tell(state)
            self._ask()
            self.calm_s += 2.0
            if any(self.tables.values()):
                self.met = {state.id for state in self.alive.values()}

    def _ask(self) -> None:
        for url, table in self.tables.items():
            if table is None:
                self.held.lose(url)
            else:
                self.held.view.take(url, table.listing())
        assert self.met <= self.held.ids()


TestFleet = Walk.TestCase
TestFleet.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
