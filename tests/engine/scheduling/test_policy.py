"""What layers keep, read from configs of every kind, and how much of it a sequence needs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.engine.scheduling.policy import Group, LayerPolicy, first_needed, groups, most_blocks, policies
from tests.engine.memory import FULL, chunked, sliding

RECURRENT, NONE = LayerPolicy("recurrent"), LayerPolicy("none")
LOCAL = st.one_of(st.builds(sliding, st.integers(1, 40)), st.builds(chunked, st.integers(1, 40)))


def shared(source: int) -> LayerPolicy:
    return LayerPolicy("shared", source=source)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_hidden_layers": 2}, [FULL, FULL]),
        ({"num_hidden_layers": 2, "model_type": "mistral", "sliding_window": 8}, [sliding(8)] * 2),
        ({"num_hidden_layers": 2, "sliding_window": 8, "use_sliding_window": False}, [FULL, FULL]),
        ({"num_hidden_layers": 2, "sliding_window": None}, [FULL, FULL]),
        (
            {"num_hidden_layers": 2, "sliding_window": 8, "layer_types": ["full_attention"] * 2},
            [FULL, FULL],
        ),
        (
            {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
            [FULL, FULL],
        ),
        (
            {
                "num_hidden_layers": 2,
                "layer_types": ["chunked_attention", "full_attention"],
                "attention_chunk_size": 16,
                "sliding_window": 4,
            },
            [chunked(16), FULL],
        ),
        (
            {"num_hidden_layers": 4, "attention_chunk_size": 16, "no_rope_layers": [1, 1, 1, 0]},
            [chunked(16)] * 3 + [FULL],
        ),
        (
            {"text_config": {"num_hidden_layers": 4, "attention_chunk_size": 16}, "vision_config": {}},
            [chunked(16)] * 3 + [FULL],
        ),
        (
            {
                "num_hidden_layers": 6,
                "layer_types": ["sliding_attention", "full_attention"] * 3,
                "sliding_window": 8,
                "num_kv_shared_layers": 2,
            },
            [sliding(8), FULL, sliding(8), FULL, shared(2), shared(3)],
        ),
        # Without a window both kinds see everything, but a layer still reads one of its own kind.
        (
            {
                "num_hidden_layers": 4,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "num_kv_shared_layers": 2,
            },
            [FULL, FULL, shared(0), shared(1)],
        ),
        ({"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}, [RECURRENT, FULL]),
        ({"num_hidden_layers": 2, "model_type": "mamba2"}, [RECURRENT, RECURRENT]),
        ({"num_hidden_layers": 2, "model_type": "falcon_h1"}, [FULL, FULL]),
        (
            {"num_hidden_layers": 2, "layer_types": ["hybrid", "hybrid_sliding"], "sliding_window": 4},
            [FULL, sliding(4)],
        ),
        (
            {
                "num_hidden_layers": 3,
                "block_types": ["recurrent", "recurrent", "attention"],
                "attention_window_size": 8,
            },
            [RECURRENT, RECURRENT, sliding(8)],
        ),
        ({"layers_block_type": ["mamba", "attention", "mlp"]}, [RECURRENT, FULL, NONE]),
        ({"num_layers": 2, "attention_layers": ["global", "local"], "window_size": 8}, [FULL, sliding(8)]),
        ({}, []),
    ],
)
def test_each_layer_keeps_what_its_config_says(config: dict[str, Any], expected: list[LayerPolicy]) -> None:
    assert policies(config) == expected


def test_layers_of_one_policy_share_a_group_and_those_without_blocks_have_none() -> None:
    found = groups([sliding(8), RECURRENT, FULL, sliding(8), shared(2), NONE, sliding(4)])
    assert found == [Group(sliding(8), (0, 3)), Group(FULL, (2,)), Group(sliding(4), (6,))]


@pytest.mark.parametrize(
    ("policy", "num_tokens", "first"),
    [
        (FULL, 100, 0),
        (sliding(4), 7, 4),
        (sliding(4), 3, 0),
        (sliding(1), 7, 7),
        (chunked(8), 13, 8),
        (chunked(8), 8, 8),
        (chunked(8), 7, 0),
    ],
)
def test_a_new_token_needs_what_its_layer_sees(policy: LayerPolicy, num_tokens: int, first: int) -> None:
    assert first_needed(policy, num_tokens) == first


@given(policy=LOCAL, position=st.integers(0, 200))
def test_what_is_needed_is_what_the_mask_shows(policy: LayerPolicy, position: int) -> None:
    def is_seen(other: int) -> bool:
        if policy.window is not None:
            return other > position - policy.window
        assert policy.chunk is not None
        return other // policy.chunk == position // policy.chunk

    assert first_needed(policy, position) == next(filter(is_seen, range(position + 1)))


@given(
    policy=LOCAL,
    steps=st.lists(st.integers(1, 12), max_size=30),
    block_size=st.sampled_from([1, 2, 4, 8]),
)
def test_no_way_through_a_sequence_needs_more_than_the_most_blocks(
    policy: LayerPolicy, steps: list[int], block_size: int
) -> None:
    most = most_blocks(policy, sum(steps), 12, block_size)
    start = 0
    for step in steps:
        held = -(-(start + step) // block_size) - first_needed(policy, start) // block_size
        assert held <= most
        start += step
    reach = policy.window or policy.chunk
    assert reach is not None
    assert most * block_size <= reach + 12 + 2 * block_size, "bounded however long the sequence is"
