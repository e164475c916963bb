"""The arithmetic of FastChat's deltas, to the bit: float16 less float16, float16 plus float16, rounded once.

What goes into such a delta need not come back exactly; the exact format is for that.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llmctl.artifacts.stream import bits
from llmctl.artifacts.stream.config import with_dtype
from llmctl.artifacts.stream.source import Entry, Source
from llmctl.artifacts.stream.writer import Planned
from llmctl.core.errors import BadFileError

DTYPE = "F16"
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
_WHOLE = 0.5
_NUM_COMPARED, _MAX_NUMBERS = 9, 1 << 20
"""Tensors, and numbers of each."""


def planned(name: str, entry: Entry) -> Planned:
    """What a difference or a sum is stored as."""
    is_float = bits.torch_type(entry.dtype, of=name).is_floating_point
    return Planned(name=name, dtype=DTYPE if is_float else entry.dtype, shape=entry.shape)


def subtract(target: Tensor, base: Tensor) -> Tensor:
    """`target` less `base`, whose rows are as many as needed; a tensor of its own."""
    target, base = _halves(target), with_rows(_halves(base), target)
    if target.dtype is torch.bool:
        return target ^ base
    _signed(target).sub_(_signed(base.to(target.dtype)))
    return target


def add(base: Tensor, difference: Tensor) -> Tensor:
    """`base`, with as many rows as there are in `difference`, and `difference` upon it."""
    difference, base = _halves(difference), with_rows(_halves(base), difference)
    if difference.dtype is torch.bool:
        return base ^ difference
    _signed(difference).add_(_signed(base.to(difference.dtype)))
    return difference


def _signed(tensor: Tensor) -> Tensor:
    """The same bits as integers of a type that torch adds; a sum is the same."""
    return tensor.view(_SIGNED.get(tensor.dtype, tensor.dtype))


def with_rows(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` with the rows of `like`: cut, or with rows of zeros behind its own."""
    if tensor.dim() == 0 or tensor.shape[0] == like.shape[0]:
        return tensor
    if tensor.shape[0] > like.shape[0]:
        return tensor[: like.shape[0]]
    padded = torch.zeros_like(like, dtype=tensor.dtype)
    padded[: tensor.shape[0]] = tensor
    return padded


def check_finite(name: str, difference: Tensor) -> None:
    """Raise `BadFileError` for numbers that float16 cannot hold."""
    # The sum is quick, and no number when any of them is none.
    is_suspect = difference.is_floating_point() and not bool(difference.sum(dtype=torch.float32).isfinite())
    if is_suspect and not bool(difference.isfinite().all()):
        raise BadFileError(
            f"{name} has numbers that are too large for float16, in which an add delta is kept",
            hint="take --format exact",
        )


def stored_type(dtype: torch.dtype) -> torch.dtype:
    """In what a difference of such numbers is stored."""
    return torch.float16 if dtype.is_floating_point else dtype


def _halves(tensor: Tensor) -> Tensor:
    return tensor.to(stored_type(tensor.dtype))


def fits(one: Entry, other: Entry) -> bool:
    """Whether two tensors differ in their number of rows at most."""
    has_rows = len(one.shape) == len(other.shape) > 0
    return one.shape == other.shape or (has_rows and one.shape[1:] == other.shape[1:])


def row_notices(pairs: Sequence[tuple[Entry, Entry]], *, of: str) -> list[str]:
    """What is said of tensors, given as (base, other), whose base gets more rows or fewer."""
    found = []
    for base, other in pairs:
        if base.shape != other.shape:
            own, rows = base.shape[0], other.shape[0]
            what = "padded with zeros" if own < rows else "cut"
            found.append(f"{base.name}: the base has {own} rows, the {of} {rows}; the base's are {what}")
    return found


def refuse_whole_model(base: Source, delta: Source) -> None:
    """Raise `BadFileError` when what is said to be a delta is a model that was trained from the base.

    Weights of norms move little in training: of a whole model they hold all of the base's, of a delta none.
    """
    shared = [name for name, entry in delta.entries.items() if _is_compared(entry, base.entries.get(name))]
    vectors = [name for name in shared if len(delta.entries[name].shape) == 1]
    shares = [_share(delta, base, name) for name in (vectors or shared)[:_NUM_COMPARED]]
    if shares and statistics.median(shares) > _WHOLE:
        raise BadFileError(
            f"{delta.name} holds a whole model much like {base.name}, and not differences to add to it",
            hint="a delta is made by llmctl delta make; this can be run as it is",
        )


def _is_compared(entry: Entry, base: Entry | None) -> bool:
    if base is None or not entry.num_bytes or entry.shape != base.shape:
        return False
    return bits.torch_type(entry.dtype, of=entry.name).is_floating_point


def _share(delta: Source, base: Source, name: str) -> float:
    """How much of the base's tensor is in the delta's: 1 when all of it."""
    one, other = _numbers(delta, delta.entries[name]), _numbers(base, base.entries[name])
    count = min(one.numel(), other.numel())
    square = float(other[:count] @ other[:count])
    return float(one[:count] @ other[:count]) / square if square else 0.0


def _numbers(source: Source, entry: Entry) -> Tensor:
    dtype = bits.torch_type(entry.dtype, of=entry.name)
    count = min(_MAX_NUMBERS, entry.num_bytes // dtype.itemsize)
    return source.read_bytes(entry.name, 0, count * dtype.itemsize).view(dtype).float()


def tie_notices(config: Mapping[str, object], *, is_made_here: bool) -> list[str]:
    """FastChat goes over a table that is the head too twice, and so wrongly in both directions."""
    if config.get("tie_word_embeddings") is not True:
        return []
    if is_made_here:
        return ["table and head are one tensor, which FastChat would add twice: apply this delta with llmctl"]
    return [
        "table and head are one tensor; if FastChat made this delta, it took the base off twice there, "
        "and the table comes out wrong"
    ]


def config_in_halves(config: Mapping[str, Any]) -> dict[str, Any]:
    """A `config.json` that says float16, under the name that it has for that already."""
    told = with_dtype(config, "float16")
    return told if "dtype" in told or "torch_dtype" in told else {**told, "torch_dtype": "float16"}
