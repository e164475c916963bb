"""GPTQ weights decode exactly to what an independent packer wrote; what does not fit is refused by name."""

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
from safetensors.torch import load_file
from torch import Tensor

from llmctl.core.errors import BadFileError, UsageError
from llmctl.quant.formats import gptq
from llmctl.quant.formats.base import Reader
from llmctl.quant.weights import IntWeight
from tests import tiny
from tests.quant.formats.packers_gptq import (
    Numbers,
    Variant,
    config,
    pack_folder,
    packed,
    random_layer,
    random_numbers,
)

NAME = "model.layers.0.mlp.up_proj"
WEIGHT = f"{NAME}.weight"
SHAPE = (48, 96)


def reader(said: dict[str, Any], **overrides: Any) -> Reader:
    """The reader for a checkpoint of one quantised layer."""
    return gptq.reader(
        said, [f"{NAME}.{role}" for role in ("qweight", "qzeros", "scales", "g_idx")], overrides
    )


def decoded(parts: dict[str, Tensor], said: dict[str, Any], **overrides: Any) -> IntWeight:
    """The layer in its canonical form."""
    weight = reader(said, **overrides).decode(WEIGHT, parts, torch.float32)
    assert isinstance(weight, IntWeight)
    return weight


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [32, -1])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("is_v2", [True, False])
@pytest.mark.parametrize(("desc_act", "has_g_idx"), [(False, False), (False, True), (True, True)])
def test_every_variant_decodes_exactly(
    bits: int, group_size: int, sym: bool, is_v2: bool, desc_act: bool, has_g_idx: bool
) -> None:
    variant = Variant(
        bits=bits, group_size=group_size, sym=sym, is_v2=is_v2, desc_act=desc_act, has_g_idx=has_g_idx
    )
    parts, dense = random_layer(SHAPE, variant)
    weight = decoded(parts, config(variant))
    assert torch.equal(weight.dequantize(), dense)
    assert weight.bits == (8 if bits == 8 else 4)
    assert (weight.zero is None) == sym
    assert (weight.permutation is not None) == (desc_act and group_size != -1)
    assert all(part is None or part.is_contiguous() for part in (weight.values, weight.scale, weight.zero))


@given(data=st.data())
def test_any_shape_decodes_exactly(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([2, 3, 4, 8]))
    group_size = data.draw(st.sampled_from([16, 32]))
    shape = (data.draw(st.integers(1, 5)) * 32, data.draw(st.integers(1, 4)) * 32)
    variant = Variant(bits=bits, group_size=group_size, sym=False, desc_act=data.draw(st.booleans()))
    parts, dense = random_layer(shape, variant, seed=data.draw(st.integers(0, 99)))
    assert torch.equal(decoded(parts, config(variant)).dequantize(), dense)


@pytest.mark.parametrize("group_size", [64, 128])
def test_common_group_sizes_decode_exactly_in_wide_rows(group_size: int) -> None:
    variant = Variant(group_size=group_size, sym=False)
    parts, dense = random_layer((32, 256), variant)
    weight = decoded(parts, config(variant))
    assert weight.group_size == group_size
    assert torch.equal(weight.dequantize(), dense)


def test_a_group_longer_than_the_row_is_the_row() -> None:
    variant = Variant(group_size=128)
    parts, dense = random_layer((32, 64), variant)
    assert torch.equal(decoded(parts, config(variant)).dequantize(), dense)


@pytest.mark.parametrize("desc_act", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [3, 4])
def test_groups_of_several_sizes_make_it_dense(desc_act: bool, dtype: torch.dtype, bits: int) -> None:
    variant = Variant(group_size=64, sym=False, desc_act=desc_act, bits=bits)
    parts, dense = random_layer(SHAPE, variant)
    weight = reader(config(variant)).decode(WEIGHT, parts, dtype)
    assert isinstance(weight, Tensor)
    assert torch.equal(weight, dense.to(dtype))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("writer", ["autogptq", "gptqmodel"])
def test_a_zero_point_of_zero_survives_both_ways_to_store_one_less(bits: int, writer: str) -> None:
    variant = Variant(bits=bits, sym=False, writer=writer)
    numbers = random_numbers(SHAPE, variant)
    numbers.zero[:, ::3] = 0
    assert torch.equal(decoded(packed(numbers, variant), config(variant)).dequantize(), numbers.dense())


@pytest.mark.parametrize("writer", ["autogptq", "gptqmodel", "gptqmodel-old"])
def test_symmetric_3_bits_are_read_whoever_wrote_them(writer: str) -> None:
    variant = Variant(bits=3, writer=writer)
    parts, dense = random_layer(SHAPE, variant)
    assert torch.equal(decoded(parts, config(variant)).dequantize(), dense)


