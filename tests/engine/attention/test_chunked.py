"""Spans cut at chunks see what a mask says, whatever the chunk, the block and the start."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llmctl.engine.attention.chunked import Cuts, Piece, cut, local_tables
from llmctl.engine.attention.reference import visible
from llmctl.engine.execution.step import Span
from tests.engine.attention.made import Policy, step_of


def seen_by_pieces(span: Span, pieces: list[Piece]) -> Tensor:
    """bool [count, length]: what a causal kernel shows when it is given each piece as a sequence."""
    seen = torch.zeros(span.count, span.length, dtype=torch.bool)
    for piece in pieces:
        keys = piece.length - piece.origin
        causal = torch.ones(piece.count, keys, dtype=torch.bool).tril_(keys - piece.count)
        row = piece.row - span.row
        seen[row : row + piece.count, piece.origin : piece.length] |= causal
    return seen


@given(st.integers(1, 60), st.integers(0, 150), st.integers(1, 150), st.integers(0, 9))
def test_pieces_see_what_the_mask_says(chunk: int, start: int, count: int, row: int) -> None:
    span, policy = Span(row=row, count=count, start=start), Policy(chunk=chunk)
    pieces = list(cut(span, 0, policy))
    expected = visible(policy, torch.arange(start, span.length), torch.arange(span.length))
    assert torch.equal(seen_by_pieces(span, pieces), expected)


def test_five_thousand_random_spans_see_what_brute_force_says() -> None:
    chance = random.Random(0)
    for _ in range(5000):
        chunk, start, count = chance.randint(1, 40), chance.randint(0, 90), chance.randint(1, 40)
        span = Span(row=3, count=count, start=start)
        queries, keys = torch.arange(start, start + count)[:, None], torch.arange(start + count)[None]
        same_chunk = torch.div(queries, chunk, rounding_mode="floor") == torch.div(
            keys, chunk, rounding_mode="floor"
        )
        pieces = list(cut(span, 0, Policy(chunk=chunk)))
        assert torch.equal(seen_by_pieces(span, pieces), same_chunk & (keys <= queries)), (chunk, span)
        assert sum(piece.count for piece in pieces) == count
        assert all(piece.length - piece.origin <= chunk for piece in pieces)


@pytest.mark.parametrize("policy", [Policy(), Policy(window=3)])
def test_without_chunks_a_span_is_one_piece(policy: Policy) -> None:
    (piece,) = cut(Span(row=4, count=5, start=7), 2, policy)
    assert (piece.sequence, piece.row, piece.count, piece.start) == (2, 4, 5, 7)


def test_a_token_in_a_long_context_is_one_piece_however_long() -> None:
    for start in (10, 10_000, 10_000_000):
        assert len(list(cut(Span(row=0, count=1, start=start), 0, Policy(chunk=8)))) == 1


@given(
    st.lists(st.tuples(st.integers(0, 70), st.integers(1, 50)), min_size=1, max_size=6),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 9),
)
def test_tables_of_pieces_are_the_pieces(
    spans: list[tuple[int, int]], block_size: int, blocks_in_chunk: int
) -> None:
    chunk = block_size * blocks_in_chunk
    policy = Policy(chunk=chunk)
    step = step_of(spans, policy, block_size)
    pieces = Cuts().pieces(step, policy)
    made = local_tables(step, 0, chunk)
    assert made.rows.tolist() == [0, *(piece.row + piece.count for piece in pieces)]
    assert made.lengths.tolist() == [piece.length - piece.origin for piece in pieces]
    assert made.max_count >= max(piece.count for piece in pieces)
    assert made.tables.shape == (len(pieces), blocks_in_chunk)
    for piece, table in zip(pieces, made.tables, strict=True):
        first, stop = piece.origin // block_size, -(-piece.length // block_size)
        assert torch.equal(table[: stop - first], step.groups[0].tables[piece.sequence, first:stop])


def test_tables_cannot_begin_inside_a_block() -> None:
    with pytest.raises(ValueError, match="blocks of 8 tokens do not fit chunks of 12"):
        local_tables(step_of([(0, 3)], Policy(chunk=12), 8), 0, 12)


def test_layers_of_a_step_share_what_was_cut() -> None:
    cuts, policy = Cuts(), Policy(chunk=4)
    step, other = (step_of([(2, 9), (5, 1)], policy, 4, seed) for seed in (0, 1))
    pieces, tables = cuts.pieces(step, policy), cuts.local_tables(step, 0, 4)
    assert cuts.pieces(step, Policy(chunk=4)) is pieces
    assert cuts.local_tables(step, 0, 4) is tables
    assert cuts.pieces(step, Policy(chunk=5)) is not pieces
    assert [piece.sequence for piece in cuts.pieces(step, policy, 2)] == [0, 0, 0]
    assert cuts.local_tables(other, 0, 4) is not tables
    assert cuts.pieces(other, policy) is not pieces
