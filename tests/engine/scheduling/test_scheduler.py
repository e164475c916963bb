"""The scheduler: whose tokens a step has, who is preempted, and that nobody waits for ever."""

import statistics
import time

import pytest

from llmctl.core.errors import BusyError, ContextOverflowError, DoesNotFitError, UsageError
from llmctl.engine.scheduling.blocks import BlockPool
from llmctl.engine.scheduling.limits import Limits
from llmctl.engine.scheduling.scheduler import Scheduler
from llmctl.engine.scheduling.sequence import Sequence, State
from tests.engine.memory import FULL, Memory, chunked, sequence, sliding


def memory(budget: int = 1000, **limits: int | bool | None) -> Memory:
    given = {"max_length": 1000, "max_step_tokens": 16, "max_running": 8, "block_size": 4, **limits}
    return Memory(Limits(**given), [FULL], [1], budget)  # type: ignore[arg-type]


def shares(world: Memory) -> dict[str, tuple[int, int]]:
    """(start, count) of each sequence in the next step."""
    return {span.sequence.id: (span.start, span.count) for span in world.step().spans}


def test_a_long_prompt_is_computed_in_pieces_beside_those_who_decode() -> None:
    world = memory()
    world.add(sequence("a", [1, 2]))
    assert shares(world) == {"a.0": (0, 2)}
    world.add(sequence("b", list(range(40))))
    assert shares(world) == {"a.0": (2, 1), "b.0": (0, 15)}
    assert shares(world) == {"a.0": (3, 1), "b.0": (15, 15)}
    assert shares(world) == {"a.0": (4, 1), "b.0": (30, 10)}
    assert shares(world) == {"a.0": (5, 1), "b.0": (40, 1)}


def test_sequences_are_admitted_in_their_order_while_tokens_and_places_last() -> None:
    world = memory(max_running=2)
    for name in "abc":
        world.add(sequence(name, [1] * 10, max_new_tokens=1, wants_prompt=True))
    assert shares(world) == {"a.0": (0, 10), "b.0": (0, 6)}
    assert shares(world) == {"b.0": (6, 4), "c.0": (0, 10)}


def test_a_higher_priority_is_served_first() -> None:
    world = memory(max_running=1)
    for name, priority in [("a", 0), ("b", 2), ("c", 1)]:
        world.add(sequence(name, [1], max_new_tokens=1, priority=priority))
    assert [next(iter(shares(world))) for _ in range(3)] == ["b.0", "c.0", "a.0"]


def test_when_memory_runs_out_the_lowest_in_rank_gives_its_own_back() -> None:
    world = memory(budget=4, caches_prefixes=False)
    low = world.add(sequence("low", [1] * 4, max_new_tokens=9, priority=-1))
    world.step()
    high = world.add(sequence("high", [2] * 3, max_new_tokens=12, priority=1))
    while not (preempted := world.step().preempted):
        assert not high.is_ended
    assert preempted == [low]
    assert low.state is State.WAITING
    assert low.num_computed == 0
    assert low.num_new_tokens > 0
    assert high.state is State.RUNNING
    world.drain()
    assert (low.num_new_tokens, high.num_new_tokens) == (9, 12)


def test_a_preempted_sequence_finds_what_is_left_of_its_blocks() -> None:
    world = memory(budget=6)
    world.add(sequence("a", [1] * 8, max_new_tokens=12))
    late = world.add(sequence("b", [2] * 8, max_new_tokens=12))
    starts = []
    while world.scheduler.has_work:
        starts += [span.start for span in world.step().spans if span.sequence is late and span.count > 1]
    assert late.num_preemptions == 1
    assert starts[0] == 0 < starts[1]
    assert late.num_cached == 0


def test_one_that_memory_cannot_serve_now_keeps_what_it_has_if_nobody_ranks_behind_it() -> None:
    world = memory(budget=5, caches_prefixes=False)
    first = world.add(sequence("a", [1] * 4, max_new_tokens=13))
    second = world.add(sequence("b", [2] * 4, max_new_tokens=4))
    while not first.is_ended:
        world.step()
    assert (first.num_preemptions, second.num_preemptions) == (0, 0)


def test_no_stream_of_urgent_requests_keeps_an_ordinary_one_waiting_for_ever() -> None:
    world = memory(budget=12, max_running=2)
    patient = world.add(sequence("patient", [1] * 8, max_new_tokens=8, priority=-5))
    for number in range(300):
        world.add(sequence(f"{number}", [2] * 9, max_new_tokens=9, priority=5))
        world.step()
        if patient.is_ended:
            break
    assert patient.state is State.FINISHED
    assert number < 250
    world.drain()


def test_one_that_is_preempted_again_and_again_comes_to_its_end() -> None:
    world = memory(budget=20, caches_prefixes=False)
    unlucky = world.add(sequence("unlucky", [1] * 3, max_new_tokens=70, priority=-5))
    for number in range(400):
        world.step()
        is_back = unlucky.state is State.RUNNING and unlucky.num_pending == 1
        if is_back and world.scheduler.num_running < 3:
            world.add(sequence(f"{number}", [2] * 3, max_new_tokens=30, priority=5))
        if unlucky.is_ended:
            break
    assert unlucky.state is State.FINISHED
    assert unlucky.num_preemptions == 3


