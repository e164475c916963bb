"""The path that takes every weight on every device: dequantise some rows, multiply, go on to the next ones.

Its memory is bounded by the tile; its time is that of dequantising the weight anew in each call.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from llmctl.quant.activations import Memo, RowKernel
from llmctl.quant.weights import CodedWeight, IntWeight, QuantWeight

TILE_ELEMENTS = 1 << 20
"""Of the weight that are dequantised at a time; in float32, with what lies between, about 16 MB."""


class TileKernel(RowKernel):
    """Multiplies tile by tile of rows, exactly as if the weight were dequantised and dense."""

    title = "dequantised tile by tile"

    def __init__(self, weight: QuantWeight, memo: Memo) -> None:
        permutation = weight.permutation if isinstance(weight, IntWeight) else None
        super().__init__(weight.shape, permutation, memo)
        self.weight = replace(weight, permutation=None) if isinstance(weight, IntWeight) else weight

    @property
    def num_bytes(self) -> int:
        """Memory of the weight's own parts."""
        return self.weight.num_bytes

    def multiply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows [M, K] to [M, N]."""
        return multiply_tiles(
            rows,
            self.num_outputs,
            tile_rows(self.weight),
            lambda start, stop: cut(self.weight, start, stop).dequantize(rows.dtype).t(),
        )


def multiply_tiles(rows: Tensor, num_outputs: int, step: int, dense: Callable[[int, int], Tensor]) -> Tensor:
    """Rows [M, K] to [M, N], `step` outputs at a time; `dense(start, stop)` gives some of [K, N]."""
    if step >= num_outputs:
        return rows @ dense(0, num_outputs)
    out = rows.new_empty((len(rows), num_outputs))
    for start in range(0, num_outputs, step):
        stop = min(start + step, num_outputs)
        out[:, start:stop] = rows @ dense(start, stop)
    return out


def even_step(num_outputs: int, num_inputs: int, unit: int, num_elements: int) -> int:
    """Outputs in each of tiles of one size, about `num_elements` at most: a multiple of `unit`."""
    num_units = -(-num_outputs // unit)
    num_tiles = min(-(-num_units * unit * num_inputs // num_elements), num_units)
    return -(-num_units // num_tiles) * unit


def tile_rows(weight: QuantWeight) -> int:
    """How many rows of [N, K] make a tile: one at least, as many as whole blocks need of a coded weight."""
    num_columns = weight.shape[-1]
    unit = 1
    if isinstance(weight, CodedWeight):
        # A tile begins with a block, and with a byte.
        unit = math.lcm(num_columns, weight.block_size, 2) // num_columns
    return max(TILE_ELEMENTS // num_columns // unit, 1) * unit


def cut(weight: QuantWeight, start: int, stop: int) -> QuantWeight:
    """Rows `start` to `stop` of a weight [N, K]; of a coded one, `start` is a multiple of `tile_rows`."""
    if isinstance(weight, IntWeight):
        zero = None if weight.zero is None else weight.zero[start:stop]
        return replace(weight, values=weight.values[start:stop], scale=weight.scale[start:stop], zero=zero)
    return cut_codes(weight, start, stop)


def cut_codes(weight: CodedWeight, start: int, stop: int) -> CodedWeight:
    """The same of a coded weight."""
    num_columns = weight.shape[-1]
    first, last = start * num_columns, stop * num_columns
    blocks = slice(first // weight.block_size, -(-last // weight.block_size))
    return replace(
        weight,
        codes=weight.codes.flatten()[first // 2 : -(-last // 2)],
        absmax=weight.absmax.flatten()[blocks],
        shape=(stop - start, num_columns),
    )
