"""4-bit floats of gpt-oss against their definition, and against what transformers makes of them."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadFileError, UsageError
from llmctl.quant.formats.floats import unpack_e2m1
from llmctl.quant.formats.table import open_reader
from llmctl.quant.weights import IntWeight
from tests.quant.formats.checkpoints import read_folder
from tests.quant.formats.packers_mxfp4 import VALUES, gpt_oss_folder, pack, pack_folder

NAME = "model.layers.0.mlp.experts.gate_up_proj"
CONFIG = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}


def decode(blocks: torch.Tensor, scales: torch.Tensor) -> IntWeight:
    reader = open_reader(CONFIG, {f"{NAME}_blocks", f"{NAME}_scales"})
    weight = reader.decode(NAME, {"blocks": blocks, "scales": scales}, torch.bfloat16)
    assert isinstance(weight, IntWeight)
    return weight


def test_every_pair_of_codes_is_twice_the_numbers_of_the_definition() -> None:
    signed = [*VALUES, *(-value for value in VALUES)]
    packed = torch.arange(256, dtype=torch.uint8).view(16, 16)
    expected = [2 * signed[code] for byte in range(256) for code in (byte & 15, byte >> 4)]
    assert unpack_e2m1(packed).flatten().tolist() == expected


@settings(max_examples=10, deadline=None)
@given(experts=st.integers(1, 3), rows=st.integers(1, 5), groups=st.integers(1, 3), seed=st.integers(0, 99))
def test_experts_are_exact(experts: int, rows: int, groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes, powers, dense = pack(torch.randn(experts, rows, 32 * groups, generator=generator))
    weight = decode(codes.view(*powers.shape, 16), powers)
    assert weight.group_size == 32
    assert torch.equal(weight.dequantize(), dense)


def test_transformers_reads_the_same_out_of_the_blocks() -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks = torch.randint(0, 256, (2, 6, 2, 16), dtype=torch.uint8)
    scales = torch.randint(110, 140, (2, 6, 2), dtype=torch.uint8)
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    assert torch.equal(decode(blocks, scales).dequantize(), theirs.transpose(1, 2))


def test_a_folder_has_its_experts_packed_and_the_rest_dense(tmp_path: Path) -> None:
    dense = pack_folder(gpt_oss_folder(tmp_path / "dense"), tmp_path / "packed")
    quantised, others = read_folder(tmp_path / "packed", open_reader)
    assert len(quantised) == 4
    assert quantised.keys() | others.keys() == dense.keys()
    assert all(torch.equal(weight.transpose(1, 2), dense[name]) for name, weight in quantised.items())


@pytest.mark.parametrize(
    ("blocks", "scales", "said"),
    [
        (torch.zeros(4, 2, 8, dtype=torch.uint8), torch.zeros(4, 2, dtype=torch.uint8), "its blocks are"),
        (torch.zeros(4, 2, 16, dtype=torch.int8), torch.zeros(4, 2, dtype=torch.uint8), "its blocks are"),
        (torch.zeros(4, 2, 16, dtype=torch.uint8), torch.zeros(4, 3, dtype=torch.uint8), "its scales are"),
        (torch.zeros(4, 2, 16, dtype=torch.uint8), torch.zeros(4, 2), "its scales are"),
        (torch.zeros(1, 1, 16, dtype=torch.uint8), torch.full((1, 1), 255, dtype=torch.uint8), "NaN"),
    ],
)
def test_blocks_and_scales_that_do_not_fit_are_refused(
    blocks: torch.Tensor, scales: torch.Tensor, said: str
) -> None:
    with pytest.raises(BadFileError, match=rf"gate_up_proj is damaged: {said}|{said}"):
        decode(blocks, scales)


def test_blocks_without_scales_and_unknown_keys_are_refused() -> None:
    reader = open_reader(CONFIG, {f"{NAME}_blocks", f"{NAME}_scales", f"{NAME}_bias"})
    assert reader.part(f"{NAME}_bias") is None
    with pytest.raises(BadFileError, match="it has no scales"):
        reader.decode(NAME, {"blocks": torch.zeros(1)}, torch.bfloat16)
    with pytest.raises(BadFileError, match="does not know: layout"):
        open_reader({**CONFIG, "layout": "swizzled"}, ())
    with pytest.raises(UsageError, match="bits is given as 8"):
        open_reader(CONFIG, (), {"bits": 8})