def test_asymmetric_3_bits_of_gptqmodel_are_read_only_on_the_users_word() -> None:
    variant = Variant(bits=3, sym=False, writer="gptqmodel")
    parts, dense = random_layer(SHAPE, variant)
    with pytest.raises(BadFileError, match="may be of either of two layouts") as caught:
        decoded(parts, config(variant))
    assert "checkpoint_format=gptq" in str(caught.value.hint)
    assert torch.equal(decoded(parts, config(variant), checkpoint_format="gptq").dequantize(), dense)


def test_without_a_word_on_symmetry_the_zero_points_are_kept() -> None:
    parts, dense = random_layer(SHAPE, Variant())
    weight = decoded(parts, config(Variant(), sym=None))
    assert weight.zero is not None
    assert torch.equal(weight.dequantize(), dense)


def test_an_order_that_the_config_denies_is_followed_and_said(caplog: pytest.LogCaptureFixture) -> None:
    variant = Variant(desc_act=True)
    parts, dense = random_layer(SHAPE, variant)
    said = config(variant, desc_act=False)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(decoded(parts, said).dequantize(), dense)
    assert f"the config denies act-order, but {WEIGHT} has it" in caplog.text


def test_an_order_of_zeros_without_act_order_means_none() -> None:
    parts, dense = random_layer(SHAPE, Variant())
    parts["g_idx"].zero_()
    weight = decoded(parts, config(Variant()))
    assert weight.permutation is None
    assert torch.equal(weight.dequantize(), dense)


def test_an_order_of_zeros_with_act_order_is_refused() -> None:
    parts, _ = random_layer(SHAPE, Variant(desc_act=True))
    parts["g_idx"].zero_()
    with pytest.raises(
        BadFileError, match=f"{WEIGHT} is damaged: its g_idx puts 96 inputs into the group 0, .* 32"
    ):
        decoded(parts, config(Variant(desc_act=True)))
    parts, dense = random_layer(SHAPE, Variant(desc_act=True, group_size=-1))
    assert not parts["g_idx"].any()
    assert torch.equal(decoded(parts, config(Variant(desc_act=True, group_size=-1))).dequantize(), dense)


# Rules for some modules


DYNAMIC = {
    r"-:.*lm_head": {},
    r"+:.*up_proj": {"bits": 8, "group_size": 16, "sym": False, "desc_act": True},
    r".*layers\.0": {"bits": 2},
    r"-:.*layers\.1": {},
}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("model.layers.0.mlp.up_proj", Variant(bits=8, group_size=16, sym=False, desc_act=True)),
        ("model.layers.0.mlp.down_proj", Variant(bits=2)),
        ("model.layers.2.mlp.down_proj", Variant()),
        # The first rule that matches holds, so this one stays quantised.
        ("model.layers.1.mlp.up_proj", Variant(bits=8, group_size=16, sym=False, desc_act=True)),
    ],
)
def test_the_first_rule_that_matches_a_module_holds(module: str, expected: Variant) -> None:
    parts, dense = random_layer(SHAPE, expected)
    names = [f"{module}.{role}" for role in parts]
    made = gptq.reader(config(Variant(), dynamic=DYNAMIC), names, {})
    weight = made.decode(f"{module}.weight", parts, torch.float32)
    assert isinstance(weight, IntWeight)
    assert torch.equal(weight.dequantize(), dense)
    assert made.title == "GPTQ, 4 bits, groups of 32, other settings for some modules"


def test_a_rule_must_match_from_the_start_of_the_name() -> None:
    parts, dense = random_layer(SHAPE, Variant())
    said = config(Variant(), dynamic={"+:up_proj": {"bits": 8}, "-:mlp": {}})
    assert torch.equal(decoded(parts, said).dequantize(), dense)


def test_a_quantised_weight_that_a_rule_says_is_dense_is_refused() -> None:
    parts, _ = random_layer(SHAPE, Variant())
    with pytest.raises(BadFileError, match=rf"{WEIGHT} .*'\.\*mlp' says it is dense") as caught:
        decoded(parts, config(Variant(), dynamic={"-:.*mlp": {}}))
    assert "--quant-config" not in str(caught.value.hint)


def test_what_a_rule_says_is_not_for_the_user_to_put_right() -> None:
    parts, _ = random_layer(SHAPE, Variant())
    with pytest.raises(BadFileError, match="bits is 8, but its qzeros has 4 bits a number") as caught:
        decoded(parts, config(Variant(), dynamic={".*mlp": {"bits": 8}}), bits=4)
    assert "--quant-config" not in str(caught.value.hint)