def test_samples_share_a_prompt_that_is_computed_once() -> None:
    world = memory()
    first = world.add(sequence("a", list(range(10)), samples=3, max_new_tokens=5))
    work = world.step()
    assert [span.count for span in work.spans] == [10]
    assert world.scheduler.num_running == 3
    assert world.pool.num_used(0) == 3
    work = world.step()
    assert [(span.start, span.count) for span in work.spans] == [(10, 1)] * 3
    assert [(copy.group, copy.source) for copy in work.copies] == [(0, 2), (0, 2)]
    assert first.siblings == []
    world.drain()
    assert [each.num_new_tokens for each in world.all] == [5, 5, 5]


def test_a_sample_without_a_place_begins_by_itself_from_the_cached_prompt() -> None:
    world = memory(max_running=2)
    world.add(sequence("a", list(range(10)), samples=3, max_new_tokens=2))
    world.step()
    assert (world.scheduler.num_running, world.scheduler.num_waiting) == (2, 1)
    world.step()
    assert shares(world) == {"a.2": (8, 3)}


def test_cancelling_a_prompt_cancels_the_samples_that_wait_for_it() -> None:
    world = memory()
    first = world.add(sequence("a", list(range(40)), samples=3))
    world.step()
    assert world.scheduler.cancel("a.1")
    world.step()
    assert world.scheduler.cancel("a.0")
    assert [each.state for each in world.all] == [State.CANCELLED] * 3
    assert first.tables == []
    world.check_empty()
    assert not world.scheduler.cancel("a.0")
    assert not world.scheduler.has_work


def test_cancelling_frees_at_once_even_while_a_step_is_computed() -> None:
    world = memory()
    world.add(sequence("a", [1] * 8))
    work = world.scheduler.next()
    world.scheduler.cancel("a.0")
    assert world.pool.used_bytes == 0
    assert world.scheduler.done(work, {work.spans[0].sequence: 1}) == []
    assert len(work.spans[0].sequence.ids) == 8


def test_a_sequence_without_an_answer_ends_with_its_prompt() -> None:
    world = memory()
    scored = world.add(sequence("a", [1] * 20, max_new_tokens=0))
    world.step()
    work = world.step()
    assert work.spans[0].samples == []
    assert scored.state is State.FINISHED
    assert scored.num_new_tokens == 0


@pytest.mark.parametrize(
    ("num_prompt", "max_new_tokens", "max_length"),
    [(10, None, 65), (10, 5, 15), (10, 55, 65), (64, 1, 65), (64, 0, 64)],
)
def test_a_sequence_ends_where_its_limit_or_memory_does(
    num_prompt: int, max_new_tokens: int | None, max_length: int
) -> None:
    world = memory(budget=16)
    made = world.add(sequence("a", [1] * num_prompt, max_new_tokens=max_new_tokens))
    assert made.max_length == max_length
    world.drain()
    assert len(made.ids) == max_length


@pytest.mark.parametrize(
    ("num_prompt", "max_new_tokens", "error", "message"),
    [
        (100, None, ContextOverflowError, "the prompt has 100 tokens, and the context is 100"),
        (101, 0, ContextOverflowError, "the prompt has 101 tokens, and the context is 100"),
        (65, None, DoesNotFitError, "the prompt has 65 tokens, and 0 MiB for keys and values hold 64"),
        (10, 56, DoesNotFitError, "prompt and answer may have 65 tokens"),
    ],
)
def test_what_can_never_run_is_refused_when_it_is_added(
    num_prompt: int, max_new_tokens: int | None, error: type[DoesNotFitError], message: str
) -> None:
    world = memory(budget=16, max_length=100)
    with pytest.raises(error, match=message) as caught:
        world.scheduler.add(sequence("a", [1] * num_prompt, max_new_tokens=max_new_tokens))
    assert caught.value.hint
    assert not world.scheduler.has_work


def test_windows_let_memory_hold_longer_sequences() -> None:
    limits = Limits(max_length=100_000, max_step_tokens=16, max_running=8, block_size=4)
    world = Memory(limits, [sliding(8), chunked(16)], [1, 1], 16)
    made = world.add(sequence("a", [1] * 300, max_new_tokens=20))
    world.drain()
    assert len(made.ids) == 320


def test_after_memory_ran_out_more_is_tried_again_in_time() -> None:
    world = memory(max_running=8, max_step_tokens=64)
    scheduler = world.scheduler
    for number in range(8):
        world.add(sequence(f"{number}", [number + 1], max_new_tokens=60))
    world.step()
    # Eight that decode: prompts may be as long as before.
    assert scheduler.halve(scheduler.next())
    assert (scheduler.limits.max_running, scheduler.limits.max_step_tokens) == (4, 64)
    world.drain()
    assert scheduler.limits.max_running == 8
    world.add(sequence("long", list(range(1, 60)), max_new_tokens=1))
    assert scheduler.halve(scheduler.next())
    assert (scheduler.limits.max_running, scheduler.limits.max_step_tokens) == (8, 29)


