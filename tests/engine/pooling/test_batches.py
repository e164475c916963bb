"""Batches hold every input once and keep to their budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.engine.pooling import batches
from llmctl.engine.pooling.batches import Plan

LENGTHS = st.lists(st.integers(1, 40), max_size=60)
BUDGETS = st.integers(1, 100)
PLANS = (batches.packed, batches.padded, batches.equal, batches.single)


@pytest.mark.parametrize("plan", PLANS)
@given(lengths=LENGTHS, budget=BUDGETS)
def test_every_index_is_in_one_batch(plan: Plan, lengths: list[int], budget: int) -> None:
    found = plan(lengths, budget)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    assert all(found)


@given(lengths=LENGTHS, budget=BUDGETS)
def test_packed_batches_add_up_to_no_more_than_the_budget(lengths: list[int], budget: int) -> None:
    for batch in batches.packed(lengths, budget):
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= budget


@given(lengths=LENGTHS, budget=BUDGETS)
def test_padded_batches_count_the_padding(lengths: list[int], budget: int) -> None:
    for batch in batches.padded(lengths, budget):
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget


@given(lengths=LENGTHS, budget=BUDGETS)
def test_equal_batches_have_one_length(lengths: list[int], budget: int) -> None:
    for batch in batches.equal(lengths, budget):
        assert len({lengths[index] for index in batch}) == 1
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= budget


def test_texts_of_like_length_share_a_batch() -> None:
    assert batches.padded([1, 30, 2, 29], 60) == [[1, 3], [2, 0]]
    assert batches.packed([1, 30, 2, 29], 60) == [[1, 3], [2, 0]]
    assert batches.equal([1, 2, 1, 1], 2) == [[1], [0, 2], [3]]
    assert batches.single([5, 5], 100) == [[0], [1]]
