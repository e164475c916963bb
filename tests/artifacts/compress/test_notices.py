"""Experts are nearly all of a model: they are compressed, or what stays dense is told; nothing is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from llmctl.artifacts.compress.request import Compressed, CompressRequest
from llmctl.artifacts.compress.run import compress
from llmctl.core.errors import UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.planning.request import PlanRequest
from tests import tiny

MORE: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"head_dim": 8, "moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "rope_scaling": None},
}


def made(folder: Path, kind: str, **changes: Any) -> Path:
    """A tiny model with rows of 64 numbers."""
    if kind in MORE:
        config = transformers.AutoConfig.for_model(
            kind, **{**tiny.CONFIGS["llama"], "hidden_size": 64, "vocab_size": 260, **MORE[kind], **changes}
        )
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        return folder
    return tiny.folder(folder, kind, **{"hidden_size": 64, **changes})


def run(source: Path, target: Path, method: str = "int4", **changes: Any) -> Compressed:
    request = CompressRequest(
        model=str(source), target=target, method=method, **{"evaluates": False, **changes}
    )
    return compress(request, SilentProgress())


def ignored(folder: Path) -> set[str]:
    config = json.loads((folder / "config.json").read_text())
    return set(config["quantization_config"]["ignore"])


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "qwen2_moe", "deepseek_v3"])
def test_experts_that_are_stored_one_by_one_are_compressed_one_by_one(tmp_path: Path, kind: str) -> None:
    run(made(tmp_path / "in", kind), tmp_path / "out")
    names = set(load_file(tmp_path / "out" / "model.safetensors"))
    experts = {name for name in load_file(tmp_path / "in" / "model.safetensors") if ".experts." in name}
    assert experts
    assert all(f"{name}_packed" in names and name not in names for name in experts)
    assert not any(".experts." in name for name in ignored(tmp_path / "out"))
    routers = {name.removesuffix(".weight") for name in names if name.endswith("gate.weight")}
    assert routers
    assert routers <= ignored(tmp_path / "out")


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_who_cannot_load_experts_is_told_in_a_notice_and_in_the_card(
    tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "llmctl")
    told = run(made(tmp_path / "in", "mixtral"), tmp_path / "out", method)
    said = f"in: transformers cannot load experts in {method}, as llmctl can; both load --method int4 or fp8"
    assert told.notices == (said,)
    assert said in caplog.text
    assert said in (tmp_path / "out" / "README.md").read_text()
    assert told.as_dict()["notices"] == [said]


def test_experts_that_are_one_tensor_stay_dense_aloud(tmp_path: Path) -> None:
    source = made(tmp_path / "in", "gpt_oss")
    told = run(source, tmp_path / "out")
    assert told.num_compressed == 8
    (said,) = [notice for notice in told.notices if "experts are stored" in notice]
    assert said.startswith("in: 384.0 KiB of ")
    assert "stay dense: model.layers.0.mlp.experts and 1 more, since its experts are stored as one" in said
    assert "model.layers.0.mlp.experts" in ignored(tmp_path / "out")


def test_layers_that_groups_do_not_divide_are_told(tmp_path: Path) -> None:
    told = run(made(tmp_path / "in", "llama"), tmp_path / "out", group_size=64, skip=("up_proj",))
    assert told.notices == ()
    told = run(made(tmp_path / "in2", "llama", intermediate_size=96), tmp_path / "out2", group_size=64)
    assert ["groups of 64 do not divide its width of 96" in each for each in told.notices] == [True]


def test_skipped_experts_are_ignored_by_the_names_of_the_files(tmp_path: Path) -> None:
    run(made(tmp_path / "in", "mixtral"), tmp_path / "out", skip=("experts",))
    assert "model.layers.1.block_sparse_moe.experts.3.w2" in ignored(tmp_path / "out")
    assert "model.layers.1.block_sparse_moe.experts.3.w2.weight" in load_file(
        tmp_path / "out" / "model.safetensors"
    )


def test_layers_that_the_model_does_not_know_stay_and_are_named(tmp_path: Path) -> None:
    source = made(tmp_path / "in", "llama")
    name = "mtp.layers.0.mlp.up_proj"
    tiny.edit_weights(source, lambda found: found.update({f"{name}.weight": torch.ones(64, 64)}))
    told = run(source, tmp_path / "out")
    assert told.dense[name] == "transformers' model has no such layer"
    assert name in ignored(tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "wish", "why", "remedy"),
    [
        (
            "gpt2",
            {},
            "and 7 more must stay dense, since other programs take only linear layers, and this is a Conv1D",
            "llmctl chat .*in --quantization int4",
        ),
        ("llama", {"skip": ("proj",)}, "since it is to be skipped", "let --skip find less"),
        ("llama", {"hidden_size": 24, "intermediate_size": 48}, "do not divide", "take --method int8"),
    ],
)
def test_a_model_of_which_nothing_would_be_compressed_is_refused_with_a_remedy(
    tmp_path: Path, kind: str, wish: dict[str, Any], why: str, remedy: str
) -> None:
    shape = {key: value for key, value in wish.items() if key != "skip"}
    source = tiny.folder(tmp_path / "in", kind) if kind == "gpt2" else made(tmp_path / "in", kind, **shape)
    with pytest.raises(UsageError, match=f"in has no weights that int4 can compress: .*{why}") as refused:
        run(source, tmp_path / "out", skip=wish.get("skip", ()))
    assert re.search(remedy, refused.value.hint or "")


def test_a_pattern_that_finds_no_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--skip 'layer.*0' finds no layer") as refused:
        run(made(tmp_path / "in", "llama"), tmp_path / "out", skip=("proj$", r"layer\.0"))
    assert "lm_head" in str(refused.value.hint)


def test_calibration_says_of_how_many_weights_it_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "llmctl")
    (tmp_path / "text.txt").write_text(Path(__file__).read_text()[:2000])
    run(made(tmp_path / "in", "mixtral"), tmp_path / "out", calibration=tmp_path / "text.txt")
    assert "--calibration serves 8 weights; 24 are rounded without it" in caplog.text


def test_calibration_finds_layers_whatever_the_files_call_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "llmctl")
    """Checkpoints of the bare model lack its prefix."""
    source = made(tmp_path / "in", "llama", tie_word_embeddings=True)
    (tmp_path / "text.txt").write_text(Path(__file__).read_text()[:2000])

    def bare(found: dict[str, torch.Tensor]) -> None:
        for name in list(found):
            found[name.removeprefix("model.")] = found.pop(name)

    tiny.edit_weights(source, bare)
    run(source, tmp_path / "out", calibration=tmp_path / "text.txt")
    assert "rounded without it" not in caplog.text


@pytest.mark.filterwarnings("ignore:You passed .quantization_config.:UserWarning")
@pytest.mark.heavy
@pytest.mark.parametrize("method", ["int4", "fp8"])
@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_plain_transformers_reads_the_same_experts(tmp_path: Path, kind: str, method: str) -> None:
    pytest.importorskip("compressed_tensors")
    run(made(tmp_path / "in", kind), tmp_path / "out", method)
    dense = transformers.CompressedTensorsConfig(dequantize=True)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, quantization_config=dense
    ).eval()
    wish = LoadRequest(model=str(tmp_path / "out"), plan=PlanRequest(device="cpu", dtype="float32"))
    ids = torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, other = load(wish, SilentProgress()).model(ids).logits, theirs(ids).logits
    assert float((ours - other).norm() / ours.norm()) < 0.02
