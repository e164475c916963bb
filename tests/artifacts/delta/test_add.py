"""Add deltas are FastChat's to the bit, and published ones apply as they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from llmctl.artifacts.delta.apply import Result as Applied
from llmctl.artifacts.delta.apply import Wish as ApplyWish
from llmctl.artifacts.delta.apply_add import apply_add
from llmctl.artifacts.delta.find import find
from llmctl.artifacts.delta.make_add import make_add
from llmctl.artifacts.delta.results import Result, Wish
from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import BadFileError
from llmctl.core.progress import SilentProgress
from tests import tiny
from tests.artifacts.delta.pairs import bits_of, write

SILENT = SilentProgress()


def made(base: Path, target: Path, out: Path, **wish: Any) -> Result:
    return make_add(Source.open(base), Source.open(target), Wish(out=out, **wish), SILENT)


def applied(base: Path, delta: Path, out: Path, **wish: Any) -> Applied:
    found = find(str(delta), revision=None, progress=SILENT)
    return apply_add(Source.open(base, takes_pickles=True), found, ApplyWish(out=out, **wish), SILENT)


def in_halves(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)


def published(base: Path, target: Path, out: Path) -> Path:
    """What FastChat's make_delta writes, in the files of its day."""
    model, own = in_halves(target), in_halves(base).state_dict()
    for name, parameter in model.state_dict().items():
        parameter.data -= own[name]
    out.mkdir()
    model.config.save_pretrained(out)
    tiny.tokenizer().save_pretrained(out)
    names = list(model.state_dict())
    weight_map = {}
    for number in (1, 2):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        part = {name: model.state_dict()[name] for name in names[number - 1 :: 2]}
        part[f"model.layers.{number}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        torch.save(part, out / file)
        weight_map |= dict.fromkeys(part, file)
    (out / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return out


def sums(base: Path, delta: Path) -> Mapping[str, Tensor]:
    """What FastChat's apply_delta comes to."""
    found = {name: t for file in delta.glob("*.bin") for name, t in torch.load(file).items()}
    model = in_halves(base)
    for name, parameter in model.state_dict().items():
        parameter.data += found[name]
    state: Mapping[str, Tensor] = model.state_dict()
    return state


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    base = tiny.folder(folder / "base", seed=0)
    target = tiny.folder(folder / "target", seed=0)
    tiny.edit_weights(target, lambda tensors: [t.mul_(1.01).add_(1e-3) for t in tensors.values()])
    return base, target


def test_a_published_delta_applies_to_the_bit(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, target = pair
    delta = published(base, target, tmp_path / "vicuna-delta")
    result = applied(base, delta, tmp_path / "out")
    wanted, found = sums(base, delta), load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == torch.float16
        assert torch.equal(found[name], tensor)
    assert result.notices == (
        "2 tables that models compute are left out: model.layers.1.self_attn.rotary_emb.inv_freq",
        "it does not say what its base was, which is not checked but for shapes",
    )
    assert "float16" in (tmp_path / "out" / "config.json").read_text()
    assert in_halves(tmp_path / "out").dtype == torch.float16


def test_a_delta_that_llmctl_makes_is_the_one_that_fastchat_makes(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    base, target = pair
    theirs = published(base, target, tmp_path / "theirs")
    made(base, target, tmp_path / "ours")
    wanted = {name: t for file in theirs.glob("*.bin") for name, t in torch.load(file).items()}
    found = load_file(tmp_path / "ours" / "model.safetensors")
    for name, tensor in found.items():
        assert torch.equal(tensor, wanted[name])
    applied(base, tmp_path / "ours", tmp_path / "out")
    applied(base, theirs, tmp_path / "other")
    assert bits_of(tmp_path / "out") == bits_of(tmp_path / "other")


@pytest.mark.parametrize(("rows", "told"), [(7, "padded with zeros"), (3, "cut")])
def test_a_vocabulary_of_another_size_is_fitted_aloud(tmp_path: Path, rows: int, told: str) -> None:
    base = write(tmp_path / "base", {"embed": torch.ones(5, 2)})
    target = write(tmp_path / "target", {"embed": torch.full((rows, 2), 3.0)})
    notice = f"embed: the base has 5 rows, the target {rows}; the base's are {told}"
    assert made(base, target, tmp_path / "d").notices == (notice,)
    assert notice.replace("target", "delta") in applied(base, tmp_path / "d", tmp_path / "out").notices
    out = load_file(tmp_path / "out" / "model.safetensors")["embed"]
    assert torch.equal(out, torch.full((rows, 2), 3.0).half())


def test_the_tokenizer_is_that_of_the_delta_or_else_of_the_base_aloud(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"x": torch.zeros(3)})
    made(base, write(tmp_path / "target", {"x": torch.ones(3)}), tmp_path / "d")
    (tmp_path / "d" / "tokenizer.json").write_text('{"mine": 1}')
    applied(base, tmp_path / "d", tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"mine": 1}'
    (tmp_path / "d" / "tokenizer.json").unlink()
    result = applied(base, tmp_path / "d", tmp_path / "again")
    assert result.notices == (f"the delta {tmp_path / 'd'} has no tokenizer; that of base is taken",)
    assert (tmp_path / "again" / "tokenizer.json").exists()


def test_another_base_and_a_damaged_difference_are_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"x": torch.zeros(3), "y": torch.zeros(2)})
    made(base, write(tmp_path / "target", {"x": torch.ones(3), "y": torch.ones(2)}), tmp_path / "d")
    other = write(tmp_path / "other", {"x": torch.zeros(3), "y": torch.ones(2)})
    with pytest.raises(BadFileError, match=r"other is not the base of .*: 1 of 2 tensors differ: y"):
        applied(other, tmp_path / "d", tmp_path / "out")
    tiny.edit_weights(tmp_path / "d", lambda tensors: tensors["x"].mul_(2))
    with pytest.raises(BadFileError, match="is damaged: x is not what it was"):
        applied(base, tmp_path / "d", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_whole_model_is_not_taken_for_a_delta(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, target = pair
    with pytest.raises(BadFileError, match="holds a whole model much like base"):
        applied(base, target, tmp_path / "out")


def test_tensors_that_only_one_side_has_are_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"x": torch.zeros(3)})
    target = write(tmp_path / "target", {"x": torch.ones(3), "y": torch.ones(3)})
    with pytest.raises(BadFileError, match="base lacks 1 tensors of target, the first is y"):
        made(base, target, tmp_path / "d")
    with pytest.raises(BadFileError, match=r"base lacks 1 tensors of the delta, the first is y"):
        applied(base, target, tmp_path / "out")


def test_numbers_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"x": torch.zeros(3)})
    with pytest.raises(BadFileError, match="x has numbers that are too large for float16"):
        made(base, write(tmp_path / "target", {"x": torch.full((3,), 1e5)}), tmp_path / "d")


