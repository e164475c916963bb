"""8-bit floats: every code, every layout of scales, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadFileError, UsageError
from llmctl.quant.formats.floats import Scales, dequantize_fp8, scale_values
from llmctl.quant.formats.table import open_reader
from tests import tiny
from tests.quant.formats.checkpoints import read_folder
from tests.quant.formats.packers_fp8 import FLOAT8, pack, pack_folder, value_of

NAME = "model.layers.0.mlp.up_proj.weight"
CONFIG = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": None}


def decode(
    codes: torch.Tensor,
    scale: torch.Tensor,
    config: dict[str, Any] = CONFIG,
    dtype: torch.dtype = torch.float32,
    ending: str = "_scale",
) -> torch.Tensor:
    stored = {NAME: codes, f"{NAME}{ending}": scale}
    reader = open_reader(config, stored)
    parts = {}
    for name, tensor in stored.items():
        part = reader.part(name)
        assert part is not None
        assert part.weight == NAME
        parts[part.role] = tensor
    decoded = reader.decode(NAME, parts, dtype)
    assert isinstance(decoded, torch.Tensor)
    return decoded


@pytest.mark.parametrize("kind", FLOAT8)
def test_every_code_is_the_number_of_its_definition(kind: str) -> None:
    expected = [value_of(code, kind) for code in range(256)]
    finite = [code for code in range(256) if abs(expected[code]) < 1e9]
    codes = torch.tensor([finite], dtype=torch.uint8).view(FLOAT8[kind])
    given = dequantize_fp8("w", codes, Scales(torch.ones(1, 1, 1), (1, len(finite))), torch.float32)
    assert given[0].tolist() == [expected[code] for code in finite]


@pytest.mark.parametrize("kind", FLOAT8)
def test_a_code_that_is_no_number_is_refused(kind: str) -> None:
    codes = torch.zeros(4, 8, dtype=torch.uint8)
    codes[2, 5] = 0x7F
    with pytest.raises(BadFileError, match=r"up_proj\.weight is damaged: it holds numbers that are NaN"):
        decode(codes.view(FLOAT8[kind]), torch.ones(1))


def test_codes_of_powers_are_powers_of_two_down_to_the_smallest() -> None:
    values = scale_values("w", "scale", torch.arange(255, dtype=torch.uint8))
    assert values.tolist() == [2.0 ** (code - 127) for code in range(255)]
    with pytest.raises(BadFileError, match="NaN"):
        scale_values("w", "scale", torch.tensor([255], dtype=torch.uint8))


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    block=st.sampled_from([None, (1, 20), (4, 4), (3, 5)]),
    kind=st.sampled_from(["e4m3", "e5m2"]),
    powers=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_weight_is_its_codes_times_its_scales(
    rows: int, columns: int, block: tuple[int, int] | None, kind: str, powers: bool, seed: int
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    codes, scale, dense = pack(weight, block=block, kind=kind, powers=powers)
    is_block = block in ((4, 4), (3, 5))
    config = {**CONFIG, "weight_block_size": list(block or ()) if is_block else None}
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(decode(codes, scale, config, dtype), dense.to(dtype))


def test_rows_in_several_pieces_are_put_together() -> None:
    weight = torch.randn(6, 300_000)
    codes = weight.clamp(-400, 400).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 3)
    config = {**CONFIG, "weight_block_size": [4, 128_000]}
    spread = scale.repeat_interleave(4, 0)[:6].repeat_interleave(128_000, 1)[:, :300_000]
    assert torch.equal(decode(codes, scale, config, ending="_scale_inv"), codes.float() * spread)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (24,), (24, 1)])
def test_scales_may_be_written_in_several_shapes(shape: tuple[int, ...]) -> None:
    codes = torch.randn(24, 16).to(torch.float8_e4m3fn)
    scale = torch.rand(shape) + 0.5
    factor = scale.view(24, 1) if shape == (24,) else scale
    assert torch.equal(decode(codes, scale), codes.float() * factor)


def test_experts_that_are_stacked_have_blocks_each() -> None:
    codes = torch.randn(3, 8, 6).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 2, 2)
    spread = scale.repeat_interleave(4, 1).repeat_interleave(4, 2)[..., :6]
    decoded = decode(codes, scale, {**CONFIG, "weight_block_size": [4, 4]}, ending="_scale_inv")
    assert torch.equal(decoded, codes.float() * spread)
    assert torch.equal(decode(codes, scale[:, 0, 0]), codes.float() * scale[:, :1, :1])


def test_experts_that_are_stacked_may_have_a_scale_for_each_column() -> None:
    codes, scale = torch.randn(3, 8, 6).to(torch.float8_e4m3fn), torch.rand(3, 1, 6) + 0.5
    assert torch.equal(decode(codes, scale), codes.float() * scale)


@pytest.mark.parametrize("num_rows", [16, 24])
def test_a_scale_for_each_column_of_one_weight_is_refused(num_rows: int) -> None:
    with pytest.raises(BadFileError, match=f"scales of 1 x 16 do not fit {num_rows} x 16"):
        decode(torch.ones(num_rows, 16).to(torch.float8_e4m3fn), torch.ones(1, 16))


def test_a_weight_with_two_scales_is_refused() -> None:
    with pytest.raises(BadFileError, match=r"two scales, .*weight_scale_inv and .*up_proj\.weight_scale$"):
        open_reader(CONFIG, [NAME, f"{NAME}_scale", f"{NAME}_scale_inv"])


def test_a_silent_config_leaves_it_to_the_shapes() -> None:
    codes = torch.randn(200, 130).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 2)
    spread = scale.repeat_interleave(128, 0)[:200].repeat_interleave(128, 1)[:, :130]
    assert torch.equal(decode(codes, scale, {"quant_method": "fp8"}), codes.float() * spread)
    rows = torch.rand(200, 1)
    assert torch.equal(decode(codes, rows, {"quant_method": "fp8"}), codes.float() * rows)


@pytest.mark.parametrize(
    ("shape", "block"),
    [((2,), None), ((2, 2), None), ((), [8, 8]), ((16, 1), [8, 8]), ((3, 2), [8, 8]), ((2, 2), [16, 8])],
)
def test_scales_that_do_not_fit_the_config_are_refused(
    shape: tuple[int, ...], block: list[int] | None
) -> None:
    codes = torch.ones(16, 16).to(torch.float8_e4m3fn)
    with pytest.raises(BadFileError, match="do not fit 16 x 16, one for each"):
        decode(codes, torch.ones(shape), {**CONFIG, "weight_block_size": block})


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (torch.nan, "NaN or infinite"),
        (torch.inf, "NaN or infinite"),
        (0.0, "zero or negative"),
        (-0.5, "zero or negative"),
    ],
)
@pytest.mark.parametrize("shape", [(1,), (2, 1)])
def test_a_scale_that_no_quantiser_writes_is_refused(scale: float, said: str, shape: tuple[int, ...]) -> None:
    scales = torch.ones(shape)
    scales[-1] = scale
    with pytest.raises(
        BadFileError, match=rf"up_proj\.weight is damaged: its scale holds numbers that are {said}"
    ):
        decode(torch.ones(2, 2).to(torch.float8_e4m3fn), scales)


def test_a_weight_of_another_type_is_refused() -> None:
    with pytest.raises(BadFileError, match=r"it is of type torch\.bfloat16"):
        decode(torch.ones(2, 2).bfloat16(), torch.ones(1))
    with pytest.raises(BadFileError, match=r"e5m2, not torch\.float8_e4m3fn"):
        decode(torch.ones(2, 2).to(torch.float8_e5m2), torch.ones(1), {**CONFIG, "fmt": "e4m3"})


@pytest.mark.parametrize("shape", [(4,), (0, 4), (4, 0)])
def test_what_has_no_rows_and_columns_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadFileError, match="not rows and columns"):
        decode(torch.zeros(shape).to(torch.float8_e4m3fn), torch.ones(1))


def test_tensors_beside_the_weights_belong_to_them_and_the_others_are_dense() -> None:
    layer = "model.layers.0.self_attn"
    names = {
        f"{layer}.k_proj.weight",
        f"{layer}.k_proj.weight_scale",
        f"{layer}.k_proj.input_scale",
        f"{layer}.k_proj.bias",
        f"{layer}.k_scale",
        f"{layer}.v_scale",
        "model.norm.weight",
        "mlp.experts.gate_up_proj",
        "mlp.experts.gate_up_proj_scale_inv",
        "mlp.experts.gate_up_proj_activation_scale",
    }
    reader = open_reader(CONFIG, names)
    found = {name: part and (part.weight, part.role) for name in names for part in [reader.part(name)]}
    assert found == {
        f"{layer}.k_proj.weight": (f"{layer}.k_proj.weight", "weight"),
        f"{layer}.k_proj.weight_scale": (f"{layer}.k_proj.weight", "scale"),
        f"{layer}.k_proj.input_scale": (f"{layer}.k_proj.weight", "input_scale"),
        f"{layer}.k_proj.bias": None,
        f"{layer}.k_scale": (f"{layer}.k_proj.weight", "k_scale"),
        f"{layer}.v_scale": None,
        "model.norm.weight": None,
        "mlp.experts.gate_up_proj": ("mlp.experts.gate_up_proj", "weight"),
        "mlp.experts.gate_up_proj_scale_inv": ("mlp.experts.gate_up_proj", "scale"),
        "mlp.experts.gate_up_proj_activation_scale": ("mlp.experts.gate_up_proj", "activation_scale"),
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rotation": "hadamard"}, "keys that llmctl does not know: rotation"),
        ({"activation_scheme": "sometimes"}, "activation_scheme 'sometimes'; llmctl reads static, dynamic"),
        ({"expert_dtype": "fp4"}, "expert_dtype 'fp4'; llmctl reads fp8"),
        ({"fmt": "e3m4"}, "fmt 'e3m4'"),
        ({"weight_block_size": [128]}, "weight_block_size"),
        ({"weight_block_size": [128, 0]}, "weight_block_size"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadFileError, match=said.replace("[", r"\[")):
        open_reader({**CONFIG, **changes}, ())


@pytest.mark.parametrize(
    ("config", "title"),
    [
        (CONFIG, "FP8; activations are not quantised here"),
        (
            {**CONFIG, "weight_block_size": [128, 64]},
            "FP8, a scale for each block of 128 x 64; activations are not quantised here",
        ),
        (
            {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": []},
            "FP8; activations are not quantised here",
        ),
    ],
)
def test_the_title_says_what_happens(config: dict[str, Any], title: str) -> None:
    reader = open_reader(config, ())
    assert reader.title == title
    assert not reader.gives_quantised


def test_an_override_may_only_agree() -> None:
    open_reader(CONFIG, (), {"bits": 8, "group_size": None})
    with pytest.raises(UsageError, match="bits is given as 4, but the checkpoint is FP8 with bits 8"):
        open_reader(CONFIG, (), {"bits": 4})
    with pytest.raises(UsageError, match="group_size says nothing about FP8"):
        open_reader(CONFIG, (), {"group_size": 128})


@pytest.mark.parametrize("kind", ["mixtral", "gpt2"])
def test_a_folder_is_read_whole(tmp_path: Path, kind: str) -> None:
    tiny.folder(tmp_path / "dense", kind)
    dense = pack_folder(tmp_path / "dense", tmp_path / "packed", layout="block", scheme="static")
    quantised, others = read_folder(tmp_path / "packed", open_reader)
    assert len(quantised) >= 8
    assert quantised.keys() | others.keys() == dense.keys()
    assert all(torch.equal(weight, dense[name]) for name, weight in quantised.items())