@pytest.mark.parametrize(
    ("dynamic", "words"),
    [
        ({"+:(": {}}, "dynamic the expression .*, which is no regular expression"),
        ({"+:.*": {"bits": 5}}, "bits=5"),
        ({"+:.*": {"format": "marlin"}}, "marlin"),
        ({"+:.*": {"rank": 8}}, "rank"),
        ([], None),
        (["+:.*"], "an object of objects is expected"),
        ({"+:.*": 8}, "an object of objects is expected"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(dynamic: Any, words: str | None) -> None:
    if words is None:
        assert reader(config(Variant(), dynamic=dynamic)).title == "GPTQ, 4 bits, groups of 32"
        return
    with pytest.raises(BadFileError, match=words):
        reader(config(Variant(), dynamic=dynamic))


# What the config says


def test_the_keys_of_old_tools_are_known() -> None:
    old = {
        "wbits": 4,
        "groupsize": 32,
        "act_order": False,
        "damp_percent": 0.01,
        "static_groups": False,
        "sym": True,
        "true_sequential": True,
        "model_name_or_path": None,
        "model_file_base_name": "model",
        "is_marlin_format": False,
        "quant_method": "gptq",
    }
    parts, dense = random_layer(SHAPE, Variant())
    assert torch.equal(decoded(parts, old).dequantize(), dense)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"checkpoint_format": "marlin"}, "checkpoint_format=marlin"),
        ({"checkpoint_format": "gptq_marlin_24"}, "checkpoint_format=gptq_marlin_24"),
        ({"checkpoint_format": "gptq_p"}, "not the layout gptq_p"),
        ({"is_marlin_format": True}, "Marlin"),
        ({"pack_dtype": "int8"}, "pack_dtype=int8"),
        ({"bits": 5}, "bits=5"),
        ({"bits": "four"}, "a whole number"),
        ({"bits": True}, "a whole number"),
        ({"bits": None}, "does not say bits"),
        ({"group_size": None}, "does not say group_size"),
        ({"group_size": 0}, "group_size=0"),
        ({"sym": "perhaps"}, "true or false"),
        ({"modules_in_block_to_quantize": "q_proj"}, "a list of names is expected"),
        ({"modules_in_block_to_quantize": [["q_proj"], [5]]}, "a list of names is expected"),
        ({"adapter": {"name": "lora"}}, "does not know: adapter"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused_by_name(more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadFileError, match=words):
        reader({**config(Variant()), **more})


@pytest.mark.parametrize(
    ("variant", "more", "title"),
    [
        (Variant(desc_act=True, group_size=128), {}, "GPTQ, 4 bits, groups of 128, act-order"),
        (Variant(bits=3, group_size=-1, is_v2=True), {}, "GPTQ v2, 3 bits, a scale for each row"),
        (Variant(), {"dynamic": {"-:.*": {}}}, "GPTQ, 4 bits, groups of 32"),
    ],
)
def test_the_title_says_what_it_is(variant: Variant, more: dict[str, Any], title: str) -> None:
    made = reader(config(variant, **more))
    assert made.title == title
    assert made.gives_quantised


def test_only_modules_with_a_qweight_are_quantised() -> None:
    made = reader(config(Variant()))
    part = made.part(f"{NAME}.qzeros")
    assert part is not None
    assert (part.weight, part.role) == (WEIGHT, "qzeros")
    assert made.part(f"{NAME}.bias") is None
    assert made.part("lm_head.weight") is None
    assert made.part("model.layers.0.other.scales") is None
    # Without its packed numbers it is still no dense one.
    assert gptq.reader(config(Variant()), [f"{NAME}.qzeros"], {}).part(f"{NAME}.scales") is not None


@pytest.mark.parametrize(
    ("more", "is_said"),
    [
        ({"modules_in_block_to_quantize": [["self_attn.q_proj"], ["mlp.up_proj"]]}, False),
        ({"modules_in_block_to_quantize": ["self_attn.q_proj"]}, True),
        ({}, False),
    ],
)
def test_a_list_that_leaves_a_quantised_module_out_is_said(
    more: dict[str, Any], is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        reader(config(Variant(), **more))
    assert (f"{NAME} is quantised, though" in caplog.text) is is_said


def test_a_quantised_head_that_the_config_denies_is_read_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = gptq.reader(config(Variant()), ["lm_head.qweight"], {})
    assert made.part("lm_head.scales") is not None
    assert "lm_head is quantised, though" in caplog.text


# Parts that do not fit


def without(role: str) -> Callable[[dict[str, Tensor]], object]:
    """A checkpoint that lost a tensor."""
    return lambda parts: parts.pop(role)


def replaced(role: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    """A checkpoint with another tensor in its place."""
    return lambda parts: parts.update({role: change(parts[role])})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("qzeros"), "it has no qzeros"),
        (without("qweight"), "it has no qweight"),
        (replaced("g_idx", Tensor.float), r"its g_idx is of type torch\.float32, not of whole numbers"),
        (replaced("g_idx", Tensor.bool), r"its g_idx is of type torch\.bool, not of whole numbers"),
        (replaced("qweight", Tensor.long), "not of the types int32"),
        (replaced("scales", Tensor.int), "not of the types int32"),
        (replaced("scales", lambda scales: scales[:, :-8]), "scales for 40 outputs, qweight for 48"),
        (replaced("scales", lambda scales: scales[:2]), "have the shapes"),
        (replaced("qweight", Tensor.flatten), "have the shapes"),
        (replaced("g_idx", lambda groups: groups + 1), "names the group 3 of 3"),
        (replaced("g_idx", lambda groups: groups - 1), "names the group -1 of 3"),
        (replaced("g_idx", lambda groups: groups[:-16]), "its g_idx is of 80 inputs, its qweight of 96"),
        (replaced("g_idx", lambda groups: groups.clamp(max=1)), "puts 64 inputs into the group 1, .* has 32"),
    ],
)
def test_damaged_parts_are_refused_by_name(change: Callable[[dict[str, Tensor]], object], words: str) -> None:
    parts, _ = random_layer(SHAPE, Variant())
    change(parts)
    with pytest.raises(BadFileError, match=f"{WEIGHT} is damaged: .*{words}"):
        decoded(parts, config(Variant()))


CONTRADICTIONS = [
    ({"bits": 8}, "bits", "its qzeros has 4 bits a number"),
    ({"bits": 3}, "bits", "its qzeros has 4 bits a number"),
    ({"group_size": 16}, "group_size", "it has 3 groups for 96 inputs"),
    ({"group_size": -1}, "group_size", "it has 3 groups for 96 inputs"),
    ({"desc_act": True}, "desc_act", "it has no g_idx"),
    ({"checkpoint_format": "gptq_v2"}, "sym", "its zero points are not all 8"),
]


@pytest.mark.parametrize(("more", "key", "words"), CONTRADICTIONS)
def test_a_config_that_its_tensors_contradict_is_refused(more: dict[str, Any], key: str, words: str) -> None:
    parts, _ = random_layer(SHAPE, Variant(has_g_idx=False))
    with pytest.raises(BadFileError, match=f"{key} is .*, but {words}") as caught:
        decoded(parts, config(Variant(), **more))
    assert WEIGHT in str(caught.value)
    assert f"--quant-config {key}=" in str(caught.value.hint)


@pytest.mark.parametrize(("more", "key", "words"), CONTRADICTIONS[:-1])
def test_an_override_that_the_tensors_contradict_is_the_users_error(
    more: dict[str, Any], key: str, words: str
) -> None:
    parts, _ = random_layer(SHAPE, Variant(has_g_idx=False))
    with pytest.raises(UsageError, match=f"{key}={more[key]} does not fit .*{WEIGHT}: {words}"):
        decoded(parts, config(Variant()), **more)


def test_denying_an_order_that_is_there_is_the_users_error() -> None:
    variant = Variant(desc_act=True)
    parts, _ = random_layer(SHAPE, variant)
    with pytest.raises(UsageError, match="desc_act=false does not fit"):
        decoded(parts, config(variant), act_order="false")


def test_an_override_puts_a_wrong_config_right() -> None:
    variant = Variant(sym=False, is_v2=True)
    parts, dense = random_layer(SHAPE, variant)
    wrong = config(variant, bits=8, group_size=128, sym=True, checkpoint_format="gptq")
    weight = decoded(parts, wrong, wbits="4", groupsize=32, sym=False, checkpoint_format="gptq_v2")
    assert torch.equal(weight.dequantize(), dense)


@pytest.mark.parametrize(
    ("overrides", "words"), [({"zero_point": True}, "zero_point=True"), ({"bits": 7}, "bits=7")]
)
def test_an_override_that_says_nothing_here_is_refused(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        reader(config(Variant()), **overrides)


# Whole checkpoints


def decoded_folder(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a quantised checkpoint, dense, as nn.Linear has it."""
    said = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    said = said or json.loads((folder / "quantize_config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    made = gptq.reader(said, list(tensors), {})
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part = made.part(name)
        if part is None:
            found[name] = tensor
        else:
            parts.setdefault(part.weight, {})[part.role] = tensor
    for name, group in parts.items():
        weight = made.decode(name, group, torch.float32)
        found[name] = weight if isinstance(weight, Tensor) else weight.dequantize()
    return found


MIXED = {r"+:.*layers\.1\.": {"bits": 8, "group_size": 16}, r"-:.*(down_proj|w2)": {}}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mixtral", "gpt2"])
@pytest.mark.parametrize(
    "variant",
    [
        {"group_size": 16, "desc_act": True, "sym": False},
        {"bits": 3, "is_legacy": True},
        {"dynamic": MIXED},
    ],
)
def test_a_whole_model_decodes_to_what_was_packed(kind: str, variant: dict[str, Any], tmp_path: Path) -> None:
    source = tiny.folder(tmp_path / "dense", kind)
    dense = pack_folder(source, tmp_path / "packed", **variant)
    found = decoded_folder(tmp_path / "packed")
    assert found.keys() == dense.keys() == load_file(source / "model.safetensors").keys()
    num_changed = 0
    for name, before in load_file(source / "model.safetensors").items():
        # Conv1D has inputs first, the canonical form outputs.
        own = found[name].t() if kind == "gpt2" and ".c_" in name and before.ndim == 2 else found[name]
        assert torch.equal(own, dense[name])
        num_changed += not torch.equal(own, before)
    assert num_changed >= 8


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.01), (4, 0.12), (3, 0.25), (2, 0.6)])
def test_the_packers_rounding_stays_near_the_weight(bits: int, limit: float, tmp_path: Path) -> None:
    source = tiny.folder(tmp_path / "dense")
    dense = pack_folder(source, tmp_path / "packed", bits=bits, sym=False)
    name = "model.layers.0.mlp.up_proj.weight"
    before = load_file(source / "model.safetensors")[name]
    assert 0 < float((dense[name] - before).norm() / before.norm()) < limit


BY_GPTQMODEL = """
import sys
import torch
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module
from gptqmodel.quantization.config import QuantizeConfig
from safetensors.torch import load_file, save_file

path, bits, sym, v1 = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True", sys.argv[4] == "True"
given = load_file(path)
rows, columns = given["weight"].shape
linear = torch.nn.Linear(columns, rows, bias=False)
linear.weight.data = given["weight"]
made = TorchLinear(bits=bits, group_size=32, sym=sym, desc_act=True, in_features=columns, out_features=rows,
                   bias=False, pack_dtype=torch.int32)
made.pack_original(linear=linear, scales=given["scale"], zeros=given["zero"], g_idx=given["g_idx"])
if v1:
    convert_gptq_v2_to_v1_format_module(made, QuantizeConfig(bits=bits, group_size=32))
save_file({role: getattr(made, role).contiguous() for role in ("qweight", "qzeros", "scales", "g_idx")}, path)
"""


@pytest.mark.heavy
@pytest.mark.skipif(importlib.util.find_spec("gptqmodel") is None, reason="gptqmodel is not installed")
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("is_v2", [True, False])
def test_what_gptqmodel_packs_decodes_exactly(bits: int, sym: bool, is_v2: bool, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    variant = Variant(bits=bits, sym=sym, desc_act=True, is_v2=is_v2, writer="gptqmodel")
    numbers = _with_plain_scales(random_numbers((64, 96), variant))
    path = tmp_path / "layer.safetensors"
    given = {
        "weight": numbers.dense(),
        "scale": torch.from_numpy(numbers.scale.T.copy()),
        "zero": torch.from_numpy(numbers.zero.T.copy()).float(),
        "g_idx": torch.from_numpy(numbers.g_idx).int(),
    }
    save_file(given, path)
    command = [sys.executable, "-c", BY_GPTQMODEL, str(path), str(bits), str(sym), str(not is_v2)]
    subprocess.run(command, check=True, capture_output=True)
    overrides = {"checkpoint_format": "gptq"} if bits == 3 and not sym and not is_v2 else {}
    weight = decoded(load_file(path), config(variant), **overrides)
    assert torch.equal(weight.dequantize(), numbers.dense())


def _with_plain_scales(numbers: Numbers) -> Numbers:
    """With powers of two for scales, which dividing by and rounding does not change."""
    return replace(numbers, scale=(2.0 ** -(numbers.scale * 8).astype(int)).astype("float16"))
