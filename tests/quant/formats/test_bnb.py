"""bitsandbytes' files: those of a packer of our own, and those that the package writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from llmctl.core.errors import BadFileError, UsageError
from llmctl.quant.formats.table import open_reader
from llmctl.quant.weights import CodedWeight, IntWeight
from tests import tiny
from tests.quant.formats.checkpoints import read_all, read_folder
from tests.quant.formats.packers_bnb import TABLES, pack4, pack8, pack_folder

# The package compiles code for sizes like that.
_ODD = pytest.param((7, 9), marks=pytest.mark.heavy)
NAME = "model.layers.0.mlp.up_proj.weight"
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}


def decode4(by_ending: dict[str, torch.Tensor], **changes: Any) -> CodedWeight:
    stored = {f"{NAME}{ending}": part for ending, part in by_ending.items()}
    weight = read_all(open_reader({**NF4, **changes}, stored), stored)[NAME]
    assert isinstance(weight, CodedWeight)
    return weight


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 40),
    kind=st.sampled_from(["nf4", "fp4"]),
    block_size=st.sampled_from([64, 128]),
    is_double=st.booleans(),
    seed=st.integers(0, 99),
)
def test_four_bits_are_exact(
    rows: int, columns: int, kind: str, block_size: int, is_double: bool, seed: int
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    parts, dense = pack4(weight, kind=kind, block_size=block_size, is_double=is_double)
    decoded = decode4(parts, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=is_double)
    assert (decoded.kind, decoded.block_size, decoded.shape) == (kind, block_size, (rows, columns))
    assert torch.equal(decoded.dequantize(), dense)


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float32, torch.int8])
def test_another_storage_type_is_the_same_bytes(storage: torch.dtype) -> None:
    parts, dense = pack4(torch.randn(8, 64))
    parts[""] = parts[""].flatten().view(storage).view(-1, 1)
    assert torch.equal(decode4(parts, bnb_4bit_quant_storage="bfloat16").dequantize(), dense)


def test_eight_bits_are_exact() -> None:
    codes, largest, dense = pack8(torch.randn(6, 20))
    module = NAME.removesuffix(".weight")
    stored = {NAME: codes, f"{module}.SCB": largest, f"{module}.weight_format": torch.tensor(0)}
    decoded = read_all(open_reader(INT8, stored), stored)[NAME]
    assert isinstance(decoded, IntWeight)
    assert torch.equal(decoded.dequantize(), dense)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_double", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("shape", [(64, 128), (300, 64), (640, 64), _ODD])
def test_what_the_package_quantises_is_what_the_package_reads(
    kind: str, shape: tuple[int, int], is_double: bool
) -> None:
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(
        torch.randn(shape), blocksize=64, quant_type=kind, compress_statistics=is_double
    )
    parts = {"": packed, **{f".{role}": part for role, part in state.as_dict(packed=True).items()}}
    decoded = decode4(parts, bnb_4bit_quant_type=kind)
    theirs = functional.dequantize_4bit(packed, state)
    assert torch.equal(decoded.dequantize(), theirs)
    assert torch.allclose(decoded.table, torch.tensor(TABLES[kind]), rtol=0, atol=1e-7)


def test_what_the_package_quantises_to_eight_bits_is_read() -> None:
    from bitsandbytes import functional

    codes, largest, _ = functional.int8_vectorwise_quant(torch.randn(16, 48).half())
    stored = {"a.weight": codes, "a.SCB": largest}
    decoded = read_all(open_reader(INT8, stored), stored)["a.weight"]
    assert isinstance(decoded, IntWeight)
    theirs = functional.int8_vectorwise_dequant(codes, largest)
    assert torch.allclose(decoded.dequantize(), theirs, rtol=1e-6, atol=0)


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("variant", ["nf4", "fp4-double", "int8"])
def test_a_folder_that_transformers_saved_is_read_as_transformers_reads_it(
    tmp_path: Path, kind: str, variant: str
) -> None:
    import transformers
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    # In rows that no block divides the package's own kernels for CPUs read other weights than it wrote.
    wide = {"n_embd": 64} if kind == "gpt2" else {"hidden_size": 64, "intermediate_size": 128}
    tiny.folder(tmp_path / "dense", kind, **wide)
    asked = {"load_in_8bit": True}
    if variant != "int8":
        asked = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": variant[:3],
            "bnb_4bit_use_double_quant": variant.endswith("double"),
        }
    quantised = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "dense", quantization_config=transformers.BitsAndBytesConfig(**asked), device_map="cpu"
    )
    quantised.save_pretrained(tmp_path / "saved")
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    config = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    decoded = read_all(open_reader(config["quantization_config"], stored), stored)
    assert len(decoded) >= 8
    for name, weight in decoded.items():
        module = quantised.get_submodule(name.removesuffix(".weight"))
        theirs = dequantize_bnb_weight(module.weight, getattr(module, "state", None))
        assert isinstance(weight, IntWeight | CodedWeight)
        assert torch.allclose(weight.dequantize(), theirs.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_folder_of_conv1d_keeps_rows_as_outputs(tmp_path: Path, kind: str) -> None:
    tiny.folder(tmp_path / "dense", "gpt2")
    dense = pack_folder(tmp_path / "dense", tmp_path / "packed", kind=kind, storage="bfloat16")
    quantised, others = read_folder(tmp_path / "packed", open_reader)
    assert len(quantised) == 8
    assert quantised["transformer.h.0.attn.c_attn.weight"].shape == (96, 32)
    assert quantised.keys() | others.keys() == dense.keys()
    assert all(torch.equal(weight.T, dense[name]) for name, weight in quantised.items())


def _damage(change: str) -> dict[str, torch.Tensor]:
    parts, _ = pack4(torch.randn(8, 64), is_double="nested" in change)
    state_name = ".quant_state.bitsandbytes__nf4"
    state = json.loads(bytes(parts[state_name].tolist()))
    changed: dict[str, Any] = {
        "shape": {"shape": [8, 65]},
        "no shape": {"shape": None},
        "block": {"blocksize": 0},
        "type": {"quant_type": "fp4"},
        "nested block": {"nested_blocksize": None},
    }
    if change in changed:
        raw = json.dumps({**state, **changed[change]}).encode()
        parts[state_name] = torch.tensor(list(raw), dtype=torch.uint8)
    elif change == "no json":
        parts[state_name] = parts[state_name][:-3]
    elif change == "table":
        parts[".quant_map"] = parts[".quant_map"].flip(0)
    elif change == "nested table":
        parts[".nested_quant_map"] = parts[".nested_quant_map"][:200]
    else:
        del parts[change]
    return parts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("shape", r"256 bytes and 8 scales do not make \[8, 65\]"),
        ("no shape", "its quant_state has the shape None"),
        ("block", "blocks of 0"),
        ("type", "says 'fp4', its name 'nf4'"),
        ("no json", "its quant_state is no JSON"),
        ("table", "its quant_map is not that of nf4"),
        ("nested block", "nested_blocksize None"),
        ("nested table", "nested scales do not fit"),
        (".absmax", "it has no absmax"),
        (".quant_map", "it has no quant_map"),
        (".quant_state.bitsandbytes__nf4", "stored as no known kind"),
        ("", "it has no weight"),
    ],
)
def test_damage_is_refused_by_name(change: str, said: str) -> None:
    with pytest.raises(BadFileError, match=f"up_proj.weight is damaged: .*{said}"):
        decode4(_damage(change))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight_format": torch.tensor(2, dtype=torch.uint8)}, "order 'col_turing' of a GPU"),
        ({"SCB": torch.ones(5)}, "5 scales for 6 rows"),
        ({"weight": torch.ones(6, 20)}, "not int8"),
    ],
)
def test_eight_bits_that_cannot_be_read_are_refused(changes: dict[str, torch.Tensor], said: str) -> None:
    codes, largest, _ = pack8(torch.randn(6, 20))
    stored = {f"a.{role}": part for role, part in ({"weight": codes, "SCB": largest} | changes).items()}
    with pytest.raises(BadFileError, match=said):
        read_all(open_reader(INT8, stored), stored)


def test_a_config_that_contradicts_itself_or_the_file_is_refused() -> None:
    parts, _ = pack4(torch.randn(8, 64))
    with pytest.raises(BadFileError, match="it is stored as nf4, but the config says fp4"):
        decode4(parts, bnb_4bit_quant_type="fp4")
    with pytest.raises(BadFileError, match="load_in_4bit and load_in_8bit at once"):
        open_reader({**NF4, "load_in_8bit": True}, ())
    with pytest.raises(BadFileError, match="bnb_4bit_quant_type 'nf3'"):
        open_reader({**NF4, "bnb_4bit_quant_type": "nf3"}, ())
    with pytest.raises(BadFileError, match="does not know: sparse"):
        open_reader({**NF4, "sparse": True}, ())
    with pytest.raises(UsageError, match="bits is given as 8"):
        open_reader(NF4, (), {"bits": 8})


@pytest.mark.parametrize(
    ("config", "title"),
    [
        ({**NF4, "bnb_4bit_use_double_quant": True}, "bitsandbytes, nf4, double quantisation"),
        (INT8, "bitsandbytes, 8 bits (all inputs alike, outliers too)"),
        ({"quant_method": "bitsandbytes"}, "bitsandbytes"),
    ],
)
def test_the_title_says_what_is_stored(config: dict[str, Any], title: str) -> None:
    assert open_reader(config, ()).title == title
