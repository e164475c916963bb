"""`lora merge` writes what loading the adapter would hold in memory, and nothing by halves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmctl.artifacts.lora.merge import PROVENANCE, MergeRequest, MergeResult, merge
from llmctl.artifacts.stream.walk import Made
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import SilentProgress
from tests import tiny
from tests.lora import made
from tests.lora.made import Q, numbers, planned, queries, write


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "base")


def adapter(base: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    named = {"base_model_name_or_path": str(base), **config}
    return write(base.parent / "adapter", tensors or queries(), **named)


def run(beside: Path, folder: Path, **options: Any) -> MergeResult:
    request = MergeRequest(**{"adapter": str(folder), "out": beside.parent / "out", **options})
    return merge(request, SilentProgress())


def test_the_result_is_the_base_with_the_changed_tensors(base: Path) -> None:
    folder = adapter(base)
    result = run(base, folder)
    tensors = load_file(base / "model.safetensors")
    wanted = made.merged(planned(folder, tensors), tensors)
    out = load_file(base.parent / "out/model.safetensors")
    assert out.keys() == wanted.keys()
    assert all(torch.equal(out[name], wanted[name]) for name in wanted)
    assert result.changed == tuple(f"{Q.format(layer)}.weight" for layer in (0, 1))
    carried = {path.name for path in base.iterdir()} - {"model.safetensors"}
    assert set(result.carried) == carried
    assert {path.name for path in (base.parent / "out").iterdir()} == {
        *carried,
        "model.safetensors",
        PROVENANCE,
    }
    assert json.loads((base.parent / "out" / PROVENANCE).read_text())["adapter"] == str(folder)
    assert "llmctl" not in str(list(base.iterdir()))


def test_types_stay_the_bases(tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "base", dtype=torch.bfloat16)
    run(base, adapter(base))
    assert {each.dtype for each in load_file(tmp_path / "out/model.safetensors").values()} == {torch.bfloat16}


def test_shards_are_as_large_as_asked(base: Path) -> None:
    result = run(base, adapter(base), max_shard_bytes=40_000)
    assert len(result.files) > 3
    index = json.loads((base.parent / "out/model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(result.files) - {"model.safetensors.index.json"}


def test_a_weight_of_its_own_is_added_and_the_config_says_so(tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "base", tie_word_embeddings=True)
    head = numbers(260, 32)
    result = run(base, adapter(base, {**queries(), "lm_head.weight": head}, modules_to_save=["lm_head"]))
    assert (result.added, result.config_changes) == (("lm_head.weight",), {"tie_word_embeddings": False})
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    model = tiny.transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(model.lm_head.weight, head)


def test_the_adapters_tokenizer_takes_the_place_of_the_bases(base: Path) -> None:
    rows = {"model.embed_tokens.weight": numbers(262, 32), "lm_head.weight": numbers(262, 32)}
    folder = adapter(base, {**queries(), **rows}, modules_to_save=["embed_tokens", "lm_head"])
    own = tiny.tokenizer()
    own.add_tokens(["<a>", "<b>"])
    own.save_pretrained(folder)
    assert run(base, folder).config_changes == {"vocab_size": 262}
    assert len(tiny.transformers.AutoTokenizer.from_pretrained(base.parent / "out")) == 262
    assert json.loads((base.parent / "out/config.json").read_text())["vocab_size"] == 262


def test_a_dry_run_tells_the_same_and_writes_nothing(base: Path) -> None:
    told = run(base, adapter(base), is_dry_run=True).as_dict()
    assert not list(base.parent.glob("*out*"))
    done = run(base, adapter(base)).as_dict()
    assert {**told, "dry_run": False, "seconds": 0} == {**done, "seconds": 0}


def test_another_base_than_the_one_named_is_told(base: Path, tmp_path: Path) -> None:
    other = tiny.folder(tmp_path / "other", seed=3)
    result = run(base, adapter(base), base=str(other))
    assert result.base == "other"
    assert any("names" in notice and "base" in notice for notice in result.notices)


def test_a_folder_of_the_same_name_elsewhere_is_another_base(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter(base)
    (tmp_path / "elsewhere").mkdir()
    other = tiny.folder(tmp_path / "elsewhere/base", seed=3)
    (told,) = run(base, folder, base=str(other), is_dry_run=True).notices
    assert f"names {base} as its base, not {other}" in told
    monkeypatch.chdir(tmp_path)
    assert not run(base, folder, base="elsewhere/../base", is_dry_run=True).notices
    assert not run(
        base, adapter(base, base_model_name_or_path="org/base"), base="base", is_dry_run=True
    ).notices


def test_a_wrong_base_is_refused_and_leaves_nothing(base: Path, tmp_path: Path) -> None:
    other = tiny.folder(tmp_path / "other", hidden_size=48)
    with pytest.raises(BadFileError, match=r"needs \[4, 48\]"):
        run(base, adapter(base), base=str(other))
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("place", ["adapter", "base", "base/in"])
def test_inputs_are_never_written_over(place: str, base: Path) -> None:
    folder = adapter(base)
    before = {path: path.read_bytes() for path in base.parent.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="cannot be the result"):
        run(base, folder, out=base.parent / place, overwrite=True)
    assert before == {path: path.read_bytes() for path in base.parent.rglob("*") if path.is_file()}


def test_what_is_no_adapter_is_refused(base: Path) -> None:
    with pytest.raises(BadFileError, match="is no LoRA adapter"):
        run(base, base)


def test_a_quantised_base_is_refused(base: Path) -> None:
    tiny.edit_json(base / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(BadFileError, match="is quantised"):
        run(base, adapter(base))


def test_a_tensor_of_whole_numbers_is_not_changed(base: Path) -> None:
    def rounded(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{Q.format(1)}.weight"] = tensors[f"{Q.format(1)}.weight"].to(torch.int16)

    tiny.edit_weights(base, rounded)
    with pytest.raises(
        BadFileError, match=r"layers\.1\.self_attn\.q_proj\.weight of base is of the type I16"
    ):
        run(base, adapter(base))


def test_an_adapter_that_was_cut_short_is_refused_and_leaves_nothing(base: Path) -> None:
    folder = adapter(base)
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadFileError, match=r"adapter_model\.safetensors does not load"):
        run(base, folder)
    assert not list(base.parent.glob("*out*"))


@pytest.mark.parametrize("names", [[3, None], "LlamaForCausalLM", ["Tensor"], ["AutoConfig"]])
def test_a_class_that_is_none_gives_way_to_that_of_the_type(names: object, base: Path) -> None:
    tiny.edit_json(base / "config.json", architectures=names)
    assert len(run(base, adapter(base)).changed) == 2


def test_an_interrupted_merge_goes_on_to_the_same_bytes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmctl.artifacts.lora import merge as module

    folder = adapter(base)
    run(base, folder, max_shard_bytes=40_000, out=base.parent / "whole")
    compute, count = module._Work._compute, []

    def killed(self: Any, step: Any, tensors: Any) -> Made:
        count.append(step.name)
        if len(count) == 12:
            raise KeyboardInterrupt
        return compute(self, step, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(module._Work, "_compute", killed)
        with pytest.raises(KeyboardInterrupt):
            run(base, folder, max_shard_bytes=40_000)
    assert not (base.parent / "out").exists()
    run(base, folder, max_shard_bytes=40_000)
    one, other = (
        {path.name: path.read_bytes() for path in (base.parent / name).iterdir()} for name in ("out", "whole")
    )
    assert one == other
