"""Packs weights as AWQ checkpoints in the gemm layout have them, from the description of the format alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.quant.formats.packers_gptq import (
    Numbers,
    Packed,
    Variant,
    int32,
    random_numbers,
    rounded,
    write_folder,
)

COLUMN_OF_NIBBLE = (0, 2, 4, 6, 1, 3, 5, 7)


def row_words(numbers: Sequence[int]) -> list[int]:
    """Eight columns to a word, in AWQ's order."""
    words = []
    for first in range(0, len(numbers), 8):
        word = 0
        for nibble, column in enumerate(COLUMN_OF_NIBBLE):
            word |= int(numbers[first + column]) << 4 * nibble
        words.append(word)
    return words


def packed(numbers: Numbers) -> dict[str, Tensor]:
    """qweight [K, N / 8], qzeros [G, N / 8] and scales [G, N] as a file has them."""
    return {
        "qweight": int32([row_words(row) for row in numbers.q.T.tolist()]),
        "qzeros": int32([row_words(row) for row in numbers.zero.tolist()]),
        "scales": torch.from_numpy(np.ascontiguousarray(numbers.scale)),
    }


def random_layer(
    shape: tuple[int, int], group_size: int, *, zero_point: bool = True, seed: int = 0
) -> Packed:
    """A weight of any numbers."""
    numbers = random_numbers(shape, Variant(group_size=group_size, sym=not zero_point), seed)
    return packed(numbers), numbers.dense()


def config(group_size: int, **more: Any) -> dict[str, Any]:
    """The quantization_config of a checkpoint."""
    said = {"quant_method": "awq", "bits": 4, "group_size": group_size, "zero_point": True, "version": "gemm"}
    return {**said, **more}


def pack_folder(
    source: Path,
    target: Path,
    *,
    group_size: int = 32,
    zero_point: bool = True,
    skip: Sequence[str] = (),
    is_legacy: bool = False,
) -> dict[str, Tensor]:
    """Write the model of the folder `source` to `target`, its linear layers quantised but those of `skip`.

    `is_legacy` writes quant_config.json with the keys of llm-awq. Gives the dense weights that it stands for,
    by the names of `source`.
    """

    def pack(module: str, weight: Tensor) -> Packed | None:
        if any(name in module for name in skip):
            return None
        numbers = rounded(weight, Variant(group_size=group_size, sym=not zero_point))
        return packed(numbers), numbers.dense()

    if is_legacy:
        old = {"w_bit": 4, "q_group_size": group_size, "zero_point": zero_point, "version": "GEMM"}
        return write_folder(source, target, pack, old, "quant_config.json")
    said = config(group_size, zero_point=zero_point, modules_to_not_convert=list(skip) or None)
    return write_folder(source, target, pack, said)
