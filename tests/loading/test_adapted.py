"""An adapter's folder is a model like any other: its base with it, merged before anything is packed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmctl.core.errors import BadFileError, LlmctlError, NotFoundError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading.checkpoint import locate, open_folder
from llmctl.loading.facts.describe import describe
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.planning.plan import PlanRequest
from llmctl.quant.modules import QuantLinear
from tests import tiny
from tests.hub import StandInHub
from tests.loading.downloads import ID
from tests.lora.made import Q, merged, numbers, pair, planned, queries, write
from tests.quant.formats.packers_bnb import pack_folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "base")


def loaded(model: Path | str, **plan: Any) -> Any:
    wanted = PlanRequest(device="cpu", **{"dtype": "float32", **plan})
    return load(LoadRequest(model=str(model), plan=wanted), SilentProgress())


def adapter(base: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    folder = base.parent / "adapter"
    return write(folder, tensors or queries(), **{"base_model_name_or_path": str(base), **config})


def weights(base: Path) -> dict[str, torch.Tensor]:
    return load_file(base / "model.safetensors")


def fails(kind: type[LlmctlError], folder: Path, *words: str) -> None:
    with pytest.raises(kind) as caught:
        loaded(folder)
    told = f"{caught.value.message} ({caught.value.hint})"
    assert "\n" not in told
    for word in words:
        assert word in told, told


def test_the_model_is_base_and_adapter_merged(base: Path) -> None:
    folder = adapter(base)
    wanted = merged(planned(folder, weights(base)), weights(base))
    found = loaded(folder)
    assert found.name == "adapter"
    for name, parameter in found.model.state_dict().items():
        assert torch.equal(parameter, wanted[name]), name


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_it_is_merged_before_it_is_packed(base: Path, quantization: str) -> None:
    folder, whole = adapter(base), shutil.copytree(base, base.parent / "whole")
    out = merged(planned(folder, weights(base)), weights(base))
    tiny.edit_weights(whole, lambda tensors: tensors.update(out))
    one, other = (loaded(each, quantization=quantization).model for each in (folder, whole))
    assert isinstance(one.get_submodule(Q.format(0)), QuantLinear)
    ids = torch.arange(40, 60).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(one(ids).logits, other(ids).logits)


def test_a_head_that_was_saved_is_tied_no_more(tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "base", tie_word_embeddings=True)
    head = numbers(260, 32)
    folder = adapter(base, {**queries(), "lm_head.weight": head}, modules_to_save=["lm_head"])
    model = loaded(folder).model
    assert torch.equal(model.lm_head.weight, head)
    assert torch.equal(model.model.embed_tokens.weight, weights(base)["model.embed_tokens.weight"])


def test_a_vocabulary_that_has_grown_is_loaded_with_its_tokenizer(base: Path) -> None:
    rows = {"model.embed_tokens.weight": numbers(262, 32), "lm_head.weight": numbers(262, 32)}
    folder = adapter(base, {**queries(), **rows}, modules_to_save=["embed_tokens", "lm_head"])
    own = tiny.tokenizer()
    own.add_tokens(["<a>", "<b>"])
    own.save_pretrained(folder)
    found = loaded(folder)
    assert (found.vocabulary_size, len(found.tokenizer)) == (262, 262)
    assert locate(str(folder), revision=None, progress=SilentProgress()).tokenizer_folder == folder


def test_a_base_beside_stands_for_one_of_the_hub(hub: StandInHub, base: Path) -> None:
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    hub.add("owner/base", files)
    folder = adapter(base, base_model_name_or_path="owner/base")
    hub.add(ID, {path.name: path.read_bytes() for path in folder.iterdir()})
    found = loaded(ID)
    assert found.name == ID
    wanted = merged(planned(folder, weights(base)), weights(base))
    name = f"{Q.format(1)}.weight"
    assert torch.equal(found.model.get_parameter(name), wanted[name])


def test_a_wrong_base_is_refused_by_what_differs(base: Path, tmp_path: Path) -> None:
    other = tiny.folder(tmp_path / "other", "gpt2")
    fails(BadFileError, adapter(base, base_model_name_or_path=str(other)), "base has no", Q.format(0))


@pytest.mark.parametrize("kind", ["itself", "another"])
def test_an_adapter_upon_an_adapter_is_refused(kind: str, base: Path) -> None:
    folder = adapter(base)
    upon = folder if kind == "itself" else base.parent / "upon"
    write(upon, queries(), base_model_name_or_path=str(folder))
    fails(BadFileError, upon, "is an adapter itself", "llmctl lora merge")


def test_a_base_that_is_nowhere_is_told(base: Path) -> None:
    fails(NotFoundError, adapter(base, base_model_name_or_path="./nowhere"), "no such folder", "nowhere")


def test_showing_an_adapter_downloads_nothing(base: Path) -> None:
    folder = adapter(base, base_model_name_or_path="owner/far")
    with pytest.raises(NotFoundError, match=r"owner/far, is not on this machine"):
        open_folder(folder)
    about = describe(adapter(base))
    assert (about.num_parameters, about.checkpoint.adapter) == (describe(base).num_parameters, folder)


def test_a_field_that_cannot_be_honoured_is_refused_before_the_base_is_read(base: Path) -> None:
    (base / "model.safetensors").write_bytes(b"junk")
    fails(BadFileError, adapter(base, kasa_config={"beta": 1}), "kasa_config")


def test_a_config_beside_an_adapter_does_not_make_it_a_model(base: Path) -> None:
    folder = adapter(base)
    shutil.copy(base / "config.json", folder)
    assert loaded(folder).name == "adapter"


def test_a_whole_model_with_an_adapters_leftovers_is_a_model(base: Path) -> None:
    folder = adapter(base, base_model_name_or_path="owner/far")
    for file in folder.iterdir():
        shutil.copy(file, base)
    assert locate(str(base), revision=None, progress=SilentProgress()).adapter is None


def test_a_class_of_the_users_that_loads_by_itself_takes_no_adapter(base: Path) -> None:
    request = LoadRequest(model=str(adapter(base)), own_loader=lambda *_: (None, None))
    with pytest.raises(UsageError, match="loads by itself"):
        load(request, SilentProgress())


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_quantised_base_is_decoded_merged_and_packed_as_asked(
    base: Path, kind: str, quantization: str | None
) -> None:
    packed, name = base.parent / "packed", f"{Q.format(0)}.weight"
    decoded = {**weights(base), **pack_folder(base, packed, kind=kind)}
    folder = adapter(base, base_model_name_or_path=str(packed))
    wanted = merged(planned(folder, decoded), decoded)
    found = loaded(folder, quantization=quantization)
    assert found.plan.checkpoint_format is not None
    assert found.plan.is_decoded
    layer = found.model.get_submodule(Q.format(0))
    assert isinstance(layer, QuantLinear) is (quantization is not None)
    if quantization is None:
        assert torch.allclose(layer.weight, wanted[name], atol=1e-6)


def test_a_quantised_base_whose_layers_are_the_other_way_round_is_refused(tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "base", "gpt2")
    pack_folder(base, tmp_path / "packed")
    tensors = pair("transformer.h.0.attn.c_proj") | pair("transformer.h.1.attn.c_proj")
    folder = adapter(base, tensors, base_model_name_or_path=str(tmp_path / "packed"))
    fails(BadFileError, folder, "is quantised", "16-bit")
