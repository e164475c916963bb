"""Random walks over block pool and scheduler: nothing leaks, nobody starves, no hit is wrong."""

import contextlib
import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from llmctl.core.errors import DoesNotFitError
from llmctl.engine.scheduling.blocks import BlockPool
from llmctl.engine.scheduling.limits import Limits
from tests.engine.memory import FULL, Memory, chunked, sequence, sliding

WALKS = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
POLICIES = (
    [FULL],
    [sliding(5), FULL],
    [chunked(8), FULL],
    [chunked(6)],
    [sliding(3), chunked(16), FULL],
    [sliding(1), sliding(9)],
)


class PoolMachine(RuleBasedStateMachine):
    """Owners take, share and give back blocks, and write a key's name into those that they register."""

    owned = Bundle("owned")

    @initialize(
        sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
        budget=st.integers(1, 60),
        is_fixed=st.booleans(),
    )
    def begin(self, sizes: list[int], budget: int, is_fixed: bool) -> None:
        share = budget // len(sizes)
        self.sizes, self.budget, self.is_fixed = sizes, budget, is_fixed
        self.pool = BlockPool(sizes, budget, [share // size for size in sizes] if is_fixed else None)
        self.references: dict[tuple[int, int], int] = {}
        self.contents: dict[tuple[int, int], bytes | None] = {}
        self.memory: set[tuple[int, int]] = set()

    @rule(target=owned, group=st.integers(0, 2))
    def allocate(self, group: int) -> tuple[int, int] | None:
        group %= len(self.sizes)
        if not self.pool.can_allocate([each == group for each in range(len(self.sizes))]):
            return None
        block = self.pool.allocate(group)
        assert (group, block) not in self.references
        assert block < self.pool.max_blocks[group]
        self.references[group, block] = 1
        self.contents[group, block] = None
        self.memory -= set(self.pool.take_discarded())
        self.memory.add((group, block))
        return group, block

    @rule(target=owned, where=owned)
    def share(self, where: tuple[int, int] | None) -> tuple[int, int] | None:
        if where in self.references:
            self.pool.share(*where)
            self.references[where] += 1
            return where
        return None

    @rule(where=owned, key=st.integers(0, 9))
    def register(self, where: tuple[int, int] | None, key: int) -> None:
        name = bytes([key])
        if where in self.references and self.contents[where] is None:
            is_new = self.pool.find(where[0], name) is None
            self.pool.register(*where, name)
            self.contents[where] = name
            assert (self.pool.find(where[0], name) == where[1]) is is_new

    @rule(where=consumes(owned))
    def release(self, where: tuple[int, int] | None) -> None:
        if where is not None and self.references.get(where):
            self.pool.release(*where)
            self.references[where] -= 1
            if not self.references[where]:
                del self.references[where]

    @rule(target=owned, group=st.integers(0, 2), key=st.integers(0, 9))
    def find(self, group: int, key: int) -> tuple[int, int] | None:
        group %= len(self.sizes)
        block = self.pool.find(group, bytes([key]))
        if block is None:
            return None
        assert self.contents[group, block] == bytes([key])
        self.pool.share(group, block)
        self.references[group, block] = self.references.get((group, block), 0) + 1
        return group, block

    @invariant()
    def counts_are_right(self) -> None:
        if not hasattr(self, "pool"):
            return
        used = sum(self.sizes[group] for group, _ in self.references)
        memory = sum(self.sizes[group] for group, _ in self.memory)
        assert self.pool.used_bytes == used <= self.budget
        assert used <= memory == self.pool.taken_bytes <= self.budget
        for group in range(len(self.sizes)):
            assert self.pool.num_used(group) == sum(each == group for each, _ in self.references)

    def teardown(self) -> None:
        for (group, block), count in list(getattr(self, "references", {}).items()):
            for _ in range(count):
                self.pool.release(group, block)
        assert not hasattr(self, "pool") or self.pool.used_bytes == 0


TestPool = PoolMachine.TestCase
TestPool.settings = WALKS


@dataclass
class World:
    """A scheduler under load that a source of choices makes up."""

    choose: Any
    """Like `random.Random.randint`."""
    memory: Memory = field(init=False)
    num_made: int = 0

    def __post_init__(self) -> None:
        choose = self.choose
        policies = POLICIES[choose(0, len(POLICIES) - 1)]
        has_states = choose(0, 3) == 0
        max_running = choose(1, 6)
        limits = Limits(
            max_length=choose(20, 60),
            max_step_tokens=max_running + choose(0, 24),
            max_running=max_running,
            block_size=1 << choose(0, 3),
            has_states=has_states,
            caches_prefixes=choose(0, 5) > 0,
            whole_prefill=has_states and choose(0, 1) == 0,
        )
        block_bytes = [choose(1, 3) for _ in policies]
        budget = choose(15, 60) if choose(0, 1) else choose(60, 250)
        is_fixed = choose(0, 3) == 0
        fixed = [budget // sum(block_bytes)] * len(policies)
        self.memory = Memory(limits, policies, block_bytes, budget, fixed if is_fixed else None)

    def add(self) -> None:
        """A request; many begin alike. One that memory could never hold is refused."""
        choose = self.choose
        ids = [choose(0, 1)] * choose(0, 24) * choose(0, 1) + [choose(0, 2) for _ in range(choose(1, 9))]
        made = sequence(
            str(self.num_made),
            ids,
            samples=choose(1, 3) if choose(0, 3) == 0 else 1,
            max_new_tokens=None if choose(0, 2) == 0 else choose(0, 30),
            priority=choose(0, 2),
            salt=(choose(0, 1),),
            wants_prompt=choose(0, 5) == 0,
        )
        self.num_made += 1
        with contextlib.suppress(DoesNotFitError):
            self.memory.add(made)

    def stop(self, *, is_cancel: bool) -> None:
        """End a random one that has not ended."""
        living = [each for each in self.memory.all if not each.is_ended]
        if living:
            chosen = living[self.choose(0, len(living) - 1)]
            if is_cancel:
                assert self.memory.scheduler.cancel(chosen.id)
            else:
                self.memory.scheduler.finish(chosen)
            assert chosen.is_ended
            assert chosen.tables == []
            self.memory.check_books()

    def step_with_cancel(self) -> None:
        """A client goes away while the step is computed."""
        scheduler = self.memory.scheduler
        work = scheduler.next()
        self.memory.check_work(work)
        self.memory.compute(work)
        samples = [each for span in work.spans for each in span.samples]
        if work.spans:
            scheduler.cancel(work.spans[self.choose(0, len(work.spans) - 1)].sequence.id)
        scheduler.done(work, dict.fromkeys(samples, 1))
        self.memory.check_books()


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of requests, steps, cancels and ends, then steps until all is done."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.world = World(lambda low, high: data.draw(st.integers(low, high)))

    @rule(data=st.data(), count=st.integers(1, 3))
    def add(self, data: st.DataObject, count: int) -> None:
        self.world.choose = lambda low, high: data.draw(st.integers(low, high))
        for _ in range(count):
            self.world.add()

    @rule(count=st.integers(1, 8))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.world.memory.step()

    @rule(data=st.data(), is_cancel=st.booleans())
    def stop(self, data: st.DataObject, is_cancel: bool) -> None:
        self.world.choose = lambda low, high: data.draw(st.integers(low, high))
        self.world.stop(is_cancel=is_cancel)

    @rule(data=st.data())
    def step_with_cancel(self, data: st.DataObject) -> None:
        self.world.choose = lambda low, high: data.draw(st.integers(low, high))
        self.world.step_with_cancel()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.memory.drain()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = WALKS


def walk(seed: int, num_steps: int) -> Memory:
    """Random requests, steps and cancels, as many in each phase as make memory short or leave it idle."""
    source = random.Random(seed)
    world = World(source.randint)
    load = source.choice([0.1, 0.3, 0.6])
    for _ in range(num_steps):
        if source.random() < load:
            world.add()
        if source.random() < 0.03:
            world.stop(is_cancel=source.random() < 0.5)
        if source.random() < 0.03:
            world.step_with_cancel()
        else:
            world.memory.step()
        # Ended ones are of no more interest to the checks.
        world.memory.all = [each for each in world.memory.all if not each.is_ended]
    world.memory.drain()
    return world.memory


def test_ten_thousand_random_steps_with_cancels_and_preemptions_leave_the_books_in_order() -> None:
    walked = [walk(seed, 50) for seed in range(200)]
    assert sum(memory.num_steps for memory in walked) >= 10_000
    # What the walks are for has happened.
    assert sum(memory.scheduler.num_preemptions for memory in walked) > 100
    assert sum(memory.num_hits for memory in walked) > 100
    assert sum(memory.num_copies for memory in walked) > 100
