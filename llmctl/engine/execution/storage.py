"""The tensors in which layers keep keys and values, in blocks: allocate, write, copy and gather.

Which block is whose is the business of `blocks`. Shapes as in `attention.interface`.
"""

import ctypes
import functools
import math
import mmap
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmctl.core.errors import DoesNotFitError
from llmctl.engine.attention.interface import KVLayer, Reach

_MIB = 1 << 20


class PolicyGroup(Protocol):
    """Layers with one policy (`policy.Group`)."""

    @property
    def policy(self) -> Reach:
        """Of all of them."""

    @property
    def layers(self) -> Sequence[int]:
        """Their numbers in the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KVShape:
    """Sizes of what one layer keeps of one token."""

    num_heads: int
    """Hk."""
    key_size: int
    """D."""
    value_size: int
    """Dv."""

    def num_bytes(self, dtype: torch.dtype) -> int:
        """Of one token."""
        return self.num_heads * (self.key_size + self.value_size) * dtype.itemsize


def block_bytes(
    group: PolicyGroup, shapes: Mapping[int, KVShape], block_size: int, dtype: torch.dtype
) -> int:
    """Memory of one block of `group` in all its layers; `shapes` by number of the layer.

    Layers without a shape (recurrent ones, those that read another layer's) count nothing.
    """
    return sum(block_size * shapes[layer].num_bytes(dtype) for layer in group.layers if layer in shapes)


def allocate(
    groups: Sequence[PolicyGroup],
    shapes: Mapping[int, KVShape],
    num_blocks: Sequence[int],
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[int, KVLayer]:
    """Storage of every layer that has a shape, by number of the layer.

    `num_blocks` by number of the group; `block_size` is a power of two. On the CPU anything may lie there,
    and the system gives memory to a block when it is first written. Raises `DoesNotFitError`.
    """
    if block_size < 1 or block_size & (block_size - 1):
        raise ValueError(f"block_size must be a power of two, not {block_size}")
    layers = {}
    for number, (group, count) in enumerate(zip(groups, num_blocks, strict=True)):
        for index in group.layers:
            if (shape := shapes.get(index)) is not None:
                head = (count, shape.num_heads, block_size)
                keys = _empty((*head, shape.key_size), dtype, device)
                values = _empty((*head, shape.value_size), dtype, device)
                layers[index] = KVLayer(keys, values, group.policy, number)
    return layers


def _empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kernels of others multiply what they then mask: it must be numbers.
    make = torch.empty if device.type == "cpu" else torch.zeros
    try:
        return make(shape, dtype=dtype, device=device)
    except RuntimeError as error:
        num_bytes = math.prod(shape) * dtype.itemsize
        raise DoesNotFitError(
            f"{shape[0]} blocks of keys or values take {num_bytes // _MIB} MiB in one layer, "
            f"which {device} does not give",
            hint="allow less memory for keys and values, or a shorter context",
        ) from error


def write(layer: KVLayer, k: Tensor, v: Tensor, slots: Tensor) -> None:
    """Put k [Hk, T, D] and v [Hk, T, Dv] of new tokens where `slots` [T] says (`GroupTables.slots`)."""
    block_size = layer.keys.shape[2]
    places = (slots // block_size, slots % block_size)
    for kept, new in ((layer.keys, k), (layer.values, v)):
        kept.transpose(1, 2).index_put_(places, new.transpose(0, 1).to(kept.dtype))


def gather(layer: KVLayer, table: Tensor, first: int, stop: int) -> tuple[Tensor, Tensor]:
    """Keys [Hk, L, D] and values [Hk, L, Dv] at positions `first` to `stop` of the sequence with `table`.

    `table` is one row of `GroupTables.tables`. The tokens lie side by side, but heads may not.
    """
    block_size = layer.keys.shape[2]
    column = first // block_size
    blocks = table[column : -(-stop // block_size)]
    skipped = first - column * block_size
    places = slice(skipped, skipped + stop - first)
    keys, values = (
        kept.transpose(0, 1).index_select(1, blocks).flatten(1, 2)[:, places]
        for kept in (layer.keys, layer.values)
    )
    return keys, values


def discard(layers: Iterable[KVLayer], blocks: Sequence[tuple[int, int]]) -> None:
    """Give the memory of blocks, given as (group, block), back to the system, where it can take it.

    What they hold is lost; they may be written again.
    """
    if not blocks or (give_back := _give_back()) is None:
        return
    for layer in layers:
        for kept in (layer.keys, layer.values):
            size = kept[0].nbytes
            for group, block in blocks:
                if group == layer.group:
                    first = kept.data_ptr() + block * size
                    start, stop = -(-first // mmap.PAGESIZE), (first + size) // mmap.PAGESIZE
                    if start < stop:
                        give_back(start * mmap.PAGESIZE, (stop - start) * mmap.PAGESIZE, mmap.MADV_DONTNEED)


@functools.cache
def _give_back() -> Callable[[int, int, int], int] | None:
    """The system's `madvise`, where it frees pages that nobody needs any more at once."""
    if sys.platform != "linux":
        return None
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    found: Callable[[int, int, int], int] = madvise
    return found


def copy(layers: Iterable[KVLayer], copies: Sequence[tuple[int, int, int]]) -> None:
    """Copy blocks, given as (group, from, to), in all layers of their groups. No block is both."""
    if not copies:
        return
    for layer in layers:
        pairs = [(source, target) for group, source, target in copies if group == layer.group]
        if pairs:
            sources, targets = torch.tensor(pairs, device=layer.keys.device).unbind(1)
            for kept in (layer.keys, layer.values):
                kept.index_copy_(0, targets, kept.index_select(0, sources))
