"""The files that sentence-transformers writes, whole and spoilt."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import BadFileError
from llmctl.loading.facts.pooling import Part, Recipe, read_recipe
from tests import tiny
from tests.engine.pooling.made import with_modules
from tests.hub import StandInHub, tiny_model, tiny_safetensors
from tests.loading.downloads import ID, get


@pytest.mark.parametrize(
    ("told", "modes"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, ("mean",)),
        ({"pooling_mode_lasttoken": True, "pooling_mode_cls_token": True}, ("cls", "last")),
        ({"pooling_mode": "weightedmean"}, ("weighted_mean",)),
        ({"pooling_mode": ["max", "mean_sqrt_len_tokens"]}, ("max", "mean_sqrt_len")),
    ],
)
def test_both_spellings_of_a_pooling_are_read(
    told: dict[str, Any], modes: tuple[str, ...], tmp_path: Path
) -> None:
    recipe = read_recipe(with_modules(tmp_path, ("Pooling", told)), {"pooling": "max"})
    assert (recipe.modes, recipe.parts, recipe.normalises) == (modes, (), False)
    assert (recipe.pools_prompt, recipe.is_told, recipe.reason) == (True, True, "modules.json")


def test_what_follows_the_pooling_is_kept_in_order(tmp_path: Path) -> None:
    dense = {"in_features": 4, "activation_function": "torch.nn.modules.linear.Identity"}
    folder = with_modules(
        tmp_path,
        ("Pooling", {"pooling_mode": "cls", "include_prompt": False}),
        ("Dropout", {}),
        ("Dense", dense),
        ("Normalize", {}),
    )
    recipe = read_recipe(folder, {})
    assert recipe.parts[0] == Part(kind="dense", folder=folder / "3_Dense", settings=dense)
    assert recipe.normalises
    assert not recipe.pools_prompt
    assert str(recipe) == "cls, then dense, then normalise (modules.json)"


def test_without_files_the_row_says_it_and_else_it_is_a_guess(tmp_path: Path) -> None:
    told, guessed = read_recipe(tmp_path, {"pooling": "last"}), read_recipe(tmp_path, {})
    assert (told.modes, told.is_told, told.normalises) == (("last",), True, True)
    assert (guessed.modes, guessed.is_told, guessed.normalises) == (("mean",), False, True)


def test_length_case_and_prompts_are_read(tmp_path: Path) -> None:
    tiny.edit_json(tmp_path / "sentence_xlm-roberta_config.json", max_seq_length=77, do_lower_case=True)
    prompts = {"query": "find: ", "document": ""}
    tiny.edit_json(
        tmp_path / "config_sentence_transformers.json", prompts=prompts, default_prompt_name="query"
    )
    assert read_recipe(tmp_path, {}) == Recipe(
        modes=("mean",),
        parts=read_recipe(tmp_path, {}).parts,
        max_tokens=77,
        lowers=True,
        prompts=prompts,
        default_prompt="query",
        reason="nothing says otherwise",
        is_told=False,
    )


def test_a_length_that_is_none_is_no_limit(tmp_path: Path) -> None:
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": null, "do_lower_case": false}')
    assert read_recipe(tmp_path, {}).max_tokens is None


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([("Pooling", {"pooling_mode": "median"})], "pooling mode 'median'; llmctl knows cls, max"),
        ([("Pooling", {"pooling_mode_mean_tokens": False})], "chooses no pooling mode"),
        ([("Normalize", {})], "names no Pooling"),
        ([("Pooling", {"pooling_mode": "cls"}), ("CNN", {})], "names a module 'CNN'; llmctl knows Dense"),
    ],
)
def test_what_llmctl_cannot_do_is_refused_by_name(
    modules: list[tuple[str, dict[str, Any]]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadFileError, match=message):
        read_recipe(with_modules(tmp_path, *modules), {})


@pytest.mark.parametrize("text", ["{", "[[", '{"path": ""}', "[1]", '[{"type": "a.Pooling"}]'])
def test_a_damaged_list_of_modules_is_a_bad_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(BadFileError, match="not a list of modules"):
        read_recipe(tmp_path, {})


def test_a_folder_of_a_module_that_did_not_come_is_told(tmp_path: Path) -> None:
    folder = with_modules(tmp_path, ("Pooling", {"pooling_mode": "cls"}))
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(BadFileError, match="is missing"):
        read_recipe(folder, {})


def test_a_model_in_a_folder_of_its_own_is_named(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"type": "x.Transformer", "path": "0_BERT"}]')
    with pytest.raises(BadFileError, match="has the model itself in 0_BERT/"):
        read_recipe(tmp_path, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [({"prompts": {"query": 1}}, "not texts by name"), ({"default_prompt_name": "query"}, "no such prompt")],
)
def test_prompts_that_cannot_be_are_refused(words: dict[str, Any], message: str, tmp_path: Path) -> None:
    tiny.edit_json(tmp_path / "config_sentence_transformers.json", **words)
    with pytest.raises(BadFileError, match=message):
        read_recipe(tmp_path, {})


def test_a_download_brings_the_folders_of_the_modules_and_no_others(hub: StandInHub) -> None:
    modules = json.dumps([{"type": "x.Pooling", "path": "1_Pooling"}]).encode()
    wanted = {
        **tiny_model(),
        "modules.json": modules,
        "1_Pooling/config.json": b'{"pooling_mode": "cls"}',
        "2_Dense/config.json": b"{}",
        "2_Dense/model.safetensors": tiny_safetensors(64),
    }
    others = {"2_Dense/pytorch_model.bin": b"x", "onnx/model.onnx": b"x", "1_Pooling/deep/config.json": b"x"}
    hub.add(ID, {**wanted, **others})
    folder = get()
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == set(wanted) - {"README.md"}
    assert read_recipe(folder, {}).modes == ("cls",)


def test_without_modules_a_download_brings_no_folders(hub: StandInHub) -> None:
    hub.add(ID, {**tiny_model(), "1_Pooling/config.json": b"{}"})
    assert not (get() / "1_Pooling").exists()
