"""How much of a sequence the prefix cache serves, compared with the definition of what must be there."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.engine.scheduling.blocks import BlockPool
from llmctl.engine.scheduling.limits import Limits
from llmctl.engine.scheduling.policy import LayerPolicy, first_needed
from llmctl.engine.scheduling.prefix import PrefixCache
from llmctl.engine.scheduling.sequence import Sequence
from llmctl.engine.scheduling.tables import Tables
from tests.engine.memory import FULL, chunked, sliding

POLICY = st.one_of(
    st.just(FULL), st.builds(sliding, st.integers(1, 20)), st.builds(chunked, st.integers(1, 20))
)


def computed(tables: Tables, ids: list[int], salt: tuple[str | int, ...] = ()) -> Sequence:
    """A sequence that has been computed, and has let go of its blocks."""
    sequence = Sequence(id="a", ids=ids, salt=salt)
    tables.start(sequence)
    tables.extend(sequence, len(ids))
    tables.advance(sequence, len(ids))
    tables.release(sequence)
    return sequence


def over(*policies: LayerPolicy, block_size: int = 4) -> Tables:
    limits = Limits(max_length=1000, block_size=block_size)
    return Tables(BlockPool([1] * len(policies), 1000), policies, limits)


@settings(deadline=None)
@given(data=st.data(), policies=st.lists(POLICY, min_size=1, max_size=3))
def test_a_hit_is_the_longest_prefix_behind_which_every_layer_finds_what_it_sees(
    data: st.DataObject, policies: list[LayerPolicy]
) -> None:
    size = data.draw(st.sampled_from([1, 2, 4]))
    sequence = Sequence(id="a", ids=data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=40)))
    pool = BlockPool([1] * len(policies), 1000)
    cache = PrefixCache(pool, policies, size)
    num_blocks = len(sequence.ids) // size
    mostly = st.sampled_from([True, True, True, False])
    present = [data.draw(st.lists(mostly, min_size=num_blocks, max_size=num_blocks)) for _ in policies]
    sequence.tables = [
        [pool.allocate(group) if is_there else -1 for is_there in some] for group, some in enumerate(present)
    ]
    cache.register(sequence, 0, num_blocks)

    def is_served(count: int) -> bool:
        return all(
            some[position // size]
            for policy, some in zip(policies, present, strict=True)
            for position in range(first_needed(policy, count * size), count * size)
        )

    longest = max(count for count in range((len(sequence.ids) - 1) // size + 1) if is_served(count))
    assert cache.num_served(Sequence(id="b", ids=list(sequence.ids))) == longest


def test_the_last_token_is_always_left_to_compute() -> None:
    tables = over(FULL)
    computed(tables, list(range(12)))
    assert [tables.num_served(Sequence(id="b", ids=list(range(length)))) for length in (11, 12, 13)] == [
        2,
        2,
        3,
    ]


def test_only_what_is_equal_from_the_beginning_is_served() -> None:
    tables = over(FULL)
    computed(tables, list(range(16)))
    changed = [0, 99, *range(2, 16)]
    assert tables.num_served(Sequence(id="b", ids=changed)) == 0
    assert tables.num_served(Sequence(id="c", ids=[*range(8), 99, *range(9, 16)])) == 2
    assert tables.num_served(Sequence(id="d", ids=list(range(4, 16)))) == 0


def test_a_salt_keeps_equal_texts_apart() -> None:
    tables = over(FULL)
    computed(tables, [1] * 9, salt=("adapter", 1))
    served = {
        salt: tables.num_served(Sequence(id="b", ids=[1] * 9, salt=salt))
        for salt in [("adapter", 1), ("adapter", 2), (), ("adapter", "1"), ("adapter1",)]
    }
    assert served == {("adapter", 1): 2, ("adapter", 2): 0, (): 0, ("adapter", "1"): 0, ("adapter1",): 0}


def test_a_sequence_that_wants_all_of_its_rows_is_served_nothing() -> None:
    tables = over(FULL)
    computed(tables, [1] * 9)
    assert tables.num_served(Sequence(id="b", ids=[1] * 9, wants_prompt=True)) == 0


def test_blocks_behind_window_and_chunk_are_not_asked_for() -> None:
    tables = over(sliding(4), chunked(8), FULL)
    computed(tables, list(range(17)))
    # 16 tokens are found: three of them the window sees, and the chunk begins anew.
    other = Sequence(id="b", ids=[*range(16), 99])
    tables.start(other)
    assert other.num_computed == 16
    assert [[each >= 0 for each in table] for table in other.tables] == [
        [False, False, False, True],
        [False, False, False, False],
        [True, True, True, True],
    ]
    assert tables.num_held(other) == [1, 0, 4]


def test_without_layers_that_keep_blocks_nothing_is_served() -> None:
    tables = over()
    assert tables.num_served(Sequence(id="a", ids=[1] * 50)) == 0
