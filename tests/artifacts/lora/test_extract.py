"""`lora extract` makes an adapter that gives the target back as far as its rank goes, and says how far."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmctl.artifacts.lora import factors
from llmctl.artifacts.lora.extract import ExtractRequest, ExtractResult, extract
from llmctl.artifacts.lora.factors import factorise
from llmctl.artifacts.lora.merge import MergeRequest, merge
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import SilentProgress
from tests import tiny
from tests.lora.made import Q, numbers


def run(base: Path, target: Path, rank: int, **options: Any) -> ExtractResult:
    request = ExtractRequest(
        base=str(base), target=str(target), rank=rank, out=base.parent / "adapter", **options
    )
    return extract(request, SilentProgress())


def back(base: Path) -> dict[str, torch.Tensor]:
    """Base and adapter merged."""
    out = base.parent / "back"
    merge(MergeRequest(adapter=str(base.parent / "adapter"), out=out), SilentProgress())
    return load_file(out / "model.safetensors")


def tuned(base: Path, change: Any) -> Path:
    target = shutil.copytree(base, base.parent / "target")
    tiny.edit_weights(target, change)
    return target


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "qwen2"])
def test_a_full_rank_gives_the_target_back(kind: str, tmp_path: Path) -> None:
    base, target = (tiny.folder(tmp_path / name, kind) for name in ("base", "target"))
    tiny.model(kind, seed=5).save_pretrained(target)
    result = run(base, target, 64)
    assert not result.left_out
    assert max(result.residuals.values()) < 1e-5
    out, wanted = back(base), load_file(target / "model.safetensors")
    assert out.keys() == wanted.keys()
    assert max(float((out[name] - wanted[name]).abs().max()) for name in wanted) < 1e-5


def test_a_low_rank_difference_is_found_whole_and_only_there(tmp_path: Path) -> None:
    base, name = tiny.folder(tmp_path / "base"), f"{Q.format(1)}.weight"
    target = tuned(base, lambda tensors: tensors[name].add_(numbers(32, 2) @ numbers(2, 32)))
    result = run(base, target, 2)
    assert result.low_rank == (Q.format(1),)
    assert result.residuals[Q.format(1)] < 1e-5
    assert torch.allclose(back(base)[name], load_file(target / "model.safetensors")[name], atol=1e-6)


def test_the_residual_is_the_share_that_is_left_out(tmp_path: Path) -> None:
    base, name = tiny.folder(tmp_path / "base"), f"{Q.format(0)}.weight"
    target = tuned(base, lambda tensors: tensors[name].add_(numbers(32, 32)))
    told = run(base, target, 3).residuals[Q.format(0)]
    values = torch.linalg.svdvals(
        load_file(target / "model.safetensors")[name] - load_file(base / "model.safetensors")[name]
    )
    assert told == pytest.approx(float(values[3:].norm() / values.norm()), rel=1e-4)


def test_what_is_no_matrix_is_saved_whole(tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "base", "qwen2")
    names = ("model.norm.weight", "model.layers.0.self_attn.q_proj.bias", f"{Q.format(0)}.weight")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in names:
            tensors[name] += 0.5

    target = tuned(base, change)
    assert set(run(base, target, 1).saved) == set(names[:2])
    out, wanted = back(base), load_file(target / "model.safetensors")
    for name in names:
        assert torch.allclose(out[name], wanted[name], atol=1e-6), name


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_vocabulary_that_has_grown_is_saved_whole(is_tied: bool, tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "base", tie_word_embeddings=is_tied)
    target = tiny.folder(tmp_path / "target", tie_word_embeddings=is_tied, vocab_size=263, seed=2)
    own = tiny.tokenizer()
    own.add_tokens(["<a>", "<b>", "<c>"])
    own.save_pretrained(target)
    assert "tokenizer.json" in run(base, target, 64).carried
    out, wanted = back(base), load_file(target / "model.safetensors")
    assert out.keys() == wanted.keys()
    assert torch.equal(out["model.embed_tokens.weight"], wanted["model.embed_tokens.weight"])


def test_the_base_is_found_from_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny.folder(tmp_path / "base")
    target = tuned(base, lambda tensors: tensors["model.norm.weight"].add_(0.5))
    monkeypatch.chdir(tmp_path)
    request = ExtractRequest(base="base", target=str(target), rank=2, out=tmp_path / "adapter")
    extract(request, SilentProgress())
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base.resolve())


@pytest.mark.parametrize("is_base_tied", [True, False])
@pytest.mark.parametrize("num_tokens", [260, 264])
def test_a_head_that_is_tied_in_one_of_both_is_saved_whole(
    is_base_tied: bool, num_tokens: int, tmp_path: Path
) -> None:
    base = tiny.folder(tmp_path / "base", tie_word_embeddings=is_base_tied)
    changes = {"tie_word_embeddings": not is_base_tied, "vocab_size": num_tokens}
    target = tiny.folder(tmp_path / "target", seed=2, **changes)
    result = run(base, target, 32)
    assert (result.left_out, len(result.notices)) == ((), int(num_tokens > 260))
    assert "lm_head" in json.loads((tmp_path / "adapter/adapter_config.json").read_text())["modules_to_save"]
    merge(MergeRequest(adapter=str(tmp_path / "adapter"), out=tmp_path / "back"), SilentProgress())
    ids, models = torch.arange(3, 40).unsqueeze(0), tiny.transformers.AutoModelForCausalLM
    with torch.no_grad():
        ours, wanted = (models.from_pretrained(tmp_path / name)(ids).logits for name in ("back", "target"))
    assert torch.allclose(ours, wanted, atol=1e-3)


@pytest.mark.parametrize("is_in_base", [True, False])
def test_a_copy_of_a_shared_weight_is_no_difference_of_its_own(is_in_base: bool, tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "base", tie_word_embeddings=True)
    table, head = "model.embed_tokens.weight", "lm_head.weight"

    def copy(tensors: dict[str, torch.Tensor]) -> None:
        tensors[head] = tensors[table].clone()

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[table] += numbers(260, 32)
        copy(tensors)

    if is_in_base:
        tiny.edit_weights(base, copy)
    result = run(base, tuned(base, change), 32)
    assert (result.low_rank, result.saved, result.left_out) == (("model.embed_tokens",), (), ())
    out, wanted = back(base), load_file(tmp_path / "target/model.safetensors")
    assert torch.allclose(out[table], wanted[table], atol=1e-6)
    assert head not in out or torch.equal(out[head], out[table])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"intermediate_size": 128}, r"mlp\.\w+_proj\.weight is \[\d+, \d+\] and \[\d+, \d+\]"),
        ({"hidden_size": 64}, r"weight is \[260, 32\] and \[260, 64\]"),
        ({"num_hidden_layers": 3}, r"base has no model\.layers\.2"),
        ({"num_hidden_layers": 1}, r"target has no model\.layers\.1"),
    ],
)
def test_a_target_of_another_shape_is_refused(changes: dict[str, int], words: str, tmp_path: Path) -> None:
    base, target = tiny.folder(tmp_path / "base"), tiny.folder(tmp_path / "target", **changes)
    said = rf"^base and target have different shapes: .*{words}; an adapter cannot hold that$"
    with pytest.raises(BadFileError, match=said):
        run(base, target, 2)


def noisy(*parts: str) -> Any:
    """Adds to all tensors that have one of `parts` in their name."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, each in tensors.items():
            if any(part in name for part in parts):
                each += numbers(*each.shape)

    return change


