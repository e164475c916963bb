"""Answers of `/v1/embeddings`, from plain lists or from bytes; no numpy."""

import base64
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from llmctl.services.openai.calls import EmbeddingCall

Vector = Sequence[float] | bytes
"""Numbers, or the bytes of little-endian float32."""


def embedding_answer(
    call: EmbeddingCall, vectors: Iterable[Vector], *, model: str, num_tokens: int
) -> dict[str, Any]:
    """The whole answer; `vectors` are those of the inputs, in their order."""
    write = _base64 if call.is_base64 else _numbers
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": write(vector)}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def _base64(vector: Vector) -> str:
    return base64.b64encode(
        vector if isinstance(vector, bytes) else _little(array("f", vector)).tobytes()
    ).decode()


def _numbers(vector: Vector) -> list[float]:
    return _little(array("f", vector)).tolist() if isinstance(vector, bytes) else list(vector)


def _little(numbers: "array[float]") -> "array[float]":
    """`numbers` between this machine's order of bytes and the little-endian one."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
