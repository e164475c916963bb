"""The difference of two pieces of bits, lossless and small: integer difference, byte planes, zstandard.

A fine-tuned number is mostly a few steps of its type away from what it was. As a difference of integers that
is a small number, and its upper bytes are zeros, which compress to nothing when they stand together.
"""

from collections.abc import Mapping

import torch
import zstandard
from torch import Tensor

from llmctl.artifacts.stream import bits
from llmctl.artifacts.stream.digests import PIECE_BYTES

LEVEL = 1
"""Higher ones take several times as long for a few percent."""
_INTEGERS: Mapping[int, torch.dtype] = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
MAX_CODED_BYTES = PIECE_BYTES + (PIECE_BYTES >> 7) + 1024
"""More than zstandard makes of any piece."""


def width_of(dtype: str) -> int:
    """Bytes of a number of that type, 1 for types of fewer bits and for those that torch lacks."""
    found = bits.TORCH_TYPES.get(dtype)
    return found.itemsize if found is not None else 1


def encode(target: Tensor, base: Tensor, width: int) -> bytes:
    """What `decode` makes `target` of, both uint8 [bytes]; empty where they are equal.

    `base` may be shorter: then the rest is a difference from zeros.
    """
    if base.numel() == target.numel() and torch.equal(base, target):
        return b""
    kind = _INTEGERS[width]
    difference = target.view(kind) - _padded(base, target.numel()).view(kind)
    # The sign goes to the lowest bit, so that small negative numbers have zeros above too.
    folded = (difference << 1) ^ (difference >> (8 * width - 1))
    planes = torch.cat([(folded >> (8 * number)).to(torch.uint8) for number in range(width)])
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    return compressor.compress(bits.buffer_of(planes))


def decode(coded: "bytes | memoryview", base: Tensor, width: int, num_bytes: int) -> Tensor:
    """The target's piece, uint8 [num_bytes]. Raises `ValueError` for damaged bytes."""
    if not coded:
        if base.numel() != num_bytes:
            raise ValueError(f"{base.numel()} bytes for {num_bytes}")
        return base
    kind = _INTEGERS[width]
    planes = _decompressed(coded, num_bytes).view(width, -1)
    folded = planes[0].to(kind)
    for number in range(1, width):
        folded |= planes[number].to(kind) << (8 * number)
    # Shifts keep the sign of an integer, and here the top bit is none.
    half = (folded >> 1) & torch.iinfo(kind).max
    half ^= -(folded & 1)
    half += _padded(base, num_bytes).view(kind)
    return half.view(torch.uint8)


def _decompressed(coded: "bytes | memoryview", num_bytes: int) -> Tensor:
    raw = torch.empty(num_bytes, dtype=torch.uint8)
    try:
        # A frame that says another size is not read.
        if zstandard.frame_content_size(coded) != num_bytes:
            raise ValueError("it holds other sizes than it says")
        with zstandard.ZstdDecompressor().stream_reader(coded) as reader:
            # One byte more than there may be, so that the checksum behind the last is looked at.
            if reader.readinto(bits.buffer_of(raw)) != num_bytes or reader.read(1):
                raise ValueError("it ends too early")
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return raw


def _padded(base: Tensor, num_bytes: int) -> Tensor:
    if base.numel() == num_bytes:
        return base
    padded = torch.zeros(num_bytes, dtype=torch.uint8)
    padded[: base.numel()] = base
    return padded
