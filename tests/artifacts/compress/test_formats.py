"""What is stored is what was foretold, and llmctl's own readers give it back exactly."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.artifacts.compress.compensate import round_compensated
from llmctl.artifacts.compress.formats import Layout, config_of, parts_of, planned
from llmctl.artifacts.compress.rounding import round_fp8, round_int4, round_int8
from llmctl.quant.formats.table import open_reader
from llmctl.quant.rounding import round_to
from llmctl.quant.weights import CodedWeight, IntWeight
from tests.quant.formats.checkpoints import read_all

NAME = "model.layers.0.mlp.up_proj.weight"
METHODS = ["int8", "int4", "fp8", "nf4"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def layout(method: str, dtype: torch.dtype = torch.bfloat16, size: int = 64) -> Layout:
    return Layout(method=method, group_size=size if method == "int4" else None, dtype=dtype)


def random(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def read_back(parts: dict[str, torch.Tensor], chosen: Layout) -> Any:
    reader = open_reader(config_of(chosen, ["lm_head"]), parts)
    assert set(read_all(reader, parts)) == {NAME}
    return read_all(reader, parts)[NAME]


def dense(numbers: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    groups = numbers.float().view(len(numbers), scale.shape[1], -1)
    return (groups * scale.float()[..., None]).view(numbers.shape)


@settings(max_examples=40, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    dtype=st.sampled_from(DTYPES),
    rows=st.integers(1, 9),
    groups=st.integers(1, 3),
    size=st.sampled_from([32, 64, 128]),
    seed=st.integers(0, 99),
)
def test_every_part_is_as_it_was_foretold(
    method: str, dtype: torch.dtype, rows: int, groups: int, size: int, seed: int
) -> None:
    chosen, weight = layout(method, dtype, size), random(rows, groups * max(size, 64), seed).to(dtype)
    parts = parts_of(NAME, weight, chosen)
    foretold = {each.name: (each.dtype, each.shape) for each in planned(NAME, tuple(weight.shape), chosen)}
    assert {name: (part.dtype, tuple(part.shape)) for name, part in parts.items()} == foretold
    assert all(part.is_contiguous() for part in parts.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [64, 192])
def test_integers_are_read_back_exactly(dtype: torch.dtype, columns: int) -> None:
    weight = random(7, columns).to(dtype)
    found = read_back(parts_of(NAME, weight, layout("int8", dtype)), layout("int8", dtype))
    assert isinstance(found, IntWeight)
    assert torch.equal(found.dequantize(), dense(*round_int8(weight, dtype)))
    found = read_back(parts_of(NAME, weight, layout("int4", dtype)), layout("int4", dtype))
    assert isinstance(found, IntWeight)
    assert (found.bits, found.group_size) == (4, 64)
    assert torch.equal(found.dequantize(), dense(*round_int4(weight, 64, dtype)))


def test_compensated_integers_are_read_back_exactly() -> None:
    weight, x = random(7, 128), random(200, 128, 1)
    found = read_back(parts_of(NAME, weight, layout("int4"), x.T @ x), layout("int4"))
    assert torch.equal(found.dequantize(), dense(*round_compensated(weight, x.T @ x, 64, torch.bfloat16)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_floats_of_eight_bits_are_read_back_exactly(dtype: torch.dtype) -> None:
    weight = random(7, 64).to(dtype)
    codes, scale = round_fp8(weight, dtype)
    found = read_back(parts_of(NAME, weight, layout("fp8", dtype)), layout("fp8", dtype))
    assert torch.equal(found, codes.float() * scale.float())


def test_normal_floats_are_read_back_exactly() -> None:
    weight = random(7, 128)
    made, found = round_to(weight, "nf4"), read_back(parts_of(NAME, weight, layout("nf4")), layout("nf4"))
    assert isinstance(found, CodedWeight)
    assert torch.equal(found.dequantize(), made.dequantize())


@pytest.mark.parametrize("method", METHODS)
def test_the_config_names_what_stays_dense(method: str) -> None:
    told = config_of(layout(method), {"model.b", "lm_head"})
    assert told["llm_int8_skip_modules" if method == "nf4" else "ignore"] == ["lm_head", "model.b"]
