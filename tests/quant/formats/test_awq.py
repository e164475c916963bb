"""AWQ weights decode exactly to what an independent packer wrote; what does not fit is refused by name."""

import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmctl.core.errors import BadFileError, UsageError
from llmctl.quant.formats import awq
from llmctl.quant.formats.base import Reader
from llmctl.quant.weights import IntWeight
from tests import tiny
from tests.quant.formats.packers_awq import config, pack_folder, random_layer
from tests.quant.formats.packers_gptq import Variant, random_numbers

NAME = "model.layers.0.mlp.up_proj"
WEIGHT = f"{NAME}.weight"


def reader(said: dict[str, Any], **overrides: Any) -> Reader:
    """The reader for a checkpoint of one quantised layer."""
    return awq.reader(said, [f"{NAME}.{role}" for role in ("qweight", "qzeros", "scales")], overrides)


def decoded(parts: dict[str, Tensor], said: dict[str, Any], **overrides: Any) -> IntWeight:
    """The layer in its canonical form."""
    weight = reader(said, **overrides).decode(WEIGHT, parts, torch.float32)
    assert isinstance(weight, IntWeight)
    return weight


@pytest.mark.parametrize("group_size", [32, 48, -1])
@pytest.mark.parametrize("zero_point", [True, False])
def test_every_variant_decodes_exactly(group_size: int, zero_point: bool) -> None:
    parts, dense = random_layer((40, 96), group_size, zero_point=zero_point)
    weight = decoded(parts, config(group_size, zero_point=zero_point))
    assert torch.equal(weight.dequantize(), dense)
    assert (weight.zero is None) is not zero_point
    assert weight.permutation is None


@given(data=st.data())
def test_any_shape_decodes_exactly(data: st.DataObject) -> None:
    group_size = data.draw(st.sampled_from([2, 16, 32]))
    shape = (data.draw(st.integers(1, 9)) * 8, data.draw(st.integers(1, 9)) * group_size)
    parts, dense = random_layer(shape, group_size, seed=data.draw(st.integers(0, 99)))
    assert torch.equal(decoded(parts, config(group_size)).dequantize(), dense)


def test_the_columns_of_a_word_are_interleaved() -> None:
    # Nibbles 0 to 7 of the word 0x76543210 are the columns 0, 2, 4, 6, 1, 3, 5, 7.
    parts = {
        "qweight": torch.tensor([[0x76543210], [0]], dtype=torch.int32),
        "qzeros": torch.zeros(1, 1, dtype=torch.int32),
        "scales": torch.ones(1, 8, dtype=torch.float16),
    }
    weight = decoded(parts, config(-1))
    assert weight.dequantize()[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize(
    "said",
    [
        {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"},
        {"bits": 4, "group_size": 32, "zero_point": True, "version": "gemm", "modules_to_not_convert": None},
        {"bits": 4, "group_size": 32, "sym": False, "desc_act": False, "checkpoint_format": "gemm"},
        {"bits": 4, "group_size": 32, "do_fuse": False, "backend": "autoawq"},
    ],
)
def test_the_keys_of_old_and_new_tools_are_known(said: dict[str, Any]) -> None:
    parts, dense = random_layer((32, 64), 32)
    made = reader({"quant_method": "awq", **said})
    weight = made.decode(WEIGHT, parts, torch.float32)
    assert isinstance(weight, IntWeight)
    assert torch.equal(weight.dequantize(), dense)
    assert made.title == "AWQ, 4 bits, groups of 32"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"version": "gemv"}, "version=gemv"),
        ({"version": "gemv_fast"}, "not the layout gemv_fast"),
        ({"version": "exllama"}, "not the layout exllama"),
        ({"version": "marlin"}, "not the layout marlin"),
        ({"checkpoint_format": "llm-awq"}, "not the layout llm-awq"),
        ({"bits": 8}, "bits=8"),
        ({"group_size": None}, "does not say group_size"),
        ({"group_size": -2}, "group_size=-2"),
        ({"pack_dtype": "int16"}, "pack_dtype=int16"),
        ({"desc_act": True}, "desc_act=True"),
        ({"smooth": 1}, "does not know: smooth"),
        ({"modules_to_not_convert": "lm_head"}, "a list of names is expected"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused_by_name(more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadFileError, match=words):
        reader({**config(32), **more})


def test_only_modules_with_a_qweight_are_quantised() -> None:
    made = reader(config(32))
    part = made.part(f"{NAME}.scales")
    assert part is not None
    assert (part.weight, part.role) == (WEIGHT, "scales")
    assert made.part(f"{NAME}.bias") is None
    assert made.part("lm_head.weight") is None
    assert made.gives_quantised


@pytest.mark.parametrize(("names", "is_said"), [(["mlp"], True), (["lm_head"], False), (None, False)])
def test_a_list_that_names_a_quantised_module_is_said(
    names: list[str] | None, is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        reader(config(32, modules_to_not_convert=names))
    assert (f"{NAME} is quantised, though" in caplog.text) is is_said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda parts: parts.pop("scales"), "is damaged: it has no scales"),
        (lambda parts: parts.update(qweight=parts["qweight"].float()), "is damaged: .* types int32"),
        (lambda parts: parts.update(qweight=parts["qweight"][0]), "is damaged: .* the shapes"),
        (lambda parts: parts.update(qzeros=parts["qzeros"][:1]), r"is damaged: its qzeros are \(1, 4\)"),
        (lambda parts: parts.update(scales=parts["scales"][:, :16]), "bits is 4, but its qweight has 8 bits"),
        (lambda parts: parts.update(qweight=parts["qweight"][:-8]), "2 groups for 56 inputs"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(
    change: Callable[[dict[str, Tensor]], object], words: str
) -> None:
    parts, _ = random_layer((32, 64), 32)
    change(parts)
    with pytest.raises(BadFileError, match=f"{WEIGHT} .*{words}"):
        decoded(parts, config(32))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"group_size": 64}, f"group_size=64 does not fit the quantised weight {WEIGHT}: it has 2 groups"),
        ({"zero_point": False}, "zero_point=False does not fit .*: its zero points are not all 8"),
        ({"wbits": 8}, "bits=8 does not do for this AWQ checkpoint"),
        ({"desc_act": True}, "desc_act=True says nothing about a AWQ"),
    ],
)
def test_an_override_that_does_not_fit_is_the_users_error(overrides: dict[str, Any], words: str) -> None:
    parts, _ = random_layer((32, 64), 32)
    with pytest.raises(UsageError, match=words):
        decoded(parts, config(32), **overrides)


