"""What cannot be honoured is refused by its name, in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llmctl.core.errors import BadFileError
from llmctl.lora.checkpoint import open_adapter
from llmctl.lora.config import read_config
from tests.lora.made import PREFIX, Q, merged, numbers, pair, planned, queries, stored, write

TIED = {"tie_word_embeddings": True}


def refused(folder: Path, *words: str, **changes: Any) -> str:
    """The refusal of an adapter upon a tiny Llama."""
    base = stored(folder.parent / "base", **changes)
    with pytest.raises(BadFileError) as caught:
        merged(planned(folder, base, **changes), base)
    assert caught.value.hint
    told = f"{caught.value.message} ({caught.value.hint})"
    assert "\n" not in told
    for word in words:
        assert word in told, told
    return told


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, ("peft_type", "LORA", "IA3")),
        ({"r": 0}, ("r=0", "above 0")),
        ({"r": True}, ("r=true",)),
        ({"r": None}, ("r=null",)),
        ({"lora_alpha": "8"}, ("lora_alpha",)),
        ({"lora_alpha": float("nan")}, ("lora_alpha", "number below")),
        ({"lora_alpha": 10**400}, ("lora_alpha", "number below")),
        ({"r": 10**400}, ("r=1000", "above 0")),
        ({"rank_pattern": {"x": 10**400}}, ("rank_pattern", "ranks")),
        ({"use_rslora": "yes"}, ("use_rslora", "true or false")),
        ({"rank_pattern": {"q_proj": 0}}, ("rank_pattern", "above 0")),
        ({"rank_pattern": ["q_proj"]}, ("rank_pattern", "object")),
        ({"rank_pattern": {"q_(proj": 4}}, ("rank_pattern", "regular expression")),
        ({"target_modules": 3}, ("target_modules",)),
        ({"target_modules": "(a+)+{5}(" * 200}, ("target_modules", "characters")),
        ({"bias": "some"}, ("bias", "lora_only")),
        ({"use_dora": True, "lora_bias": True}, ("lora_bias", "DoRA")),
        ({"init_lora_weights": "pissa"}, ("init_lora_weights", "pissa", "path_initial_model", "unmerged")),
        ({"init_lora_weights": "loftq"}, ("init_lora_weights",)),
        ({"layer_replication": [[0, 2], [1, 2]]}, ("layer_replication",)),
        ({"alora_invocation_tokens": [1]}, ("alora_invocation_tokens",)),
        ({"use_qalora": True}, ("use_qalora",)),
        ({"arrow_config": {"top_k": 1}}, ("arrow_config",)),
        ({"kasa_config": {"beta": 1}}, ("kasa_config",)),
        ({"kasa_config": {}}, ("kasa_config={}", "takes parts away")),
        ({"arrow_config": {}}, ("arrow_config={}",)),
        ({"use_bdlora": {}}, ("use_bdlora={}",)),
        ({"frobnication_config": {}}, ("frobnication_config={}", "does not know")),
        ({"alpha_pattern": {"[[:alpha:]]_proj": 800}}, ("alpha_pattern", "classes of POSIX")),
        ({"use_bdlora": {"nblocks": 2}}, ("use_bdlora",)),
        ({"monteclora_config": {"n": 1}}, ("monteclora_config",)),
        ({"megatron_config": {"n": 1}}, ("megatron_config",)),
        ({"use_frobnication": True}, ("use_frobnication", "does not know")),
        ({"trainable_token_indices": []}, ("trainable_token_indices",)),
        ({"trainable_token_indices": [-1]}, ("trainable_token_indices",)),
        ({"trainable_token_indices": [1.5]}, ("trainable_token_indices",)),
        ({"trainable_token_indices": {"lm_head": "x"}}, ("trainable_token_indices",)),
        ({"layers_to_transform": ["a"]}, ("layers_to_transform",)),
        ({"base_model_name_or_path": 7}, ("base_model_name_or_path", "text")),
    ],
)
def test_a_field_that_cannot_be_honoured_is_named(
    config: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    refused(write(tmp_path / "a", queries(), **config), "adapter_config.json", *words)


@pytest.mark.parametrize(
    "config",
    [
        {"use_frobnication": False, "other": None, "more": {}, "yet": []},
        {"lora_dropout": 0.5, "task_type": "CAUSAL_LM", "inference_mode": True, "peft_version": "0.99"},
        {"init_lora_weights": "gaussian", "eva_config": {"rho": 2.0}, "loftq_config": {"loftq_bits": 4}},
        {"megatron_core": "megatron.core", "qalora_group_size": 16, "auto_mapping": {"unsloth_fixed": True}},
    ],
)
def test_what_has_no_say_once_it_is_trained_is_taken(config: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "a", queries(), **config)
    assert len(planned(folder, stored(tmp_path / "base")).changes) == 2


def test_a_module_that_the_base_lacks_is_named(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "a", {**queries(), **pair(Q.format(2))}), Q.format(2), "base has no", "another model"
    )


def test_a_base_of_another_width_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", queries(num_columns=48))
    refused(folder, "q_proj.lora_A.weight", "[4, 48]", "needs [4, 32]", "another model")


def test_a_rank_that_the_configuration_does_not_give_is_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a", queries(), r=8), "rank 4", "rank 8", Q.format(0))


def test_a_layer_that_is_missing_among_its_like_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", pair(Q.format(0)), target_modules=["q_proj"])
    refused(folder, "lacks the matrices", Q.format(1))


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, "v_proj (target_modules)"),
        ({"modules_to_save": ["lm_head"]}, "lm_head (modules_to_save)"),
        ({"target_modules": ["q_proj"], "target_parameters": ["x.y"]}, "x.y (target_parameters)"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    ],
)
def test_what_is_named_and_not_there_is_told(config: dict[str, Any], word: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "a", queries(), **config), "holds nothing for", word)


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["v_proj"]},
        {"target_modules": r".*v_proj"},
        {"target_modules": ["q_proj"], "layers_to_transform": [0]},
        {"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["self_attn"]},
    ],
)
def test_matrices_for_what_is_not_targeted_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    refused(write(tmp_path / "a", queries(), **config), "does not target", "q_proj")


def test_one_matrix_without_the_other_is_refused(tmp_path: Path) -> None:
    tensors = queries()
    del tensors[f"{Q.format(1)}.lora_B.weight"]
    refused(write(tmp_path / "a", tensors), "lacks the matrix B", Q.format(1))


@pytest.mark.parametrize(("use", "has"), [(True, False), (False, True)])
def test_magnitudes_and_configuration_must_agree(use: bool, has: bool, tmp_path: Path) -> None:
    tensors = queries()
    if has:
        tensors |= {f"{Q.format(layer)}.lora_magnitude_vector": numbers(32) for layer in (0, 1)}
    refused(write(tmp_path / "a", tensors, use_dora=use), "magnitudes", "use_dora")


@pytest.mark.parametrize("name", ["lora_diag", "lora_B.extra.more.weight", "token_adapter.other"])
def test_a_tensor_of_an_unknown_variant_is_named(name: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "a", {**queries(), f"{Q.format(0)}.{name}": numbers(4)}), name, "variant")


def test_whole_parameters_that_nobody_named_are_refused(tmp_path: Path) -> None:
    tensors = {**queries(), "model.norm.weight": numbers(32)}
    refused(write(tmp_path / "a", tensors), "model.norm.weight", "modules_to_save")


def test_tokens_beyond_the_table_are_refused(tmp_path: Path) -> None:
    tensors = {**queries(), "model.embed_tokens.token_adapter.trainable_tokens_delta": numbers(1, 32)}
    refused(write(tmp_path / "a", tensors, trainable_token_indices=[260]), "260 rows", "token 260")


@pytest.mark.parametrize("name", ["lm_head.weight", "model.embed_tokens.weight"])
@pytest.mark.parametrize("num_rows", [250, 264])
def test_one_table_of_a_new_size_without_the_other_is_refused(
    name: str, num_rows: int, tmp_path: Path
) -> None:
    folder = write(tmp_path / "a", {**queries(), name: numbers(num_rows, 32)})
    refused(folder, f"{name} {num_rows} tokens", "stays at 260", "save_embedding_layers")
    write(folder, {**queries(), "model.embed_tokens.weight": numbers(num_rows, 32)})
    assert planned(folder, stored(tmp_path / "tied", **TIED), **TIED).config_changes == {
        "vocab_size": num_rows
    }


def test_tables_of_something_else_than_tokens_cannot_grow(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"transformer.wpe.weight": numbers(300, 32)}, modules_to_save=["wpe"])
    with pytest.raises(BadFileError, match=r"wpe\.weight of the adapter is \[300, 32\]"):
        planned(folder, stored(tmp_path / "base", "gpt2"), "gpt2")


def test_tables_that_shrink_are_told_with_their_numbers(tmp_path: Path) -> None:
    tables = {name: numbers(250, 32) for name in ("lm_head.weight", "model.embed_tokens.weight")}
    plan = planned(write(tmp_path / "a", {**queries(), **tables}), stored(tmp_path / "base"))
    told = {each.split(":")[0] for each in plan.resolved.notices}
    assert told == {f"{name} has 250 rows in the adapter and 260 in the base" for name in tables}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value: float, tmp_path: Path) -> None:
    tensors = queries()
    tensors[f"{Q.format(0)}.lora_A.weight"][0, 0] = value
    refused(write(tmp_path / "a", tensors), "NaN or infinite", "lora_A")


def test_numbers_too_large_for_the_type_are_refused(tmp_path: Path) -> None:
    tensors = {name: each * 1e4 for name, each in queries().items()}
    plan = planned(write(tmp_path / "a", tensors), stored(tmp_path / "base"))
    name = f"{Q.format(0)}.weight"
    with pytest.raises(BadFileError, match="too large for float16"):
        plan.changes[name].apply(torch.zeros(32, 32, dtype=torch.float16), torch.float16, name=name)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"junk"), ("does not load",)),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), ("no weights",)),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), ("not valid JSON",)),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), ("JSON object",)),
        (lambda folder: (folder / "adapter_config.json").unlink(), ("cannot read",)),
        (
            lambda folder: save_file({"x": torch.ones(2).int()}, folder / "adapter_model.safetensors"),
            ("I32",),
        ),
    ],
    ids=["junk", "no weights", "half a config", "a list", "no config", "integers"],
)
def test_damaged_files_are_told(damage: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    folder = write(tmp_path / "a", queries())
    damage(folder)
    refused(folder, *words)


def test_several_adapters_in_one_file_are_refused(tmp_path: Path) -> None:
    tensors = {
        f"{Q.format(0)}.lora_{side}.{name}.weight": numbers(4, 4) for side in "AB" for name in ("one", "two")
    }
    with pytest.raises(BadFileError, match="several adapters: one, two"):
        open_adapter(write(tmp_path / "a", tensors))


def test_an_expression_cannot_hold_the_program_up(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", queries(), target_modules="(?:.|.)+(?:.)+(?:.)+(?:.)+[!?]")
    refused(folder, "target_modules", "takes more than 1 s")


@pytest.mark.parametrize("is_told", [True, False])
def test_biases_and_configuration_must_agree(is_told: bool, tmp_path: Path) -> None:
    tensors = queries()
    if not is_told:
        tensors |= {f"{Q.format(layer)}.lora_B.bias": numbers(32) for layer in (0, 1)}
    folder = write(tmp_path / "a", tensors, lora_bias=is_told)
    refused(folder, "biases for", f"lora_bias={str(is_told).lower()}", "different adapters")


def test_a_bias_without_one_in_the_base_is_refused(tmp_path: Path) -> None:
    tensors = {**queries(), **{f"{Q.format(layer)}.lora_B.bias": numbers(32) for layer in (0, 1)}}
    refused(write(tmp_path / "a", tensors, lora_bias=True), "lora_bias", "has none")


def test_the_configuration_of_an_adapter_is_read_by_itself(tmp_path: Path) -> None:
    config = read_config(write(tmp_path / "a", queries(), revision="v1"))
    assert (config.base, config.base_revision, config.rank) == ("base", "v1", 4)
    assert PREFIX not in json.dumps(list(open_adapter(tmp_path / "a").full))
