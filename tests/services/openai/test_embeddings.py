"""Vectors as numbers and as base64."""

import base64
import struct
from typing import Any

import pytest

from llmctl.services.openai import reading
from llmctl.services.openai.answers import Embeddings
from llmctl.services.openai.embeddings import Vector, embedding_answer

ROW = [0.5, -1.25, 3.0]
PACKED = struct.pack("<3f", *ROW)


def answered(*vectors: Vector, **fields: Any) -> dict[str, Any]:
    call = reading.embedding_call({"model": "m", "input": ["x"] * len(vectors), **fields})
    answer = embedding_answer(call, vectors, model="m", num_tokens=7)
    Embeddings.model_validate(answer)
    return answer


@pytest.mark.parametrize("vector", [ROW, PACKED])
def test_a_vector_is_a_list_of_numbers(vector: Vector) -> None:
    assert answered(vector) == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": ROW}],
        "model": "m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


@pytest.mark.parametrize("vector", [ROW, PACKED])
def test_a_vector_is_base64_of_little_endian_float32(vector: Vector) -> None:
    (entry,) = answered(vector, encoding_format="base64")["data"]
    assert base64.b64decode(entry["embedding"]) == PACKED


def test_vectors_are_in_the_order_of_the_inputs() -> None:
    assert [each["embedding"] for each in answered([1.0], [2.0])["data"]] == [[1.0], [2.0]]
    assert [each["index"] for each in answered([1.0], [2.0])["data"]] == [0, 1]
