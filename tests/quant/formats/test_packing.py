"""Numbers of a few bits come out of words as they went in, also across the borders of words."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmctl.quant.formats.packing import unpack_bits, unpack_fields
from tests.quant.formats.packers_gptq import int32, stream_words


@given(bits=st.integers(1, 8), data=st.data())
def test_a_stream_of_any_bits_and_length_is_read_back(bits: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 70))
    row = st.lists(st.integers(0, (1 << bits) - 1), min_size=count, max_size=count)
    rows = data.draw(st.lists(row, min_size=1, max_size=3))
    words = int32([stream_words(numbers, bits) for numbers in rows])
    assert unpack_bits(words, bits, count).tolist() == rows


@pytest.mark.parametrize("bits", range(1, 9))
def test_fields_do_not_cross_words(bits: int) -> None:
    per_word = 32 // bits
    numbers = [number % (1 << bits) for number in range(7, 7 + 3 * per_word)]
    words = [stream_words(numbers[at : at + per_word], bits)[0] for at in range(0, 3 * per_word, per_word)]
    # What is left at the top of a word is nobody's.
    used = per_word * bits
    words = [word | (0xFFFFFFFF >> used << used if used < 32 else 0) for word in words]
    assert unpack_fields(int32([words]), bits).tolist() == [numbers]


def test_leading_dimensions_and_strides_stay_what_they_are() -> None:
    words = torch.randint(-(2**31), 2**31 - 1, (3, 6, 4), dtype=torch.int32)
    turned = unpack_bits(words.transpose(1, 2), 3, 64)
    assert turned.shape == (3, 4, 64)
    assert torch.equal(turned[1, 2], unpack_bits(words[1, :, 2], 3, 64))
    assert turned.dtype == torch.uint8


def test_too_few_words_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 words hold fewer than 22 numbers of 3 bits"):
        unpack_bits(torch.zeros(2, dtype=torch.int32), 3, 22)