def test_what_is_excluded_is_as_the_base_has_it(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"x": torch.zeros(3), "y": torch.zeros(3)})
    target = write(tmp_path / "target", {"x": torch.ones(3), "y": torch.ones(3)})
    assert made(base, target, tmp_path / "d", exclude=("^y$",)).fates == {"changed": 1, "excluded": 1}
    applied(base, tmp_path / "d", tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert (out["x"].sum(), out["y"].sum()) == (3, 0)


def test_a_tied_head_of_pickles_is_no_tensor_that_only_one_side_has(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"embed": torch.ones(3, 2), "x": torch.zeros(3)})
    delta = tmp_path / "d"
    delta.mkdir()
    table = torch.full((3, 2), 0.5).half()
    torch.save({"lm_head": table, "embed": table, "x": torch.ones(3)}, delta / "pytorch_model.bin")
    applied(base, delta, tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert out.keys() == {"embed", "x"}
    assert torch.equal(out["embed"], torch.full((3, 2), 1.5).half())


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint64, torch.uint8, torch.int8, torch.bool])
def test_integers_come_back_as_they_were(tmp_path: Path, dtype: torch.dtype) -> None:
    numbers = torch.tensor([0, 1, 250]), torch.tensor([255, 0, 3])
    base, target = (
        write(tmp_path / name, {"x": each.to(dtype)})
        for name, each in zip(("base", "target"), numbers, strict=True)
    )
    made(base, target, tmp_path / "d")
    applied(base, tmp_path / "d", tmp_path / "out")
    assert bits_of(tmp_path / "out")["x"] == bits_of(target)["x"]


def test_a_pattern_that_finds_nothing_is_told(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"x": torch.zeros(3)})
    result = made(base, write(tmp_path / "target", {"x": torch.ones(3)}), tmp_path / "d", exclude=("^y", "x"))
    assert result.notices == ("--exclude '^y' finds no tensor",)
    assert result.fates == {"excluded": 1}


def test_that_fastchat_counts_tied_tensors_twice_is_told(tmp_path: Path) -> None:
    tied = '{"tie_word_embeddings": true}'
    base = write(tmp_path / "base", {"embed": torch.ones(4, 2)}, config=tied)
    target = write(tmp_path / "target", {"embed": torch.full((4, 2), 1.25)}, config=tied)
    notices = made(base, target, tmp_path / "d").notices
    assert any("apply this delta with llmctl" in notice for notice in notices)
    assert not any("twice" in notice for notice in applied(base, tmp_path / "d", tmp_path / "out").notices)
    published_by_others = write(tmp_path / "p", {"embed": torch.full((4, 2), 0.25).half()}, config=tied)
    notices = applied(base, published_by_others, tmp_path / "theirs").notices
    assert any("took the base off twice" in notice for notice in notices)


def test_packed_numbers_cannot_be_added(tmp_path: Path) -> None:
    packed = '{"quantization_config": {"quant_method": "fp8"}}'
    base = write(tmp_path / "base", {"x": torch.ones(4, 2)}, config=packed)
    with pytest.raises(BadFileError, match="base is quantised"):
        made(base, base, tmp_path / "d")
