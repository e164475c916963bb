"""The general path: any weight, in tiles, as exact as if it were dense."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmctl.quant import tiles
from llmctl.quant.activations import Memo
from llmctl.quant.weights import QuantWeight
from tests.quant.made import coded_weight, distance, int_weight, reference

WEIGHTS: dict[str, QuantWeight] = {
    "8 bits in groups": int_weight(8, 21, 48, group_size=16, has_zero=True),
    "4 bits, odd groups": int_weight(4, 21, 36, group_size=12, is_permuted=True),
    "codes in blocks over rows": coded_weight(21, 36, block_size=24),
    "codes in blocks longer than rows": coded_weight(21, 24, block_size=64),
    "codes of another table": coded_weight(21, 48, block_size=16, table=torch.linspace(-2, 1, 16)),
    "codes, odd rows": coded_weight(20, 9, block_size=8),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("tile", [1, 200, 1 << 20])
def test_tiles_of_every_size_give_what_the_dense_weight_gives(
    name: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE_ELEMENTS", tile)
    weight = WEIGHTS[name]
    x, bias = torch.randn(2, 3, weight.shape[1]), torch.randn(weight.shape[0])
    kernel = tiles.TileKernel(weight, Memo())
    assert distance(kernel(x, bias), reference(weight, x, bias)) < 1e-6
    assert kernel(x).shape == (2, 3, weight.shape[0])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_a_tile_begins_with_a_block_and_a_byte(num_rows: int, num_columns: int, block_size: int) -> None:
    weight = coded_weight(num_rows, num_columns, block_size=block_size)
    step = tiles.tile_rows(weight)
    assert step * num_columns % block_size == 0
    assert step * num_columns % 2 == 0


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([1, 32, 64]), st.integers(1, 1 << 22))
def test_tiles_of_about_one_size_cover_all_outputs(
    num_outputs: int, num_inputs: int, unit: int, num_elements: int
) -> None:
    step = tiles.even_step(num_outputs, num_inputs, unit, num_elements)
    assert step % unit == 0
    assert step * num_inputs < num_elements + 2 * unit * num_inputs
    assert step >= num_outputs or step * (-(-num_outputs // step)) - num_outputs < step


@given(st.integers(2, 30), st.sampled_from([2, 6, 16]), st.sampled_from([1, 2, 7, 16]))
def test_cut_rows_are_the_weights_own(num_rows: int, num_columns: int, block_size: int) -> None:
    weight = coded_weight(num_rows, num_columns, block_size=block_size)
    step = int(torch.tensor(num_columns).lcm(torch.tensor(2 * block_size))) // num_columns
    for start in range(0, num_rows, step):
        part = tiles.cut(weight, start, min(start + step, num_rows))
        assert torch.equal(part.dequantize(), weight.dequantize()[start : start + step])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_floats_are_as_near_as_a_dense_layer_of_theirs(dtype: torch.dtype) -> None:
    weight = WEIGHTS["8 bits in groups"]
    x = torch.randn(5, 48).to(dtype)
    dense = torch.nn.functional.linear(x, weight.dequantize(dtype))
    assert torch.equal(tiles.TileKernel(weight, Memo())(x), dense)