def test_rules_for_some_modules_are_followed() -> None:
    parts, dense = random_layer((32, 64), 16)
    said = config(32, dynamic={"-:.*attn": {}, "+:.*up_proj": {"group_size": 16}})
    assert torch.equal(decoded(parts, said).dequantize(), dense)
    with pytest.raises(BadFileError, match=r"'\.\*up' says it is dense"):
        decoded(parts, config(16, dynamic={"-:.*up": {}}))
    with pytest.raises(BadFileError, match="bits=8"):
        reader(config(16, dynamic={".*": {"bits": 8}}))


def test_zero_points_that_the_config_denies_are_refused() -> None:
    parts, dense = random_layer((32, 64), 32)
    with pytest.raises(BadFileError, match="zero_point is False, but its zero points"):
        decoded(parts, config(32, zero_point=False))
    weight = decoded(parts, config(32, zero_point=False), zero_point="true")
    assert torch.equal(weight.dequantize(), dense)


def test_an_override_puts_a_wrong_config_right() -> None:
    parts, dense = random_layer((32, 64), 32)
    assert torch.equal(decoded(parts, config(128), groupsize="32").dequantize(), dense)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mixtral", "gpt2"])
@pytest.mark.parametrize("variant", [{"group_size": 16}, {"is_legacy": True}, {"skip": ["o_proj", "c_fc"]}])
def test_a_whole_model_decodes_to_what_was_packed(kind: str, variant: dict[str, Any], tmp_path: Path) -> None:
    source = tiny.folder(tmp_path / "dense", kind)
    target = tmp_path / "packed"
    dense = pack_folder(source, target, **variant)
    file = target / ("quant_config.json" if "is_legacy" in variant else "config.json")
    said = json.loads(file.read_text(encoding="utf-8"))
    tensors = load_file(target / "model.safetensors")
    made = awq.reader(said.get("quantization_config", said), list(tensors), {})
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if (part := made.part(name)) is None:
            assert torch.equal(tensor, dense.pop(name))
        else:
            parts.setdefault(part.weight, {})[part.role] = tensor
    assert len(parts) >= 6
    assert parts.keys() == dense.keys()
    for name, group in parts.items():
        weight = made.decode(name, group, torch.float32)
        assert isinstance(weight, IntWeight)
        # Conv1D has inputs first, the canonical form outputs.
        assert torch.equal(weight.dequantize(), dense[name].t() if kind == "gpt2" else dense[name])


BY_AUTOAWQ = """
import importlib.util
import sys
import types

import torch
from safetensors.torch import load_file, save_file

# Without the package's own start, which wants what transformers no longer has.
package = types.ModuleType("awq")
package.__path__ = list(importlib.util.find_spec("awq").submodule_search_locations)
sys.modules["awq"] = package
from awq.modules.linear.gemm import WQLinear_GEMM

given = load_file(sys.argv[1])
rows, columns = given["weight"].shape
linear = torch.nn.Linear(columns, rows, bias=False)
linear.weight.data = given["weight"]
made = WQLinear_GEMM.from_linear(linear, 4, 32, scales=given["scale"], zeros=given["zero"])
save_file({role: getattr(made, role).contiguous() for role in ("qweight", "qzeros", "scales")}, sys.argv[1])
"""


@pytest.mark.heavy
@pytest.mark.skipif(importlib.util.find_spec("awq") is None, reason="autoawq is not installed")
@pytest.mark.parametrize("seed", range(3))
def test_what_autoawq_packs_decodes_exactly(seed: int, tmp_path: Path) -> None:
    numbers = random_numbers((64, 96), Variant(group_size=32, sym=False), seed)
    # Powers of two, which dividing by and rounding does not change.
    numbers = replace(numbers, scale=(2.0 ** -(numbers.scale * 8).astype(int)).astype("float16"))
    path = tmp_path / "layer.safetensors"
    given_to_it = {
        "weight": numbers.dense(),
        "scale": torch.from_numpy(numbers.scale).float(),
        "zero": torch.from_numpy(numbers.zero).float(),
    }
    save_file(given_to_it, path)
    subprocess.run([sys.executable, "-c", BY_AUTOAWQ, str(path)], check=True, capture_output=True)
    assert torch.equal(decoded(load_file(path), config(32)).dequantize(), numbers.dense())
