"""The block pool by itself, and tables over it: what is freed behind windows, shared, copied and evicted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.engine.scheduling.blocks import BlockPool
from llmctl.engine.scheduling.limits import Limits
from llmctl.engine.scheduling.policy import LayerPolicy, first_needed
from llmctl.engine.scheduling.sequence import Sequence
from llmctl.engine.scheduling.tables import Tables
from tests.engine.memory import FULL, chunked, sliding

LIMITS = Limits(max_length=10_000, block_size=4)


def tables(*policies: LayerPolicy, budget: int = 10_000, limits: Limits = LIMITS) -> Tables:
    return Tables(BlockPool([1] * len(policies), budget), policies, limits)


def started(made: Tables, num_tokens: int, name: str = "a", token: int = 0) -> Sequence:
    sequence = Sequence(id=name, ids=[token] * num_tokens)
    made.start(sequence)
    return sequence


def compute(made: Tables, sequence: Sequence, count: int) -> None:
    stop = sequence.num_computed + count
    made.extend(sequence, stop)
    made.advance(sequence, stop)


def test_the_budget_is_one_for_all_groups() -> None:
    pool = BlockPool([3, 1], 10)
    assert pool.max_blocks == [3, 10]
    assert pool.can_allocate([2, 4])
    assert not pool.can_allocate([2, 5])
    assert [pool.allocate(0) for _ in range(3)] == [0, 1, 2]
    assert pool.can_allocate([0, 1])
    assert not pool.can_allocate([0, 2])


def test_a_group_of_fixed_size_has_no_more_blocks_than_that() -> None:
    pool = BlockPool([1, 1], 10, [2, 8])
    assert pool.can_allocate([2, 8])
    assert not pool.can_allocate([3, 0])


def test_memory_that_goes_to_another_group_is_named_once() -> None:
    pool = BlockPool([2, 1], 4)
    for block in [pool.allocate(0), pool.allocate(0)]:
        pool.release(0, block)
    assert pool.take_discarded() == []
    for _ in range(3):
        pool.allocate(1)
    assert sorted(pool.take_discarded()) == [(0, 0), (0, 1)]
    assert pool.take_discarded() == []
    assert pool.taken_bytes == 3


def test_a_discarded_block_that_is_wanted_again_at_once_is_not_given_up() -> None:
    pool = BlockPool([1, 1], 1)
    pool.release(0, pool.allocate(0))
    pool.release(1, pool.allocate(1))
    assert pool.allocate(0) == 0
    assert pool.take_discarded() == [(1, 0)]


def test_the_least_recently_used_kept_block_goes_first_whatever_its_group() -> None:
    pool = BlockPool([1, 1], 3)
    for group, key in [(0, b"a"), (1, b"b"), (0, b"c")]:
        pool.register(group, pool.allocate(group), key)
    pool.release(1, 0)
    pool.release(0, 0)
    pool.release(0, 1)
    found = pool.find(1, b"b")
    assert found is not None
    pool.share(1, found)
    pool.release(1, found)
    pool.allocate(1)
    assert pool.find(0, b"a") is None
    assert pool.find(0, b"c") == 1
    assert pool.find(1, b"b") == 0


def test_the_first_of_two_equal_blocks_keeps_the_key() -> None:
    pool = BlockPool([1], 9)
    first, second = pool.allocate(0), pool.allocate(0)
    pool.register(0, first, b"k")
    pool.register(0, second, b"k")
    pool.release(0, second)
    assert pool.find(0, b"k") == first
    assert (pool.num_used(0), pool.num_kept(0)) == (1, 0)


def test_a_block_is_not_released_twice() -> None:
    pool = BlockPool([1], 9)
    block = pool.allocate(0)
    pool.release(0, block)
    with pytest.raises(AssertionError, match="block 0 of group 0 is released twice"):
        pool.release(0, block)


@settings(deadline=None)
@given(
    local=st.one_of(st.builds(sliding, st.integers(1, 30)), st.builds(chunked, st.integers(1, 30))),
    steps=st.lists(st.integers(1, 20), min_size=1, max_size=30),
    block_size=st.sampled_from([1, 2, 4, 8, 16]),
)
def test_memory_behind_window_and_chunk_is_free_as_soon_as_it_is_not_seen(
    local: LayerPolicy, steps: list[int], block_size: int
) -> None:
    limits = Limits(max_length=10_000, block_size=block_size, caches_prefixes=False)
    made = tables(local, FULL, limits=limits)
    sequence = started(made, sum(steps))
    for step in steps:
        compute(made, sequence, step)
        num_computed = sequence.num_computed
        whole = -(-num_computed // block_size)
        seen = whole - first_needed(local, num_computed) // block_size
        assert [made.pool.num_used(0), made.pool.num_used(1)] == [seen, whole] == made.num_held(sequence)
    made.release(sequence)
    assert made.pool.used_bytes == 0


def test_samples_share_all_blocks_and_copy_the_last_one_only_when_they_write() -> None:
    made = tables(FULL, sliding(5))
    source = started(made, 10)
    compute(made, source, 10)
    others = [Sequence(id=name, ids=list(source.ids)) for name in "bc"]
    for other in others:
        made.fork(source, other)
    assert [made.pool.num_used(0), made.pool.num_used(1)] == [3, 2]
    copies = []
    for sequence in (source, *others):
        missing = made.num_missing(sequence, 11)
        assert missing is not None
        assert missing == [1, 1] if sequence is not others[1] else missing == [0, 0]
        copies.append(made.extend(sequence, 11))
    # The last one is alone by then.
    assert [[(each.group, each.source) for each in some] for some in copies] == [[(0, 2), (1, 2)]] * 2 + [[]]
    assert [made.pool.num_used(0), made.pool.num_used(1)] == [5, 4]


def test_samples_of_full_blocks_copy_nothing() -> None:
    made = tables(FULL)
    source = started(made, 8)
    compute(made, source, 8)
    other = Sequence(id="b", ids=list(source.ids))
    made.fork(source, other)
    assert made.num_missing(other, 9) == [1]
    assert made.extend(other, 9) == []
    assert other.tables[0][:2] == source.tables[0]


def test_the_end_of_a_text_is_evicted_before_its_beginning() -> None:
    made = tables(FULL, budget=4)
    first = started(made, 12)
    compute(made, first, 12)
    made.release(first)
    compute(made, other := started(made, 8, token=1), 8)
    assert other.num_computed == 8
    assert made.num_served(Sequence(id="c", ids=[0] * 12)) == 2
