"""Weights in other numbers and other files are the same weights, and what is no weight comes along."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from llmctl.artifacts.convert import Converted, ConvertRequest, convert
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading.checkpoint import open_folder
from tests import tiny


def run(source: Path, target: Path, **changes: Any) -> Converted:
    return convert(ConvertRequest(model=str(source), target=target, **changes), SilentProgress())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def as_pickle(folder: Path) -> Path:
    """The same model with its weights in a pickle file, ties as ties."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "source")


def test_without_a_dtype_every_bit_stays(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    before, after = weights(source), weights(tmp_path / "out")
    assert set(before) == set(after)
    assert all(torch.equal(before[name].view(torch.int32), after[name].view(torch.int32)) for name in before)
    same = ("config.json", "generation_config.json")
    assert all(
        json.loads((source / name).read_text()) == json.loads((tmp_path / "out" / name).read_text())
        for name in same
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_numbers_are_rounded_as_torch_rounds_them(source: Path, tmp_path: Path, dtype: str) -> None:
    made = run(source, tmp_path / "out", dtype=dtype)
    before, after = weights(source), weights(tmp_path / "out")
    assert all(torch.equal(before[name].to(getattr(torch, dtype)), after[name]) for name in before)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    assert made.num_cast == (0 if dtype == "float32" else len(before))
    assert open_folder(tmp_path / "out").num_bytes == made.bytes_after


def test_shards_are_as_large_as_was_asked(source: Path, tmp_path: Path) -> None:
    made = run(source, tmp_path / "out", max_shard_bytes=40_000)
    assert made.num_files > 1
    files = open_folder(tmp_path / "out").weight_files
    assert len(files) == made.num_files
    assert all(file.stat().st_size < 45_000 for file in files)
    run(tmp_path / "out", tmp_path / "one")
    assert (tmp_path / "one" / "model.safetensors").is_file()
    assert not (tmp_path / "one" / "model.safetensors.index.json").exists()
    before, after = weights(source), weights(tmp_path / "one")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pickles_become_safetensors(source: Path, tmp_path: Path) -> None:
    before = weights(source)
    run(as_pickle(source), tmp_path / "out")
    after = weights(tmp_path / "out")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not list((tmp_path / "out").glob("*.bin"))


def test_a_head_that_is_the_table_is_stored_once(tmp_path: Path) -> None:
    source = as_pickle(tiny.folder(tmp_path / "source", tie_word_embeddings=True))
    made = run(source, tmp_path / "out")
    assert made.joined == {"lm_head.weight": "model.embed_tokens.weight"}
    ids = torch.tensor([[1, 2, 3]])
    models = [
        transformers.AutoModelForCausalLM.from_pretrained(each).eval() for each in (source, tmp_path / "out")
    ]
    assert torch.equal(models[0](ids).logits, models[1](ids).logits)


def test_a_head_that_the_config_keeps_apart_is_stored_too(tmp_path: Path) -> None:
    source = as_pickle(tiny.folder(tmp_path / "source", tie_word_embeddings=True))
    tiny.edit_json(source / "config.json", tie_word_embeddings=False)
    assert run(source, tmp_path / "out").joined == {}
    after = weights(tmp_path / "out")
    assert torch.equal(after["lm_head.weight"], after["model.embed_tokens.weight"])


def test_numbers_that_are_too_large_are_refused(source: Path, tmp_path: Path) -> None:
    tiny.edit_weights(source, lambda found: found["model.norm.weight"].fill_(1e30))
    with pytest.raises(
        BadFileError, match=r"model\.norm\.weight of source holds numbers .* too large for float16"
    ):
        run(source, tmp_path / "out", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_numbers_that_are_none_stay_what_they_are(source: Path, tmp_path: Path) -> None:
    tiny.edit_weights(
        source, lambda found: found["model.norm.weight"][:2].copy_(torch.tensor([torch.inf, torch.nan]))
    )
    run(source, tmp_path / "out", dtype="float16")
    found = weights(tmp_path / "out")["model.norm.weight"]
    assert bool(found[0].isinf())
    assert bool(found[1].isnan())


def test_packed_numbers_are_not_cast(source: Path, tmp_path: Path) -> None:
    tiny.edit_json(source / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UsageError, match="is quantised"):
        run(source, tmp_path / "out", dtype="float16")
    run(source, tmp_path / "out")


@pytest.mark.parametrize("dtype", ["int8", "auto"])
def test_a_dtype_that_is_none_is_refused(source: Path, tmp_path: Path, dtype: str) -> None:
    with pytest.raises(UsageError, match=f"--dtype must be one of .* not '{dtype}'"):
        run(source, tmp_path / "out", dtype=dtype)


def test_a_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    told = run(source, tmp_path / "out", dtype="bfloat16", is_dry=True)
    assert told.bytes_after * 2 == told.bytes_before
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_missing_tokenizer_is_a_notice(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in source.glob("tokenizer*"):
        path.unlink()
    with caplog.at_level("WARNING", "llmctl"):
        run(source, tmp_path / "out")
    assert "has no tokenizer" in caplog.text


def test_half_of_the_pickle_files_is_no_model(source: Path, tmp_path: Path) -> None:
    as_pickle(source)
    (source / "pytorch_model.bin").rename(source / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(BadFileError, match="has 1 of the 2 files"):
        run(source, tmp_path / "out")


def test_a_tensor_that_only_the_index_has_is_missed(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "shards", max_shard_bytes=20_000)
    index = tmp_path / "shards" / "model.safetensors.index.json"
    value = json.loads(index.read_text())
    value["weight_map"]["model.ghost"] = next(iter(value["weight_map"].values()))
    index.write_text(json.dumps(value))
    with pytest.raises(BadFileError, match=r"lacks 1 tensors that .* names, the first is model\.ghost"):
        run(tmp_path / "shards", tmp_path / "out")


@pytest.mark.parametrize(("dtype", "remedy"), [("float16", "bfloat16 or float32"), ("bfloat16", "float32")])
def test_the_remedy_for_numbers_that_are_too_large_is_one(
    source: Path, tmp_path: Path, dtype: str, remedy: str
) -> None:
    tiny.edit_weights(source, lambda tensors: tensors["model.norm.weight"].fill_(3.4e38))
    with pytest.raises(BadFileError) as caught:
        run(source, tmp_path / "out", dtype=dtype)
    assert caught.value.hint == f"take --dtype {remedy}"
