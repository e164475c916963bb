"""Checkpoints and models that would lose or change an answer in silence, refused by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading import assembly, loader
from llmctl.loading.loader import LoadedModel, LoadRequest, load
from llmctl.loading.planning.plan import LoadPlan, plan
from llmctl.loading.planning.request import PlanRequest
from llmctl.quant.formats import gptq
from llmctl.quant.methods import Scheme
from tests import tiny
from tests.quant.formats import packers_bnb, packers_fp8, packers_gptq


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "tiny")


def loaded(folder: Path, *, dtype: str = "float32", quantization: str | None = None) -> LoadedModel:
    plan = PlanRequest(device="cpu", dtype=dtype, quantization=quantization)
    return load(LoadRequest(model=str(folder), plan=plan), SilentProgress())


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_a_packed_model_is_not_saved_as_an_empty_one(tmp_path: Path, kind: str, quantization: str) -> None:
    model = loaded(tiny.folder(tmp_path / kind, kind), quantization=quantization).model
    with pytest.raises(UsageError, match="packed for this machine and cannot be saved"):
        model.state_dict()
    with pytest.raises(UsageError, match="cannot be saved"):
        model.save_pretrained(tmp_path / "saved")
    # Not even the config of what lies there.
    assert not (tmp_path / "saved").exists()


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    shutil.move(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    save_file(
        {"model.norm.weight": tensors["model.norm.weight"]}, folder / "model-00002-of-00002.safetensors"
    )
    index = {"weight_map": dict.fromkeys(tensors, "model-00001-of-00002.safetensors")}
    index["weight_map"]["model.norm.weight"] = "model-00002-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(BadFileError, match=r"holds model\.norm\.weight in more than one"):
        loaded(folder)


@pytest.mark.parametrize(("count", "words"), [(0, "config 0 layers"), (10**9, "asks for 1000000000 layers")])
def test_a_count_of_layers_that_is_not_the_checkpoints_is_refused(
    folder: Path, count: int, words: str
) -> None:
    tiny.edit_json(folder / "config.json", num_hidden_layers=count)
    with pytest.raises(BadFileError, match=words):
        loaded(folder)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_a_weight_that_is_no_float_is_refused(folder: Path, dtype: torch.dtype, name: str) -> None:
    tiny.edit_weights(folder, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    with pytest.raises(BadFileError, match=f"{name} is damaged: it is of the type"):
        loaded(folder)


@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "layers.0.self_attn.q_proj.bias"])
def test_a_parameter_of_another_name_that_is_no_float_is_refused(
    tmp_path: Path, name: str, quantization: str | None
) -> None:
    folder, whole = tiny.folder(tmp_path / "qwen2", "qwen2"), "model.layers.0.self_attn.q_proj.bias"
    tiny.edit_weights(folder, lambda tensors: tensors.update({name: tensors.pop(whole).int()}))
    with pytest.raises(BadFileError, match=f"{name} is damaged: it is of the type I32"):
        loaded(folder, quantization=quantization)


def test_a_mask_of_truths_that_the_model_makes_itself_is_let_be(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "gpt2", "gpt2")
    mask = torch.ones(1, 1, 8, 8).tril().bool()
    tiny.edit_weights(folder, lambda tensors: tensors.update({"transformer.h.0.attn.bias": mask}))
    loaded(folder)


def test_a_weight_beside_packed_ones_that_is_no_float_is_refused(tmp_path: Path, folder: Path) -> None:
    packers_gptq.pack_folder(folder, tmp_path / "packed")
    name = "model.norm.weight"
    tiny.edit_weights(tmp_path / "packed", lambda tensors: tensors.update({name: tensors[name].int()}))
    with pytest.raises(BadFileError, match=r"model\.norm\.weight is damaged: it is of the type I32"):
        loaded(tmp_path / "packed")


def test_numbers_too_large_for_float16_are_named(folder: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    tiny.edit_weights(folder, lambda tensors: tensors[name].mul_(1e6))
    with pytest.raises(
        BadFileError, match=r"q_proj\.weight of tiny holds numbers that are too large"
    ) as caught:
        loaded(folder, dtype="float16")
    assert "--dtype" in str(caught.value.hint)


@pytest.mark.parametrize("quantization", ["int8", "int4", "nf4"])
@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"])
def test_numbers_too_large_for_float16_are_named_where_they_would_be_packed(
    tmp_path: Path, name: str, quantization: str
) -> None:
    folder = tiny.folder(tmp_path / "tiny", hidden_size=64, intermediate_size=128)
    tiny.edit_weights(folder, lambda tensors: tensors[name].mul_(1e6))
    with pytest.raises(
        BadFileError, match=rf"{name} .*holds numbers that are too large for float16"
    ) as caught:
        loaded(folder, dtype="float16", quantization=quantization)
    assert "take --dtype bfloat16 or float32" in str(caught.value.hint)


def test_decoded_numbers_too_large_for_float16_are_no_fault_of_the_file(folder: Path, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    tiny.edit_weights(folder, lambda tensors: tensors[name].mul_(1e6))
    packers_fp8.pack_folder(folder, tmp_path / "fp8", layout="row")
    with pytest.raises(BadFileError, match=f"{name} holds numbers that are too large for float16"):
        loaded(tmp_path / "fp8", dtype="float16")
    assert loaded(tmp_path / "fp8").model.dtype == torch.float32


@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize(
    ("stored", "number", "dtype", "hint"),
    [
        (torch.float64, 1e300, "float32", "publisher's file"),
        (torch.float64, 1e300, "bfloat16", "take --dtype float32"),
        (torch.float32, 3.4e38, "bfloat16", "take --dtype float32"),
    ],
)
def test_numbers_too_large_for_wider_types_are_named_too(
    folder: Path, quantization: str | None, stored: torch.dtype, number: float, dtype: str, hint: str
) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name].to(stored)
        tensors[name][0, 0] = number

    tiny.edit_weights(folder, spoil)
    with pytest.raises(BadFileError, match=rf"{name} .*too large for {dtype}") as caught:
        loaded(folder, dtype=dtype, quantization=quantization)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("formats", "key"),
    [
        ({"bits": "4"}, "bits=4"),
        ({"quant_method": "gptq", "bits": 4}, "bits=4"),
        ({"quant_method": "gptq"}, "quant_method=gptq"),
    ],
)
def test_settings_of_a_quantisation_that_is_not_there_are_refused(
    folder: Path, formats: dict[str, object], key: str
) -> None:
    with pytest.raises(UsageError, match=f"--quant-config {key}: tiny is not quantised"):
        load(LoadRequest(model=str(folder), formats=formats), SilentProgress())


def test_a_packed_weight_that_a_model_reads_directly_becomes_dense(tmp_path: Path) -> None:
    source = tiny.folder(tmp_path / "mamba", "mamba")
    packers_bnb.pack_folder(source, tmp_path / "packed", kind="int8")
    model = loaded(tmp_path / "packed").model
    with torch.no_grad():
        assert bool(model(torch.arange(3, 20)[None]).logits.isfinite().all())


def test_a_dtype_that_there_is_not_is_named(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"dtype must be one of auto, float32, .*, not 'float64'"):
        loaded(folder, dtype="float64")


def test_a_head_inside_a_module_of_its_own_is_packed(tmp_path: Path) -> None:
    model = loaded(tiny.folder(tmp_path / "t5gemma", "t5gemma"), quantization="int8").model
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert bool(model(input_ids=ids, decoder_input_ids=ids).logits.isfinite().all())


def test_a_config_that_says_quantised_over_dense_weights_is_refused(folder: Path) -> None:
    told = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
    tiny.edit_json(folder / "config.json", quantization_config=told)
    with pytest.raises(BadFileError, match=r"says that it is quantised \(GPTQ.*and none of its weights is"):
        loaded(folder)


@pytest.mark.parametrize("has_own_loader", [False, True])
def test_a_spread_that_nobody_would_make_is_refused(
    folder: Path, has_own_loader: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spread(*args: object) -> LoadPlan:
        quant = None if has_own_loader else Scheme(body="int8")
        return replace(plan(*args), device_map="sequential", max_memory={0: 1}, quant=quant)  # type: ignore[arg-type]

    monkeypatch.setattr(loader, "plan", spread)
    monkeypatch.setattr(assembly, "_is_readable", lambda each: False)
    request = LoadRequest(
        model=str(folder),
        plan=PlanRequest(device="cpu"),
        own_loader=(lambda path, words: (None, None)) if has_own_loader else None,
    )
    with pytest.raises(UsageError, match="cannot spread") as caught:
        load(request, SilentProgress())
    assert "--num-gpus" in str(caught.value.hint)


def test_a_packed_model_of_a_repositorys_own_code_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packers_bnb.pack_folder(folder, tmp_path / "packed", kind="int8")
    monkeypatch.setattr(assembly, "_is_readable", lambda each: False)
    with pytest.raises(BadFileError, match="runs on code of its own repository"):
        loaded(tmp_path / "packed")


def test_a_square_weight_whose_orientation_is_lost_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny.folder(tmp_path / "gpt2", "gpt2")
    packers_gptq.pack_folder(source, tmp_path / "packed")
    packed = gptq.GptqReader.decode

    def dense(self: gptq.GptqReader, *args: object) -> torch.Tensor:
        return packed(self, *args).dequantize()  # type: ignore[arg-type, union-attr]

    monkeypatch.setattr(gptq.GptqReader, "decode", dense)
    with pytest.raises(BadFileError, match=r"c_proj\.weight is damaged: llmctl cannot keep it packed"):
        loaded(tmp_path / "packed")