@pytest.mark.parametrize(
    ("kind", "parts", "rank", "words"),
    [
        ("mixtral", ["experts.1.w1"], 32, "without such for model.layers.0.block_sparse_moe.experts.0.w1"),
        ("mixtral", [".w1", ".w3"], 32, "without such for model.layers.0.block_sparse_moe.experts.0.w2"),
        ("mixtral", ["experts"], 33, "up to --rank 32"),
        ("qwen2_moe", ["mlp.experts"], 4, "right in models of the kind qwen2_moe"),
        ("mamba", ["out_proj"], 4, "refuses matrices for backbone.layers.0.mixer.out_proj"),
        ("deepseek_v3", ["1.mlp.gate.weight", "q_a_proj"], 4, "without its e_score_correction_bias"),
    ],
)
def test_what_peft_does_not_load_is_told(
    kind: str, parts: list[str], rank: int, words: str, tmp_path: Path
) -> None:
    base = tiny.folder(tmp_path / "base", kind)
    (told,) = run(base, tuned(base, noisy(*parts)), rank, is_dry_run=True).notices
    assert words in told
    assert "peft" in told
    assert "llmctl lora merge" in told


@pytest.mark.parametrize(
    ("kind", "parts", "changes", "target_changes"),
    [
        ("gpt2", ["ln_1.weight", "c_attn.weight"], {}, {}),
        ("opt", ["embed_positions", "q_proj"], {}, {}),
        ("mixtral", ["experts"], {}, {}),
        ("llama", ["lm_head", "q_proj"], {"tie_word_embeddings": True}, {"tie_word_embeddings": False}),
        ("phi", ["q_proj"], {}, {"tie_word_embeddings": True}),
    ],
    ids=["half a module", "positions", "experts", "a head of its own", "a head that is tied"],
)
def test_peft_loads_it_unmerged(
    kind: str, parts: list[str], changes: dict[str, Any], target_changes: dict[str, Any], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    base = tiny.folder(tmp_path / "base", kind, **changes)
    target = tiny.folder(tmp_path / "target", kind, **{**changes, **target_changes})
    tiny.edit_weights(target, noisy(*parts))
    assert not run(base, target, 32).notices
    models, ids = tiny.transformers.AutoModelForCausalLM, torch.arange(3, 40).unsqueeze(0)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(models.from_pretrained(base), tmp_path / "adapter").eval()
        theirs, wanted = loaded(ids).logits, models.from_pretrained(target)(ids).logits
    assert torch.allclose(theirs, wanted, atol=1e-3)


def test_a_vocabulary_that_has_grown_is_told_for_peft(tmp_path: Path) -> None:
    base, target = tiny.folder(tmp_path / "base"), tiny.folder(tmp_path / "target", vocab_size=264)
    (told,) = run(base, target, 32, is_dry_run=True).notices
    assert "264 rows, 260 in the base" in told
    assert "resize_token_embeddings(264)" in told


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    base, target = tiny.folder(tmp_path / "base"), tiny.folder(tmp_path / "target", seed=2)
    result = run(base, target, 2, is_dry_run=True)
    assert (result.is_dry_run, len(result.low_rank), result.residuals) == (True, 16, {})
    assert not list(tmp_path.glob("*adapter*"))


def test_equal_models_and_strangers_are_refused(tmp_path: Path) -> None:
    base, other = tiny.folder(tmp_path / "base"), tiny.folder(tmp_path / "other", "gpt2")
    with pytest.raises(BadFileError, match="does not differ"):
        run(base, shutil.copytree(base, tmp_path / "same"), 2)
    with pytest.raises(BadFileError, match="no tensor of one name"):
        run(base, other, 2)
    with pytest.raises(UsageError, match="--rank"):
        run(base, other, 0)


def test_large_matrices_are_projected_to_nearly_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    difference = numbers(300, 5) @ numbers(5, 200) + 0.05 * numbers(300, 200)
    exact = factorise(difference, 8)
    monkeypatch.setattr(factors, "_EXACT_UP_TO", 10)
    near = factorise(difference, 8)
    assert near.residual == pytest.approx(exact.residual, rel=1e-3)
    assert torch.equal(near.a, factorise(difference, 8).a)


def test_no_difference_has_no_residual() -> None:
    found = factorise(torch.zeros(6, 4), 2)
    assert (found.residual, float(found.b.abs().sum())) == (0.0, 0.0)


def test_peft_merges_it_to_the_same(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base, target = tiny.folder(tmp_path / "base"), tiny.folder(tmp_path / "target", seed=2)
    run(base, target, 8)
    model = tiny.transformers.AutoModelForCausalLM.from_pretrained(base)
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload().state_dict()
    for name, ours in back(base).items():
        assert torch.allclose(ours, theirs[name], atol=1e-6), name


@pytest.mark.parametrize("shape", [(300, 40), (40, 300), (60, 60)])
def test_the_matrices_are_the_best_of_their_rank(shape: tuple[int, int]) -> None:
    difference = numbers(*shape)
    found, values = factorise(difference, 7), torch.linalg.svdvals(difference)
    assert found.residual == pytest.approx(float(values[7:].norm() / values.norm()), rel=1e-5)
    assert float((difference - found.b @ found.a).norm() / difference.norm()) == pytest.approx(found.residual)
    assert torch.allclose(found.b.norm(dim=0), found.a.norm(dim=1), rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_by_the_name_of_the_tensor(value: float, tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "base")

    def damage(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{Q.format(1)}.weight"][3, 3] = value

    with pytest.raises(BadFileError, match=r"layers\.1\.self_attn\.q_proj\.weight holds numbers"):
        run(base, tuned(base, damage), 2)
    assert not list(tmp_path.glob("*adapter*"))


def test_a_weight_that_two_share_is_told(tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "base", tie_word_embeddings=True)
    target = tuned(base, lambda tensors: tensors["model.embed_tokens.weight"].add_(numbers(260, 32)))
    (told,) = run(base, target, 32).notices
    assert "model.embed_tokens.weight shares its weight with lm_head.weight" in told


def test_a_difference_in_norms_alone_is_an_adapter_too(tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "base")
    result = run(base, tuned(base, lambda tensors: tensors["model.norm.weight"].add_(0.5)), 2)
    assert (result.low_rank, result.saved) == ((), ("model.norm.weight",))
    assert "peft" in result.notices[0]
    wanted = load_file(tmp_path / "target/model.safetensors")["model.norm.weight"]
    assert torch.equal(back(base)["model.norm.weight"], wanted)
