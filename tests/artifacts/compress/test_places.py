"""Weights of layers are found by whatever names the files have for them; others stay, with a reason."""

from pathlib import Path

import pytest

from llmctl.artifacts.compress.places import Held, Places, Wish, bare_model, find, kinds_of
from llmctl.core.errors import BadFileError
from llmctl.demo import MODELS
from llmctl.loading.checkpoint import open_folder
from llmctl.loading.header import read_header
from tests import tiny


def places_of(folder: Path, **wish: object) -> Places:
    checkpoint = open_folder(folder)
    held = {
        name: Held(entry.dtype, entry.shape)
        for file in checkpoint.weight_files
        for name, entry in read_header(file).items()
    }
    return find(bare_model(checkpoint), held, Wish(**{"method": "int4", **wish}))  # type: ignore[arg-type]


def test_layers_are_compressed_and_the_table_and_head_stay() -> None:
    found = places_of(MODELS["demo"])
    assert len(found.chosen) == 21
    assert all(name.removesuffix(".weight") == path for name, path in found.chosen.items())
    assert set(found.dense) == {"model.embed_tokens", "lm_head"}
    assert found.ignored == {"lm_head"}
    assert found.group_size == 64


def test_experts_are_found_though_the_model_holds_them_joined(tmp_path: Path) -> None:
    found = places_of(tiny.folder(tmp_path / "m", "mixtral"))
    assert found.has_experts
    assert found.chosen["model.layers.0.block_sparse_moe.experts.3.w2.weight"] == "model.layers.0.mlp.experts"
    assert not any("gate.weight" in name for name in found.chosen)
    assert found.dense["model.layers.0.mlp.gate"] == "it chooses the experts, which takes exact numbers"


def test_what_is_to_be_skipped_is_ignored_by_name(tmp_path: Path) -> None:
    found = places_of(MODELS["demo"], skip=(r"layers\.0\.", "down_proj$"))
    assert len(found.chosen) == 12
    assert "model.layers.1.mlp.down_proj" in found.ignored
    assert found.dense["model.layers.0.self_attn.q_proj"] == "it is to be skipped"


@pytest.mark.parametrize(
    ("wish", "size", "num_dense"), [({}, 32, 0), ({"group_size": 64}, 64, 12), ({"group_size": 128}, 128, 14)]
)
def test_groups_divide_what_they_can(
    tmp_path: Path, wish: dict[str, object], size: int, num_dense: int
) -> None:
    """Rows of a tiny model are 32 numbers, those of two layers 64."""
    found = places_of(tiny.folder(tmp_path / "m"), **wish)
    assert found.group_size == size
    undivided = [
        path for path, why in found.dense.items() if why.startswith(f"groups of {size} do not divide")
    ]
    assert len(undivided) == num_dense


def test_a_layer_that_is_laid_otherwise_stays(tmp_path: Path) -> None:
    found = places_of(tiny.folder(tmp_path / "m", "gpt2"))
    assert found.chosen == {}
    reason, modules = kinds_of(found.dense)[0]
    assert "Conv1D" in reason
    assert len(modules) == 8


def test_a_model_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m")
    tiny.edit_json(folder / "config.json", model_type="nonsense")
    with pytest.raises(BadFileError, match="architecture 'nonsense'"):
        bare_model(open_folder(folder))
