"""compressed-tensors' formats: those of a packer of our own, and those that the package writes."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadFileError, UsageError
from llmctl.quant.formats.table import open_reader
from llmctl.quant.weights import IntWeight, QuantWeight
from tests import tiny
from tests.quant.formats.checkpoints import is_conv1d, read_folder
from tests.quant.formats.packers_ct import Variant, config_of, pack, pack_folder

MODULE = "model.layers.0.mlp.up_proj"


def decode(
    parts: dict[str, torch.Tensor],
    variant: Variant,
    *,
    module: str = MODULE,
    config: dict[str, Any] | None = None,
) -> QuantWeight | torch.Tensor:
    stored = {f"{module}.{role}": part for role, part in parts.items()}
    reader = open_reader(config or config_of((["Linear"], variant)), stored)
    by_role = {}
    for name, tensor in stored.items():
        part = reader.part(name)
        assert part is not None
        assert part.weight == f"{module}.weight"
        by_role[part.role] = tensor
    return reader.decode(f"{module}.weight", by_role, torch.float32)


def dense(weight: QuantWeight | torch.Tensor) -> torch.Tensor:
    return weight if isinstance(weight, torch.Tensor) else weight.dequantize()


def random(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    rows=st.integers(1, 12),
    groups=st.integers(1, 3),
    strategy=st.sampled_from(["group", "channel", "tensor", "block"]),
    is_symmetric=st.booleans(),
    is_old=st.booleans(),
    scale_dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 99),
)
def test_packed_integers_are_exact(
    bits: int,
    rows: int,
    groups: int,
    strategy: str,
    is_symmetric: bool,
    is_old: bool,
    scale_dtype: torch.dtype,
    seed: int,
) -> None:
    variant = Variant(
        bits=bits,
        strategy=strategy,
        # A multiple of 32 columns is where both ways of packing can be told apart.
        group_size=32,
        block=(5, 32),
        is_symmetric=is_symmetric or strategy in ("tensor", "block"),
        is_old=is_old,
        scale_dtype=scale_dtype,
    )
    parts, expected = pack(random(rows, 32 * groups, seed), variant)
    weight = decode(parts, variant)
    assert isinstance(weight, IntWeight)
    assert weight.bits == (4 if bits <= 4 else 8)
    assert torch.equal(weight.dequantize(), expected)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("strategy", ["group", "channel", "tensor"])
@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("stored_as", ["int-quantized", "naive-quantized"])
def test_plain_integers_are_exact(bits: int, strategy: str, is_symmetric: bool, stored_as: str) -> None:
    variant = Variant(format=stored_as, bits=bits, strategy=strategy, is_symmetric=is_symmetric)
    parts, expected = pack(random(6, 48), variant)
    assert torch.equal(dense(decode(parts, variant)), expected)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_columns_of_shuffled_groups_keep_their_places(bits: int, is_symmetric: bool) -> None:
    variant = Variant(bits=bits, has_order=True, is_symmetric=is_symmetric)
    parts, expected = pack(random(32, 64), variant)
    weight = decode(parts, variant)
    assert isinstance(weight, IntWeight)
    assert weight.permutation is not None
    assert torch.equal(weight.dequantize(), expected)


def test_groups_in_order_and_groups_that_were_never_set_need_no_permutation() -> None:
    variant = Variant()
    parts, expected = pack(random(4, 64), variant)
    for order in (torch.arange(64) // 16, torch.full((64,), -1)):
        weight = decode({**parts, "weight_g_idx": order.int()}, variant)
        assert isinstance(weight, IntWeight)
        assert weight.permutation is None
        assert torch.equal(weight.dequantize(), expected)


@pytest.mark.parametrize("has_order", [True, False])
@pytest.mark.parametrize(
    ("order", "said"),
    [
        (torch.zeros(64).int(), "puts 64 columns into the group 0, which has 16"),
        ((torch.arange(1, 65) // 16).clamp(max=3).int(), "puts 15 columns into the group 0"),
        (torch.zeros(0).int(), r"is \[0\] of type torch.int32, not a whole number for each of 64 columns"),
        (torch.full((63,), -1), r"is \[63\]"),
        (torch.arange(64) // 16 - 1, "does not put 64 columns in 4 groups"),
        (torch.arange(64) / 16, r"is \[64\] of type torch.float32, not a whole number"),
        (torch.arange(64) > 31, r"is \[64\] of type torch.bool, not a whole number"),
    ],
)
def test_an_order_that_does_not_fit_the_groups_is_refused(
    order: torch.Tensor, said: str, has_order: bool
) -> None:
    variant = Variant(has_order=has_order)
    parts, _ = pack(random(8, 64), variant)
    with pytest.raises(BadFileError, match=rf"up_proj\.weight is damaged: its weight_g_idx {said}"):
        decode({**parts, "weight_g_idx": order}, variant)


def test_an_order_that_the_config_denies_is_followed_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    parts, expected = pack(random(8, 64), Variant(has_order=True))
    reader = open_reader(config_of((["Linear"], Variant())), [f"{MODULE}.{role}" for role in parts])
    for _ in range(2):
        weight = reader.decode(f"{MODULE}.weight", parts, torch.float32)
        assert torch.equal(dense(weight), expected)
    assert caplog.text.count(f"names no actorder, but {MODULE}.weight has one") == 1


def test_an_order_that_the_config_names_is_followed_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    parts, _ = pack(random(8, 64), Variant(has_order=True))
    decode(parts, Variant(has_order=True))
    assert "actorder" not in caplog.text


def test_an_odd_width_is_kept_in_bytes() -> None:
    variant = Variant(strategy="channel")
    parts, expected = pack(random(4, 33), variant)
    weight = decode(parts, variant)
    assert isinstance(weight, IntWeight)
    assert weight.bits == 8
    assert torch.equal(weight.dequantize(), expected)


@pytest.mark.parametrize(
    "variant",
    [
        Variant(format="float-quantized", bits=8, strategy="tensor"),
        Variant(format="float-quantized", bits=8, strategy="channel"),
        Variant(format="float-quantized", bits=8, strategy="group"),
        Variant(format="float-quantized", bits=8, strategy="block"),
        Variant(format="mxfp8-quantized", bits=8, strategy="group", group_size=32),
    ],
)
def test_eight_bit_floats_become_dense(variant: Variant) -> None:
    parts, expected = pack(random(20, 64), variant)
    weight = decode(parts, variant)
    assert isinstance(weight, torch.Tensor)
    assert torch.equal(weight, expected)


@pytest.mark.parametrize(
    "variant",
    [
        Variant(format="mxfp4-pack-quantized", strategy="group", group_size=32),
        Variant(format="nvfp4-pack-quantized", strategy="group", group_size=16),
    ],
)
def test_four_bit_floats_are_exact(variant: Variant) -> None:
    parts, expected = pack(random(6, 64), variant)
    weight = decode(parts, variant)
    assert isinstance(weight, IntWeight)
    assert weight.group_size == variant.group_size
    assert torch.equal(weight.dequantize(), expected)


def test_a_whole_scale_of_zero_is_refused() -> None:
    variant = Variant(format="nvfp4-pack-quantized", strategy="group", group_size=16)
    parts, _ = pack(random(6, 64), variant)
    with pytest.raises(BadFileError, match="its weight_scale holds numbers that are NaN or infinite"):
        decode({**parts, "weight_global_scale": torch.zeros(1)}, variant)


@pytest.mark.parametrize("num_rows", [16, 24])
def test_a_scale_for_each_column_is_refused(num_rows: int) -> None:
    variant = Variant(format="float-quantized", bits=8, strategy="channel")
    parts, _ = pack(random(num_rows, 16), variant)
    with pytest.raises(BadFileError, match=rf"scales of \[1, 16\] do not fit \[{num_rows}, 16\] in channels"):
        decode({**parts, "weight_scale": torch.ones(1, 16)}, variant)


def test_names_go_before_expressions_and_those_before_classes() -> None:
    by_class, by_name, by_start = Variant(), Variant(bits=8), Variant(strategy="channel")
    config = config_of(
        (["Linear"], by_class), (["re:.*mlp.*"], by_start), (["model.layers.1.mlp.up_proj"], by_name)
    )
    for module, variant in (
        ("model.layers.0.self_attn.q_proj", by_class),
        ("model.layers.0.mlp.up_proj", by_start),
        ("model.layers.1.mlp.up_proj", by_name),
    ):
        parts, expected = pack(random(4, 32), variant)
        assert torch.equal(dense(decode(parts, variant, module=module, config=config)), expected)


def test_groups_may_be_stored_in_several_formats() -> None:
    packed, floats = Variant(), Variant(format="float-quantized", bits=8, strategy="channel")
    config = config_of((["re:.*mlp.*"], packed), (["Linear"], floats), (["Embedding"], Variant(bits=8)))
    assert config["format"] == "mixed-precision"
    assert open_reader(config, ()).gives_quantised
    for module, variant in (
        (MODULE, packed),
        ("model.layers.0.self_attn.q_proj", floats),
        ("model.embed_tokens", Variant(bits=8)),
    ):
        parts, expected = pack(random(4, 32), variant)
        assert torch.equal(dense(decode(parts, variant, module=module, config=config)), expected)


@pytest.mark.parametrize(
    ("targets", "ignore", "said"),
    [
        (["re:.*attn.*"], (), "has no group that means"),
        (["Linear"], (MODULE,), "leaves .* out under ignore"),
        (["Linear"], ("re:.*up_proj",), "leaves .* out under ignore"),
    ],
)
def test_a_config_that_leaves_a_quantised_weight_out_is_refused(
    targets: list[str], ignore: tuple[str, ...], said: str
) -> None:
    parts, _ = pack(random(4, 32), Variant())
    config = config_of((targets, Variant()), ignore=ignore)
    with pytest.raises(BadFileError, match=f"quantization_config .*{said}") as caught:
        decode(parts, Variant(), config=config)
    assert MODULE in caught.value.message
    assert "damaged" not in caught.value.message


def test_scales_of_activations_and_cache_belong_to_weights_and_are_said_to_be_unused() -> None:
    variant = Variant(format="int-quantized", bits=8, strategy="channel")
    config = config_of((["Linear"], variant))
    config["kv_cache_scheme"] = {"num_bits": 8, "type": "float", "strategy": "tensor"}
    inputs = config["config_groups"]["group_0"]["input_activations"]
    inputs |= {"dynamic": False, "strategy": "tensor"}
    layer = "model.layers.0.self_attn"
    names = [
        f"{layer}.{proj}_proj.{role}" for proj in "kv" for role in ("weight", "weight_scale", "input_scale")
    ]
    reader = open_reader(config, {*names, f"{layer}.k_scale", f"{layer}.v_scale", "model.norm.weight"})
    assert reader.title == (
        "compressed-tensors, 8-bit integers (int-quantized) in channels; "
        "its scales of activations are not used; the cache is not quantised"
    )
    part = reader.part(f"{layer}.v_scale")
    assert part is not None
    assert (part.weight, part.role) == (f"{layer}.v_proj.weight", "v_scale")
    assert reader.part("model.norm.weight") is None


def test_four_bits_of_activations_are_said_to_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    config = config_of((["Linear"], Variant(format="nvfp4-pack-quantized")))
    config["config_groups"]["group_0"]["input_activations"] = {
        "num_bits": 4,
        "type": "float",
        "dynamic": "local",
    }
    with caplog.at_level(logging.INFO, "llmctl"):
        reader = open_reader(config, ())
    assert reader.title.endswith("in groups of 16; its activations are not rounded to 4 bits")
    assert f"the weights are read as {reader.title}" in caplog.text


def test_an_order_that_is_claimed_and_not_stored_is_refused() -> None:
    variant = Variant(has_order=True)
    parts, _ = pack(random(4, 32), variant)
    del parts["weight_g_idx"]
    with pytest.raises(BadFileError, match="it has no weight_g_idx"):
        decode(parts, variant)


def test_an_order_of_floats_is_refused() -> None:
    floats = Variant(format="float-quantized", bits=8)
    parts, _ = pack(random(4, 32), floats)
    with pytest.raises(BadFileError, match="has a weight_g_idx, which is not for 8-bit floats"):
        decode({**parts, "weight_g_idx": torch.zeros(32)}, floats)
    with pytest.raises(BadFileError, match="actorder 'group', which llmctl does not read"):
        open_reader(config_of((["Linear"], Variant(format="float-quantized", bits=8, has_order=True))), ())


def test_a_weight_that_is_there_twice_is_refused() -> None:
    parts, dense_weight = pack(random(4, 32), Variant())
    with pytest.raises(BadFileError, match="it is there twice, packed and dense"):
        decode({**parts, "weight": dense_weight}, Variant())


def _damaged(change: str) -> dict[str, torch.Tensor]:
    parts, _ = pack(random(8, 32), Variant(is_symmetric=False))
    changed: dict[str, dict[str, torch.Tensor]] = {
        "width": {"weight_shape": torch.tensor([8, 48])},
        "packed": {"weight_packed": torch.zeros(8, 5, dtype=torch.int32)},
        "rows": {"weight_shape": torch.tensor([7, 32])},
        "words": {"weight_packed": parts["weight_packed"].long()},
        "scale": {"weight_scale": torch.ones(8, 3)},
        "nan": {"weight_scale": torch.full((8, 2), torch.nan)},
        "scale type": {"weight_scale": torch.ones(8, 2, dtype=torch.int32)},
        "zero": {"weight_zero_point": torch.zeros(2, 2, dtype=torch.int32)},
        "zero type": {"weight_zero_point": torch.zeros(8, 2)},
        "order": {"weight_g_idx": torch.full((32,), 2)},
        "plain": {"weight": parts["weight_packed"].char()},
        "shape type": {"weight_shape": torch.tensor([torch.nan, 32])},
        "whole": {"weight_global_scale": torch.ones(1)},
    }
    if change in parts:
        return {role: part for role, part in parts.items() if role != change}
    if change == "plain":
        del parts["weight_packed"]
    return parts | changed[change]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("width", r"of \[8, 2\] do not fit \[8, 48\]"),
        ("packed", "5 words do not hold 32 numbers of 4 bits"),
        ("rows", r"weight_shape says \[7, 32\], but there are 8 rows"),
        ("words", r"it is of type torch\.int64"),
        ("scale", r"of \[8, 3\] do not fit \[8, 32\]: 4-bit integers \(pack-quantized\) in groups of 16"),
        ("nan", "its weight_scale holds numbers that are NaN"),
        ("scale type", "its weight_scale is of type int32"),
        ("zero", "2 words do not hold 8 numbers"),
        ("zero type", "its weight_zero_point is of type"),
        ("order", "weight_g_idx does not put 32 columns in 2 groups"),
        ("plain", "it is stored as weight, which is not pack-quantized"),
        ("shape type", r"its weight_shape is of type torch\.float32, not of whole numbers"),
        ("whole", "it has a weight_global_scale, which is not for 4-bit integers"),
        ("weight_scale", "it has no weight_scale"),
        ("weight_shape", "it has no weight_shape"),
        ("weight_zero_point", "it has no weight_zero_point"),
    ],
)
def test_damage_is_refused_by_name(change: str, said: str) -> None:
    with pytest.raises(BadFileError, match=rf"up_proj\.weight is damaged: .*{said}"):
        decode(_damaged(change), Variant(is_symmetric=False))


def test_what_contradicts_the_scheme_is_refused() -> None:
    parts, _ = pack(random(8, 32), Variant(is_symmetric=False))
    with pytest.raises(BadFileError, match="zero points, but its scheme is symmetric"):
        decode(parts, Variant())
    narrow = Variant(format="int-quantized", bits=4)
    wide, _ = pack(random(8, 32), Variant(format="int-quantized", bits=8))
    with pytest.raises(BadFileError, match="numbers of more than 4 bits"):
        decode(wide, narrow)
    with pytest.raises(BadFileError, match="do not fit"):
        decode(wide, Variant(format="int-quantized", bits=8, strategy="tensor"))
    floats = Variant(format="float-quantized", bits=8, strategy="channel")
    with pytest.raises(BadFileError, match="not of 8-bit floats"):
        decode(wide, floats)
    with pytest.raises(BadFileError, match=f"says that {MODULE} is dense, and the file has scales"):
        decode(wide, Variant(format="dense"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "marlin-24"}, "stored as 'marlin-24'"),
        ({"format": "sparse-24-bitmask"}, "stored as 'sparse-24-bitmask'"),
        ({"format": "mxfp6-pack-quantized"}, "stored as 'mxfp6-pack-quantized'"),
        ({"sparsity_config": {"format": "sparse-bitmask"}}, "stored sparse"),
        ({"transform_config": {"config_groups": {"u": {"type": "hadamard"}}}}, "transform_config"),
        ({"moe_sparsity_config": {"method": "prune"}}, "does not know: moe_sparsity_config"),
        ({"config_groups": {}}, "no config_groups"),
        ({"config_groups": {"W8A8": ["Linear"]}}, "compressed-tensors, W8A8"),
        ({"ignore": ["re:("]}, "no regular expression"),
        ({"weights": {"num_bits": 9}}, "num_bits 9 and type 'int'"),
        ({"weights": {"num_bits": "4"}}, "num_bits '4' and type 'int'; llmctl reads 1 to 8, int or float"),
        ({"weights": {"num_bits": True}}, "num_bits True"),
        ({"weights": {"type": "posit"}}, "num_bits 4 and type 'posit'"),
        ({"weights": {"type": "float"}}, "4-bit float weights, stored as 'pack-quantized'"),
        ({"weights": {"strategy": "attn_head"}}, "strategy 'attn_head'"),
        ({"weights": {"group_size": None}}, "group_size None"),
        ({"weights": {"strategy": "block"}}, "block_structure None"),
        ({"weights": {"group_size": "128"}}, "group_size '128'"),
        ({"weights": {"rounding": "up"}}, "does not know: rounding"),
        ({"weights": {"symmetric": "false"}}, "symmetric 'false'; true or false is expected"),
        ({"weights": {"dynamic": True}}, "weights that are dynamic"),
        ({"weights": {"actorder": "random"}}, "actorder 'random'"),
        ({"group": {"weights": "int4"}}, "has weights 'int4'; an object is expected"),
        ({"group": {"inputs": {}}}, "does not know: inputs"),
        ({"group": {"input_activations": True}}, "input_activations True; an object is expected"),
        ({"group": {"format": "int-quantized"}}, "format 'int-quantized' here and 'pack-quantized' for the"),
        ({"group": {"targets": "Linear"}}, "targets 'Linear'; a list of names is expected"),
        ({"ignore": "lm_head"}, "ignore 'lm_head'; a list of names is expected"),
        ({"kv_cache_scheme": "fp8"}, "kv_cache_scheme 'fp8'; an object is expected"),
        ({"sparsity_config": True}, "sparsity_config True; an object is expected"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    config = config_of((["Linear"], Variant()))
    group = config["config_groups"]["group_0"]
    group["weights"] |= changes.get("weights", {})
    group["format"] = None
    group |= changes.get("group", {})
    others = {key: value for key, value in changes.items() if key not in ("weights", "group")}
    with pytest.raises(BadFileError, match=said):
        open_reader({**config, **others}, ())


def test_what_changes_nothing_is_accepted() -> None:
    config = config_of((["Linear"], Variant()))
    config |= {"version": "0.12.2", "transform_config": {}, "sparsity_config": {"format": "dense"}}
    config["config_groups"]["only_inputs"] = {"targets": ["LlamaAttention"], "weights": None}
    config["config_groups"]["group_0"]["weights"] |= {"strategy": None, "scale_dtype": None}
    assert (
        open_reader(config, ()).title == "compressed-tensors, 4-bit integers (pack-quantized) in groups of 16"
    )


def test_an_override_may_only_agree() -> None:
    config = config_of((["Linear"], Variant()))
    open_reader(config, (), {"bits": 4, "group_size": 16})
    with pytest.raises(
        UsageError,
        match="groupsize is given as 128, but the checkpoint is compressed-tensors with groupsize 16",
    ):
        open_reader(config, (), {"groupsize": 128})


@pytest.mark.parametrize("kind", ["mixtral", "gpt2"])
def test_a_folder_is_read_whole(tmp_path: Path, kind: str) -> None:
    tiny.folder(tmp_path / "dense", kind)
    dense = pack_folder(tmp_path / "dense", tmp_path / "packed", is_symmetric=False)
    quantised, others = read_folder(tmp_path / "packed", open_reader)
    assert len(quantised) >= 8
    assert quantised.keys() | others.keys() == dense.keys()
    assert all(
        torch.equal(weight.T if is_conv1d(name) else weight, dense[name])
        for name, weight in quantised.items()
    )


@pytest.mark.heavy
@pytest.mark.parametrize(
    "variant",
    [
        *(Variant(bits=bits, group_size=32, is_symmetric=s) for bits in range(2, 9) for s in (True, False)),
        Variant(bits=4, strategy="channel", is_symmetric=False),
        Variant(format="int-quantized", bits=8, strategy="channel"),
        Variant(format="int-quantized", bits=8, strategy="tensor", is_symmetric=False),
        Variant(format="float-quantized", bits=8, strategy="tensor"),
        Variant(format="float-quantized", bits=8, strategy="block"),
        Variant(format="mxfp4-pack-quantized", group_size=32),
        Variant(format="nvfp4-pack-quantized", group_size=16),
    ],
    ids=str,
)
def test_what_the_package_compresses_is_what_the_package_decompresses(variant: Variant) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    weight = random(40, 64)
    ours, _ = pack(weight, variant)
    said = {key: value for key, value in variant.weights().items() if value is not None}
    compressor = BaseCompressor.get_value_from_registry(variant.format)
    scheme = QuantizationScheme(targets=["Linear"], weights=said)
    # The scales are ours; the package rounds the weight by them, and packs it.
    state = {"weight": weight, "weight_scale": _plain_scale(ours)}
    if "weight_global_scale" in ours:
        state["weight_global_scale"] = ours["weight_global_scale"]
    if not variant.is_symmetric:
        state["weight_zero_point"] = torch.zeros(state["weight_scale"].shape, dtype=torch.int8) + 1
    packed = compressor.compress(state, scheme)
    theirs = compressor.decompress(packed, scheme)["weight"].float()
    decoded = dense(decode({role: part for role, part in packed.items() if part is not None}, variant))
    assert torch.allclose(decoded, theirs, rtol=1e-2 if variant.is_float else 0, atol=0)


def _plain_scale(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    scale = parts["weight_scale"]
    return 2.0 ** (scale.float() - 127) if scale.dtype == torch.uint8 else scale.float()
