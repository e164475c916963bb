"""Quantised weights through the operations of transformers' weight conversion."""

import pytest
import torch
from torch import Tensor

from llmctl.quant.carried import Carried
from llmctl.quant.weights import CodedWeight, IntWeight, QuantWeight, join, pack4, unpack4


def int_weight(bits: int = 4, *, has_zero: bool = True, permutation: Tensor | None = None) -> IntWeight:
    if bits == 4:
        values, zero = pack4(torch.randint(0, 16, (4, 16))), torch.randint(0, 17, (4, 2)).short()
    else:
        values, zero = torch.randint(-128, 128, (4, 16)).to(torch.int8), torch.randint(-9, 9, (4, 2)).short()
    return IntWeight(
        bits=bits,
        values=values,
        scale=torch.rand(4, 2),
        zero=zero if has_zero else None,
        permutation=permutation,
    )


def coded_weight() -> CodedWeight:
    codes = torch.randint(0, 256, (64,)).to(torch.uint8)
    table = torch.linspace(-1, 1, 16)
    return CodedWeight(
        kind="nf4", codes=codes, absmax=torch.rand(2), table=table, block_size=64, shape=(4, 32)
    )


def dense_of(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, Carried)
    return tensor.weight.dequantize()


KINDS = {
    "int4": lambda: int_weight(4),
    "int8": lambda: int_weight(8),
    "symmetric": lambda: int_weight(4, has_zero=False),
    "act-order": lambda: int_weight(4, permutation=torch.tensor([*range(15, -1, -1)])),
    "coded": coded_weight,
}


@pytest.mark.parametrize("kind", KINDS)
def test_experts_are_stacked_and_laid_side_by_side(kind: str) -> None:
    weights: list[QuantWeight] = [KINDS[kind]() for _ in range(4)]
    carried = [Carried.of(each, torch.bfloat16) for each in weights]
    stacks = torch.stack(carried[:2], dim=0), torch.stack(carried[2:], dim=0)
    merged = torch.cat(stacks, dim=1)
    dense = [each.dequantize() for each in weights]
    want = torch.cat((torch.stack(dense[:2]), torch.stack(dense[2:])), dim=1)
    assert merged.shape == want.shape
    assert torch.equal(dense_of(merged), want)
    assert isinstance(merged, Carried)
    assert torch.equal(merged.weight.expert(1).dequantize(), want[1])


def test_rows_of_different_act_orders_become_dense() -> None:
    first, second = int_weight(permutation=torch.arange(16)), int_weight(permutation=torch.arange(15, -1, -1))
    carried = [Carried.of(each, torch.float32) for each in (first, second)]
    merged = torch.cat(carried, dim=0)
    assert not isinstance(merged, Carried)
    assert torch.equal(merged, torch.cat((first.dequantize(), second.dequantize())))
    # As experts of their own each keeps its order.
    assert torch.equal(dense_of(torch.stack(carried)), torch.stack((first.dequantize(), second.dequantize())))


def test_any_other_operation_gets_the_dense_weight() -> None:
    weight = int_weight()
    carried = Carried.of(weight, torch.float32)
    assert torch.equal(carried.t(), weight.dequantize().t())
    assert torch.equal(torch.chunk(carried, 2)[1], weight.dequantize()[2:])


def test_a_move_keeps_the_weight_and_looks_cost_nothing() -> None:
    carried = Carried.of(int_weight(), torch.bfloat16)
    moved = carried.to(device="cpu", dtype=torch.float32)
    assert isinstance(moved, Carried)
    assert (moved.shape, moved.dtype, moved.ndim) == ((4, 16), torch.bfloat16, 2)
    assert torch.equal(dense_of(moved), dense_of(carried))


def test_weights_of_different_kinds_do_not_join() -> None:
    assert join([int_weight(4), int_weight(8)], 0, is_new=True) is None
    assert join([int_weight(4), int_weight(4, has_zero=False)], 0, is_new=True) is None
    assert join([int_weight(4), coded_weight()], 0, is_new=True) is None


def test_packing_two_numbers_to_a_byte_loses_nothing() -> None:
    numbers = torch.randint(0, 16, (3, 5, 8))
    packed = pack4(numbers)
    assert packed.shape == (3, 5, 4)
    assert torch.equal(unpack4(packed), numbers.to(torch.int8))
    assert packed[0, 0, 0] == numbers[0, 0, 0] + 16 * numbers[0, 0, 1]
