"""What files say of a quantisation is followed or refused before a weight is read, and told without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading.checkpoint import open_folder
from llmctl.loading.loader import LoadedModel, LoadRequest, load
from llmctl.loading.planning.request import PlanRequest
from llmctl.loading.readers import reader_of, told_of
from tests import tiny
from tests.quant.formats import packers_awq, packers_fp8, packers_gptq

UP = "model.layers.0.mlp.up_proj.weight"
OWN_FILE = "quantize_config.json"


def loaded(folder: Path, **formats: Any) -> LoadedModel:
    plan = PlanRequest(device="cpu", dtype="float32")
    return load(LoadRequest(model=str(folder), plan=plan, formats=formats), SilentProgress())


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("models") / "dense")


@pytest.fixture
def folder(dense: Path, tmp_path: Path) -> Path:
    """A GPTQ checkpoint to spoil."""
    packers_gptq.pack_folder(dense, tmp_path / "tiny", group_size=16)
    return tmp_path / "tiny"


@pytest.mark.parametrize("method", ["hqq", "quanto", "torchao", "auto-round"])
def test_a_method_that_no_reader_takes_is_told_by_the_facts_alone(folder: Path, method: str) -> None:
    tiny.edit_json(folder / "config.json", quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(BadFileError, match=f"quantised by '{method}', which llmctl does not read") as caught:
        told_of(open_folder(folder), {})
    assert "gptq" in caught.value.message
    given = told_of(open_folder(folder), {"quant_method": "gptq"})
    assert given == {"quant_method": "gptq", "bits": 4}


def test_it_is_told_without_torch() -> None:
    code = "import sys, llmctl.loading.readers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_dense_folder_tells_nothing_and_has_no_reader(dense: Path) -> None:
    assert told_of(open_folder(dense), {}) is None
    assert reader_of(open_folder(dense), {}) is None


@pytest.mark.parametrize("told", [False, 0, "", [], "gptq"])
def test_a_quantisation_that_is_no_object_is_refused(folder: Path, told: Any) -> None:
    tiny.edit_json(folder / "config.json", quantization_config=told)
    with pytest.raises(BadFileError, match=r"quantization_config of its config\.json is .*, not an object"):
        told_of(open_folder(folder), {})


def test_small_floats_without_a_config_are_told_how_to_say_it(dense: Path, tmp_path: Path) -> None:
    packers_fp8.pack_folder(dense, tmp_path / "fp8")
    tiny.edit_json(tmp_path / "fp8" / "config.json", quantization_config=None)
    with pytest.raises(BadFileError, match="F8_E4M3, which the config does not explain") as caught:
        loaded(tmp_path / "fp8")
    assert "--quant-config quant_method=fp8," in str(caught.value.hint)
    loaded(tmp_path / "fp8", quant_method="fp8")


def test_packed_integers_without_a_config_are_told_how_to_say_it(folder: Path) -> None:
    tiny.edit_json(folder / "config.json", quantization_config=None)
    with pytest.raises(BadFileError, match="I32, which the config does not explain") as caught:
        loaded(folder)
    assert "--quant-config quant_method=gptq --quant-config bits=4," in str(caught.value.hint)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"bits": 8}, "bits=4, its quantize_config.json bits=8"),
        ({"groupsize": 32}, "group_size=16, its quantize_config.json group_size=32"),
        ({"desc_act": True}, "desc_act=False, its quantize_config.json desc_act=True"),
        (
            {"checkpoint_format": "gptq_v2"},
            "checkpoint_format=gptq, its quantize_config.json checkpoint_format",
        ),
        ({"quant_method": "awq"}, "quant_method=gptq, its quantize_config.json quant_method=awq"),
    ],
)
def test_two_files_that_contradict_each_other_are_refused(
    folder: Path, own: dict[str, Any], said: str
) -> None:
    tiny.edit_json(folder / OWN_FILE, **own)
    with pytest.raises(BadFileError, match=f"its config.json says {said}") as caught:
        reader_of(open_folder(folder), {})
    assert "--quant-config" in str(caught.value.hint)


def test_what_the_user_says_settles_it(folder: Path) -> None:
    tiny.edit_json(folder / OWN_FILE, bits=8, groupsize=32)
    assert loaded(folder, bits="4", group_size="16").name == "tiny"
    with pytest.raises(UsageError, match="bits=8 does not fit the quantised weight"):
        loaded(folder, bits="8", group_size="16")


def test_two_files_that_say_the_same_in_other_words_are_followed(folder: Path) -> None:
    tiny.edit_json(folder / OWN_FILE, wbits=4, groupsize="16", act_order="false", damp_percent=0.1)
    assert loaded(folder).name == "tiny"


def test_an_older_file_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / OWN_FILE).write_text("{bits: 4", encoding="utf-8")
    with pytest.raises(BadFileError, match=r"quantize_config\.json is not valid JSON"):
        loaded(folder)


@pytest.mark.parametrize("packer", [packers_gptq, packers_awq])
def test_a_weight_that_is_there_dense_and_quantised_is_refused(
    dense: Path, tmp_path: Path, packer: Any
) -> None:
    packer.pack_folder(dense, tmp_path / "twice", group_size=16)
    weight = load_file(dense / "model.safetensors")[UP]
    tiny.edit_weights(tmp_path / "twice", lambda tensors: tensors.update({UP: weight}))
    with pytest.raises(BadFileError, match=rf"{UP} is damaged: .* has it twice, dense and quantised"):
        loaded(tmp_path / "twice")


@pytest.mark.parametrize("key", ["num_attention_heads", "num_key_value_heads"])
@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("is_packed", [True, False])
def test_sizes_that_are_none_are_named_where_the_model_does_not_load(
    dense: Path, folder: Path, tmp_path: Path, key: str, size: int, is_packed: bool
) -> None:
    spoilt = folder if is_packed else Path(shutil.copytree(dense, tmp_path / "copy"))
    tiny.edit_json(spoilt / "config.json", **{key: size})
    with pytest.raises(BadFileError, match="load") as caught:
        loaded(spoilt)
    assert f"its config.json says {key}={size}" in str(caught.value.hint)


def test_dense_weights_that_a_config_calls_packed_are_refused_by_the_reader_alone(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = open_folder(folder, name="m")
    with pytest.raises(BadFileError, match=r"says that it is quantised .*and none of its weights is"):
        reader_of(checkpoint, {})
