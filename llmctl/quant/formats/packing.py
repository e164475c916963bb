"""Numbers of a few bits out of the int32 words that checkpoints pack them in; shared by several formats."""

import math

import torch
from torch import Tensor

WORD_BITS = 32


def unpack_fields(words: Tensor, bits: int) -> Tensor:
    """Words int32 [..., W] of 32 // bits numbers each: uint8 [..., W * (32 // bits)].

    The first lies in the lowest bits; bits that are left over at the top of a word are not read.
    """
    per_word = WORD_BITS // bits
    if WORD_BITS % bits == 0:
        return unpack_bits(words, bits, words.shape[-1] * per_word)
    fields = torch.empty((*words.shape, per_word), dtype=torch.uint8, device=words.device)
    for field in range(per_word):
        fields[..., field] = words >> field * bits & (1 << bits) - 1
    return fields.flatten(-2)


def unpack_bits(words: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` numbers of 1 to 8 bits of a dense stream in int32 [..., W]: uint8 [..., count].

    The lowest bits come first, and a number may lie across two words. Raises ValueError for too few words.
    """
    if words.shape[-1] * WORD_BITS < count * bits:
        raise ValueError(f"{words.shape[-1]} words hold fewer than {count} numbers of {bits} bits")
    # The shortest run of numbers that ends with a byte; each number lies at the same place in every run.
    run_bytes, per_run = bits // math.gcd(bits, 8), 8 // math.gcd(bits, 8)
    octets = words.contiguous().view(torch.uint8)
    num_runs = -(-count // per_run)
    if octets.shape[-1] < num_runs * run_bytes:
        octets = torch.nn.functional.pad(octets, (0, num_runs * run_bytes - octets.shape[-1]))
    runs = octets[..., : num_runs * run_bytes].view(*words.shape[:-1], num_runs, run_bytes)
    numbers = torch.empty((*words.shape[:-1], num_runs, per_run), dtype=torch.uint8, device=words.device)
    for place in range(per_run):
        first, shift = divmod(place * bits, 8)
        number = runs[..., first] >> shift
        if shift + bits > 8:
            number |= runs[..., first + 1] << 8 - shift
        numbers[..., place] = number.bitwise_and_((1 << bits) - 1)
    return numbers.flatten(-2)[..., :count]
