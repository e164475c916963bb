"""The context length of configs as their makers write them."""

from typing import Any

import pytest

from llmctl.loading.facts.context import DEFAULT, context_length

LLAMA_31 = {
    "max_position_embeddings": 131072,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}


@pytest.mark.parametrize(
    ("config", "want"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        # Each of the names that makers use, and the order among them.
        ({"max_sequence_length": 2048}, 2048),
        ({"seq_length": 8192}, 8192),
        ({"max_seq_len": 2048}, 2048),
        ({"n_positions": 1024, "n_ctx": 512}, 1024),
        ({"n_ctx": 1024}, 1024),
        ({"model_max_length": 4096}, 4096),
        ({"max_position_embeddings": 100, "n_positions": 200}, 100),
        # Lengths that are the scaled ones already.
        (LLAMA_31, 131072),
        ({"max_position_embeddings": 65536, "original_max_position_embeddings": 4096}, 65536),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 32768,
                },
            },
            32768,
        ),
        # Lengths that the factor multiplies, in the old and the new spelling.
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4.0}}, 8192),
        ({"max_position_embeddings": 2048, "rope_scaling": {"rope_type": "dynamic", "factor": 2}}, 4096),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "yarn", "factor": 1.5}}, 3072),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 0.5}}, 2048),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear"}}, 2048),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default"}}, 2048),
        ({"max_position_embeddings": 2048, "rope_scaling": None}, 2048),
        # Models of text and pictures.
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"max_position_embeddings": 77, "text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"max_position_embeddings": 8192, "text_config": {}}, 8192),
        # Nothing said, and nonsense.
        ({}, DEFAULT),
        ({"max_position_embeddings": -1}, DEFAULT),
        ({"max_position_embeddings": 0, "n_positions": 512}, 512),
        ({"max_position_embeddings": "4096"}, DEFAULT),
        ({"max_position_embeddings": None}, DEFAULT),
        ({"max_position_embeddings": True}, DEFAULT),
        ({"max_position_embeddings": 10**30}, DEFAULT),
        ({"max_position_embeddings": 2048, "rope_scaling": "linear"}, 2048),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": "4"}}, 2048),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": float("nan")}}, 2048),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": float("inf")}}, 2048),
        ({"max_position_embeddings": 2048, "text_config": "none"}, 2048),
        # One set of rope parameters for each kind of layer, as in Gemma 3.
        (
            {
                "max_position_embeddings": 2048,
                "rope_parameters": {
                    "full_attention": {"rope_type": "default"},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            2048,
        ),
    ],
)
def test_the_context_is_what_the_config_means(config: dict[str, Any], want: int) -> None:
    assert context_length(config) == want


@pytest.mark.parametrize(
    ("limit", "want"), [(512, 512), (10**30, DEFAULT), (0, DEFAULT), (-1, DEFAULT), (None, DEFAULT)]
)
def test_a_config_without_a_length_leaves_it_to_the_tokenizer(limit: int | None, want: int) -> None:
    assert context_length({}, tokenizer_limit=limit) == want


def test_the_config_counts_more_than_the_tokenizer() -> None:
    assert context_length({"max_position_embeddings": 4096}, tokenizer_limit=512) == 4096


@pytest.mark.parametrize("limit", [10**30, int(1e30), 2048])
def test_the_answer_is_a_whole_number(limit: int) -> None:
    assert type(context_length({}, tokenizer_limit=limit)) is int
