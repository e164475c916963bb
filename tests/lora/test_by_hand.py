"""What an adapter makes of a weight, against formulas written out here; no peft is needed."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmctl.core.errors import BadFileError
from llmctl.lora.checkpoint import open_adapter
from tests import tiny
from tests.lora.made import PREFIX, Q, merged, numbers, pair, planned, queries, stored, write

NAME = "model.layers.0.self_attn.q_proj.weight"
EMBED = "model.embed_tokens"


def test_a_layer_gets_the_product_of_its_matrices_times_alpha_over_rank(tmp_path: Path) -> None:
    tensors, base = queries(), stored(tmp_path / "base")
    out = merged(planned(write(tmp_path / "a", tensors), base), base)
    a, b = (tensors[f"{Q.format(0)}.lora_{each}.weight"] for each in "AB")
    assert torch.allclose(out[NAME], base[NAME] + 2.0 * b @ a, atol=1e-6)
    assert torch.equal(
        out["model.layers.0.self_attn.k_proj.weight"], base["model.layers.0.self_attn.k_proj.weight"]
    )


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({"use_rslora": True}, 8 / math.sqrt(4)),
        ({"alpha_pattern": {r".*\.layers\.0\..*": 3}}, 3 / 4),
        ({"alpha_pattern": {"q_proj": 5, "layers.0.self_attn.q_proj": 3}}, 5 / 4),
        ({"alpha_pattern": {"proj": 5}}, 2.0),
        ({"rank_pattern": {"layers.1.self_attn.q_proj": 4}, "r": 4}, 2.0),
    ],
)
def test_the_factor_is_what_the_configuration_says(
    config: dict[str, object], factor: float, tmp_path: Path
) -> None:
    tensors, base = queries(), stored(tmp_path / "base")
    out = merged(planned(write(tmp_path / "a", tensors, **config), base), base)
    a, b = (tensors[f"{Q.format(0)}.lora_{each}.weight"] for each in "AB")
    assert torch.allclose(out[NAME], base[NAME] + factor * b @ a, atol=1e-6)


def test_with_magnitudes_every_row_is_as_long_as_its_own(tmp_path: Path) -> None:
    tensors, base = queries(), stored(tmp_path / "base")
    tensors |= {f"{Q.format(layer)}.lora_magnitude_vector": numbers(32).abs() + layer + 1 for layer in (0, 1)}
    out = merged(planned(write(tmp_path / "a", tensors, use_dora=True), base), base)
    magnitude = tensors[f"{Q.format(0)}.lora_magnitude_vector"]
    assert torch.allclose(out[NAME].norm(dim=1), magnitude, atol=1e-5)
    a, b = (tensors[f"{Q.format(0)}.lora_{each}.weight"] for each in "AB")
    moved = base[NAME] + 2 * b @ a
    assert torch.allclose(out[NAME], moved * (magnitude / moved.norm(dim=1)).unsqueeze(1), atol=1e-6)


def test_a_table_gets_the_product_the_other_way_round(tmp_path: Path) -> None:
    a, b = numbers(4, 260), numbers(32, 4)
    tensors = {f"{EMBED}.lora_embedding_A": a, f"{EMBED}.lora_embedding_B": b}
    base = stored(tmp_path / "base")
    out = merged(planned(write(tmp_path / "a", tensors, target_modules=["embed_tokens"]), base), base)
    assert torch.allclose(out[f"{EMBED}.weight"], base[f"{EMBED}.weight"] + 2 * (b @ a).T, atol=1e-6)


def test_each_expert_gets_its_own_part_of_the_matrices(tmp_path: Path) -> None:
    path = "model.layers.{}.mlp.experts"
    a, b = numbers(4 * 2, 64), numbers(32, 2 * 4)
    tensors = {}
    for layer in (0, 1):
        tensors |= {f"{path.format(layer)}.lora_A.weight": a, f"{path.format(layer)}.lora_B.weight": b}
    base = stored(tmp_path / "base", "mixtral")
    config = {"r": 2, "lora_alpha": 2, "target_parameters": ["experts.down_proj"]}
    out = merged(planned(write(tmp_path / "a", tensors, **config), base, "mixtral"), base)
    for expert in range(4):
        name = f"model.layers.1.block_sparse_moe.experts.{expert}.w2.weight"
        own = b[:, expert::4] @ a[2 * expert : 2 * expert + 2]
        assert torch.allclose(out[name], base[name] + own, atol=1e-6)


def test_rows_of_tokens_take_the_place_of_those_of_the_table(tmp_path: Path) -> None:
    rows = numbers(2, 32)
    tensors = {**queries(), f"{EMBED}.token_adapter.trainable_tokens_delta": rows}
    base = stored(tmp_path / "base")
    out = merged(planned(write(tmp_path / "a", tensors, trainable_token_indices=[7, 2]), base), base)
    wanted = base[f"{EMBED}.weight"].clone()
    wanted[[7, 2]] = rows
    assert torch.equal(out[f"{EMBED}.weight"], wanted)


def test_a_table_that_has_grown_makes_the_vocabulary_grow(tmp_path: Path) -> None:
    rows = numbers(263, 32)
    tensors = {**queries(), f"{EMBED}.weight": rows, "lm_head.weight": rows + 1}
    base = stored(tmp_path / "base")
    plan = planned(write(tmp_path / "a", tensors, modules_to_save=["embed_tokens", "lm_head"]), base)
    assert plan.config_changes == {"vocab_size": 263}
    assert plan.changes["lm_head.weight"].shape == (263, 32)
    assert torch.equal(merged(plan, base)[f"{EMBED}.weight"], rows)


def test_a_saved_head_gets_a_weight_of_its_own(tmp_path: Path) -> None:
    tensors = {**queries(), "lm_head.weight": numbers(260, 32)}
    base = stored(tmp_path / "base", tie_word_embeddings=True)
    assert "lm_head.weight" not in base
    folder = write(tmp_path / "a", tensors, modules_to_save=["lm_head"])
    plan = planned(folder, base, tie_word_embeddings=True)
    assert (plan.added, plan.config_changes) == (("lm_head.weight",), {"tie_word_embeddings": False})
    assert torch.equal(merged(plan, base)["lm_head.weight"], tensors["lm_head.weight"])


@pytest.mark.parametrize(
    ("config", "parts", "is_told"),
    [
        ({"target_modules": ["lm_head"]}, pair("lm_head", 260), True),
        (
            {"target_modules": ["lm_head"], "target_parameters": ["lm_head.weight"]},
            pair("lm_head", 260),
            True,
        ),
        (
            {"trainable_token_indices": {"lm_head": [3]}},
            {"lm_head.token_adapter.trainable_tokens_delta": numbers(1, 32), **queries()},
            True,
        ),
        (
            {"trainable_token_indices": [3]},
            {f"{EMBED}.token_adapter.trainable_tokens_delta": numbers(1, 32), **queries()},
            False,
        ),
    ],
    ids=["head", "parameter", "tokens of the head", "tokens of the table"],
)
def test_a_change_that_reaches_further_than_it_was_trained_for_is_told(
    config: dict[str, object], parts: dict[str, torch.Tensor], is_told: bool, tmp_path: Path
) -> None:
    folder = write(tmp_path / "a", parts, **config)
    base = stored(tmp_path / "base", tie_word_embeddings=True)
    told = planned(folder, base, tie_word_embeddings=True).resolved.notices
    assert [f"lm_head.weight shares its weight with {EMBED}.weight" in each for each in told] == [
        True
    ] * is_told
    assert not planned(folder, stored(tmp_path / "free"), tie_word_embeddings=False).resolved.notices


def test_a_shared_weight_that_is_trained_apart_is_told_once(tmp_path: Path) -> None:
    tensors = {**queries(), "lm_head.weight": numbers(260, 32), f"{EMBED}.weight": numbers(260, 32, seed=4)}
    folder = write(tmp_path / "a", tensors, modules_to_save=["lm_head", "embed_tokens"])
    base = stored(tmp_path / "base", tie_word_embeddings=True)
    (told,) = planned(folder, base, tie_word_embeddings=True).resolved.notices
    assert "trained apart" in told


def test_a_parameter_that_is_saved_twice_is_one(tmp_path: Path) -> None:
    twice = {
        **queries(),
        "model.norm.weight": numbers(32),
        "model.norm.modules_to_save.default.weight": numbers(32),
    }
    base = stored(tmp_path / "base")
    out = merged(planned(write(tmp_path / "a", twice, modules_to_save=["norm"]), base), base)
    assert torch.equal(out["model.norm.weight"], numbers(32))
    twice["model.norm.weight"] = numbers(32) + 1
    with pytest.raises(BadFileError, match="which are one and differ"):
        open_adapter(write(tmp_path / "b", twice, modules_to_save=["norm"]))


def test_experts_in_one_tensor_of_the_file_are_changed_there(tmp_path: Path) -> None:
    path = "model.layers.{}.mlp.experts"
    a, b = numbers(4 * 2, 32), numbers(128, 2 * 4)
    tensors = {}
    for layer in (0, 1):
        tensors |= {f"{path.format(layer)}.lora_A.weight": a, f"{path.format(layer)}.lora_B.weight": b}
    base = {name: each.detach() for name, each in tiny.model("mixtral").state_dict().items()}
    config = {"r": 2, "lora_alpha": 2, "target_parameters": ["experts.gate_up_proj"]}
    out = merged(planned(write(tmp_path / "a", tensors, **config), base, "mixtral"), base)
    name = f"{path.format(0)}.gate_up_proj"
    wanted = base[name] + torch.stack([b[:, each::4] @ a[2 * each : 2 * each + 2] for each in range(4)])
    assert torch.allclose(out[name], wanted, atol=1e-6)


def test_half_numbers_are_summed_in_float32_and_rounded_once(tmp_path: Path) -> None:
    tensors = {name: each.bfloat16() for name, each in queries().items()}
    base = {name: each.bfloat16() for name, each in stored(tmp_path / "base").items()}
    plan = planned(write(tmp_path / "a", tensors), base)
    a, b = (tensors[f"{Q.format(0)}.lora_{each}.weight"].float() for each in "AB")
    out = plan.changes[NAME].apply(base[NAME], torch.bfloat16, name=NAME)
    assert torch.equal(out, (base[NAME].float() + 2 * (b @ a)).bfloat16())


@pytest.mark.parametrize("form", ["default", "pickle", "bare"])
def test_other_spellings_of_one_adapter_are_the_same(form: str, tmp_path: Path) -> None:
    tensors, base = queries(), stored(tmp_path / "base")
    folder = write(tmp_path / "a", tensors)
    wanted = merged(planned(folder, base), base)[NAME]
    file = folder / "adapter_model.safetensors"
    if form == "default":
        write(folder, {name.replace(".weight", ".default.weight"): each for name, each in tensors.items()})
    elif form == "pickle":
        torch.save(load_file(file), folder / "adapter_model.bin")
        file.unlink()
    else:
        write(folder, {name.removeprefix("model."): each for name, each in tensors.items()})
    assert torch.equal(merged(planned(folder, base), base)[NAME], wanted)


def test_a_file_of_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('run')",))

    folder = write(tmp_path / "a", queries())
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "adapter_model.bin")
    with pytest.raises(
        BadFileError, match=r"adapter_model\.bin holds something else than tensors, exec"
    ) as it:
        open_adapter(folder)
    assert "trust" not in f"{it.value.message} {it.value.hint}"
    assert "\x1b" not in it.value.message


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"version https://git-lfs.github.com/spec/v1", b"\x80\x02}."]
)
def test_a_pickle_that_is_none_is_told_in_one_line(content: bytes, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", queries())
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(content)
    with pytest.raises(BadFileError, match=r"^[^\n\x1b]*adapter_model\.bin does not load: [^\n\x1b]+$"):
        open_adapter(folder)


def test_names_that_peft_would_not_take_are_told(tmp_path: Path) -> None:
    folder, base = write(tmp_path / "a", queries()), stored(tmp_path / "base")
    assert not planned(folder, base).resolved.notices
    save_file(queries(), folder / "adapter_model.safetensors")
    plan = planned(folder, base)
    assert len(plan.changes) == 2
    (told,) = plan.resolved.notices
    assert f"{Q.format(0)}.lora_A.weight and 3 more tensors" in told
    assert "peft loads none" in told


def test_the_prefix_of_peft_is_not_part_of_a_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", queries())
    assert all(name.startswith(PREFIX) for name in load_file(folder / "adapter_model.safetensors"))
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    assert set(open_adapter(folder).low_rank) == {(Q.format(0), 0), (Q.format(1), 0)}
    assert pair("x")["x.lora_A.weight"].shape == (4, 32)