def test_no_more_wait_than_may() -> None:
    world = memory(max_running=1, max_waiting=1)
    # For the one there is a place, and the other waits.
    for name in "ab":
        world.add(sequence(name, [1], max_new_tokens=4))
    for name in "cd":
        with pytest.raises(BusyError, match="1 requests wait already"):
            world.scheduler.add(sequence(name, [1]))
        world.step()
    world.drain()
    world.add(sequence("e", [1]))


def test_where_none_may_wait_requests_are_taken_while_there_are_places() -> None:
    world = memory(max_running=2, max_waiting=0)
    for name in "ab":
        world.add(sequence(name, [1], max_new_tokens=4))
    with pytest.raises(BusyError):
        world.scheduler.add(sequence("c", [1]))


def test_a_prompt_that_must_be_whole_gets_a_step_of_its_own_every_other_time() -> None:
    world = memory(has_states=True, whole_prefill=True)
    world.add(sequence("a", [1] * 3, max_new_tokens=20))
    world.step()
    for name in "bc":
        world.add(sequence(name, [1] * 30, max_new_tokens=20))
    assert shares(world) == {"b.0": (0, 30)}
    assert shares(world) == {"a.0": (3, 1), "b.0": (30, 1)}
    assert shares(world) == {"c.0": (0, 30)}
    world.add(sequence("d", [1] * 5, max_new_tokens=20))
    assert shares(world) == {"a.0": (4, 1), "b.0": (31, 1), "c.0": (30, 1), "d.0": (0, 5)}
    world.drain()


def test_samples_of_a_recurrent_model_begin_with_a_copy_of_the_state() -> None:
    world = memory(has_states=True)
    world.add(sequence("a", [1] * 6, samples=3, max_new_tokens=4))
    assert world.step().state_copies == []
    slots = [each.state_slot for each in world.all]
    assert world.step().state_copies == [(slots[0], slots[1]), (slots[0], slots[2])]
    world.drain()


def test_no_two_states_are_copied_to_one_slot() -> None:
    world = memory(has_states=True)
    for name, max_new_tokens in [("a", 1), ("b", 4)]:
        world.add(sequence(name, [1] * 6, samples=2, max_new_tokens=max_new_tokens))
    world.step()
    *_, source, sample = world.all
    assert world.step().state_copies == [(source.state_slot, sample.state_slot)]
    world.drain()


def test_prompts_that_do_not_fit_together_are_not_admitted_together() -> None:
    world = memory(budget=20, caches_prefixes=False)
    world.add(sequence("a", [1] * 40, max_new_tokens=20))
    world.add(sequence("b", [1] * 60, max_new_tokens=2))
    world.drain()
    assert world.scheduler.num_preemptions == 0


def test_a_prompt_that_others_hold_already_is_admitted_to_little_memory() -> None:
    world = memory(budget=20)
    world.add(sequence("a", [1] * 60, max_new_tokens=8))
    for _ in range(4):
        world.step()
    late = world.add(sequence("b", [1] * 60, max_new_tokens=8))
    world.step()
    assert late.state is State.RUNNING
    assert late.num_cached == 56


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": 9, "block_size": 24}, "block_size is 24, no power of two"),
        (
            {"max_length": 9, "max_running": 9, "max_step_tokens": 8},
            "9 sequences cannot decode in a step of 8",
        ),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(limits: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Limits(**limits)  # type: ignore[arg-type]
    assert caught.value.hint


def step_seconds(num_tokens: int, num_waiting: int) -> float:
    """Of a step in which 64 sequences of that length decode: the median of many."""
    policies = [sliding(1024), FULL]
    limits = Limits(max_length=100_000, max_step_tokens=8192)
    # Room for those who run, and for none of those who wait.
    num_blocks = 64 * (num_tokens // limits.block_size + 40)
    pool = BlockPool([1, 1], num_blocks + 64 * 40)
    scheduler = Scheduler(limits, pool, policies)
    for number in range(64):
        ids = [number, *range(num_tokens)]
        scheduler.add(Sequence(id=f"r{number}", ids=ids, max_new_tokens=500))
    while any(each.num_pending > 1 for each in scheduler._known.values()):
        work = scheduler.next()
        scheduler.done(work, {each: 1 for span in work.spans for each in span.samples})
    for number in range(num_waiting):
        scheduler.add(Sequence(id=f"w{number}", ids=[number] * 20_000, max_new_tokens=10))
    spent = []
    for _ in range(150):
        began = time.perf_counter()
        work = scheduler.next()
        tokens = {each: 1 for span in work.spans for each in span.samples}
        scheduler.done(work, tokens)
        spent.append(time.perf_counter() - began)
        assert len(work.spans) == 64
    return statistics.median(spent)


def test_a_step_costs_no_more_for_long_sequences_and_many_that_wait() -> None:
    short = min(step_seconds(256, 0) for _ in range(2))
    long = min(step_seconds(32_000, 2000) for _ in range(2))
    assert long < 0.001
    assert long < 4 * short
