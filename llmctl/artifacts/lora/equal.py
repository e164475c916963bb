"""Whether two tensors of checkpoints are the same numbers, read a piece at a time."""

from collections.abc import Iterator

import torch

from llmctl.artifacts.lora.bases import FLOATS
from llmctl.artifacts.stream.source import Source

_PIECE_BYTES = 32 << 20


def is_equal(base: Source, name: str, target: Source, other_name: str) -> bool:
    """Whether `name` of `base` is `other_name` of `target`, whatever floating type each is kept in."""
    one, other = base.entry(name), target.entry(other_name)
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        if one.shape != other.shape or one.dtype not in FLOATS or other.dtype not in FLOATS:
            return False
        return bool((base.read(name).float() == target.read(other_name).float()).all())
    return all(
        torch.equal(base.read_bytes(name, start, end), target.read_bytes(other_name, start, end))
        for start, end in _pieces(one.num_bytes)
    )


def _pieces(num_bytes: int) -> Iterator[tuple[int, int]]:
    for start in range(0, num_bytes, _PIECE_BYTES):
        yield start, min(start + _PIECE_BYTES, num_bytes)
