"""Blocks of keys and values: allocated, written, copied, gathered."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import pytest
import torch

from llmctl.core.errors import DoesNotFitError
from llmctl.engine.attention.interface import KVLayer
from llmctl.engine.execution import storage
from llmctl.engine.execution.storage import KVShape
from tests.engine.attention.made import Policy

CPU = torch.device("cpu")
SHAPE = KVShape(num_heads=2, key_size=6, value_size=4)


@dataclass(frozen=True)
class Group:
    """As `policy.Group`."""

    policy: Policy
    layers: Sequence[int]


GROUPS = (Group(Policy(), (0, 3)), Group(Policy(window=8), (1, 2, 4)))


def layer_of(num_blocks: int = 5, block_size: int = 4) -> KVLayer:
    (layer,) = storage.allocate(
        [Group(Policy(), (0,))], {0: SHAPE}, [num_blocks], block_size, torch.float32, CPU
    ).values()
    layer.keys.zero_()
    layer.values.zero_()
    return layer


def test_each_layer_has_the_blocks_of_its_group() -> None:
    shapes = dict.fromkeys((0, 1, 2, 3), SHAPE)
    layers = storage.allocate(GROUPS, shapes, [3, 7], 8, torch.bfloat16, CPU)
    assert sorted(layers) == [0, 1, 2, 3]
    assert [layers[index].group for index in range(4)] == [0, 1, 1, 0]
    assert layers[1].policy == Policy(window=8)
    assert layers[3].keys.shape == (3, 2, 8, 6)
    assert layers[2].values.shape == (7, 2, 8, 4)
    assert layers[2].values.dtype == torch.bfloat16


def test_a_block_counts_all_layers_that_keep_something() -> None:
    shapes = dict.fromkeys((0, 1, 2, 3), SHAPE)
    sizes = [storage.block_bytes(group, shapes, 8, torch.bfloat16) for group in GROUPS]
    assert sizes == [2 * 8 * 2 * 10 * 2, 2 * 8 * 2 * 10 * 2]
    layers = storage.allocate(GROUPS, shapes, [3, 7], 8, torch.bfloat16, CPU)
    assert 3 * sizes[0] == sum(layers[index].keys.nbytes + layers[index].values.nbytes for index in (0, 3))


def test_blocks_that_nobody_wrote_take_no_memory() -> None:
    shape, process = KVShape(num_heads=8, key_size=128, value_size=128), psutil.Process()
    before = process.memory_info().rss
    layers = storage.allocate([Group(Policy(), (0,))], {0: shape}, [4096], 32, torch.float32, CPU)
    assert layers[0].keys.nbytes == 512 << 20
    assert process.memory_info().rss - before < 64 << 20


@pytest.mark.parametrize("block_size", [0, 3, 12])
def test_block_sizes_are_powers_of_two(block_size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        storage.allocate(GROUPS, {0: SHAPE}, [1, 1], block_size, torch.float32, CPU)


def test_more_than_the_device_has_is_refused() -> None:
    with pytest.raises(DoesNotFitError, match="in one layer"):
        storage.allocate(GROUPS, {0: SHAPE}, [1 << 50, 1], 32, torch.float32, CPU)


@pytest.mark.parametrize("block_size", [1, 4])
def test_what_was_written_is_gathered(block_size: int) -> None:
    layer = layer_of(20 // block_size, block_size)
    k, v = torch.randn(7, 2, 6).transpose(0, 1), torch.randn(7, 2, 4).transpose(0, 1)
    table = torch.randperm(20 // block_size)[: -(-11 // block_size)].int()
    positions = torch.arange(4, 11)
    slots = table[positions // block_size].long() * block_size + positions % block_size
    storage.write(layer, k, v, slots)
    for first, stop in ((4, 11), (5, 6), (6, 10)):
        keys, values = storage.gather(layer, table, first, stop)
        assert torch.equal(keys, k[:, first - 4 : stop - 4])
        assert torch.equal(values, v[:, first - 4 : stop - 4])
    assert layer.keys.count_nonzero() == k.count_nonzero()


def test_copies_happen_in_all_layers_of_the_group_and_no_other() -> None:
    layers = storage.allocate(GROUPS, dict.fromkeys(range(5), SHAPE), [4, 4], 4, torch.float32, CPU)
    for layer in layers.values():
        layer.keys.normal_()
        layer.values.normal_()
    before = {index: (layer.keys.clone(), layer.values.clone()) for index, layer in layers.items()}
    storage.copy(layers.values(), [(1, 0, 3), (1, 2, 1)])
    for index, layer in layers.items():
        order = [0, 2, 2, 0] if layer.group == 1 else [0, 1, 2, 3]
        assert torch.equal(layer.keys, before[index][0][order])
        assert torch.equal(layer.values, before[index][1][order])
    storage.copy(layers.values(), [])
