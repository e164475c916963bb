"""A delta that is applied while the weights stream in gives the tensors of the target, or refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmctl.artifacts.delta.apply import Wish as ApplyWish
from llmctl.artifacts.delta.apply_add import apply_add
from llmctl.artifacts.delta.find import Found, find
from llmctl.artifacts.delta.make import make
from llmctl.artifacts.delta.make_add import make_add
from llmctl.artifacts.delta.patch import patched
from llmctl.artifacts.delta.results import Wish
from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import BadFileError
from llmctl.core.progress import SilentProgress
from llmctl.loading.checkpoint import Checkpoint, open_folder
from llmctl.loading.reading import StoredTensor
from tests.artifacts.delta.pairs import write

SILENT = SilentProgress()


def found(folder: Path) -> Found:
    return find(str(folder), revision=None, progress=SILENT)


def tensors_of(checkpoint: Checkpoint, on_read: Callable[[int], None]) -> dict[str, StoredTensor]:
    assert checkpoint.patch is not None
    return checkpoint.patch.tensors(on_read)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base", {"embed": torch.randn(5, 4), "norm": torch.ones(4).bfloat16()})


@pytest.fixture
def target(tmp_path: Path, base: Path) -> Path:
    tensors = load_file(base / "model.safetensors")
    tensors = {**tensors, "embed": torch.cat((tensors["embed"] * 2, torch.ones(1, 4)))}
    return write(tmp_path / "target", tensors, config='{"vocab_size": 6}')


def test_the_tensors_are_those_of_the_target(base: Path, target: Path, tmp_path: Path) -> None:
    make(Source.open(base), Source.open(target), Wish(out=tmp_path / "d"), SILENT)
    checkpoint = patched(open_folder(base), found(tmp_path / "d"))
    counted: list[int] = []
    tensors = tensors_of(checkpoint, counted.append)
    wanted = load_file(target / "model.safetensors")
    assert tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(tensors[name][...], tensor)
        assert (tensors[name].get_shape(), tensors[name].name) == (list(tensor.shape), name)
    assert sum(counted) == checkpoint.num_bytes == Source.open(target).num_bytes
    assert checkpoint.config == {"vocab_size": 6}
    assert checkpoint.bytes_by_dtype == open_folder(target).bytes_by_dtype


def test_an_add_delta_streams_in_as_it_is_applied(base: Path, target: Path, tmp_path: Path) -> None:
    make_add(Source.open(base), Source.open(target), Wish(out=tmp_path / "d"), SILENT)
    apply_add(Source.open(base), found(tmp_path / "d"), ApplyWish(out=tmp_path / "out"), SILENT)
    checkpoint = patched(open_folder(base), found(tmp_path / "d"))
    wanted = load_file(tmp_path / "out" / "model.safetensors")
    tensors = tensors_of(checkpoint, lambda _: None)
    assert {name: tensors[name][...].tolist() for name in tensors} == {
        name: tensor.tolist() for name, tensor in wanted.items()
    }


@pytest.mark.parametrize("is_exact", [True, False])
def test_another_base_is_refused_when_its_tensor_is_read(
    base: Path, target: Path, tmp_path: Path, is_exact: bool
) -> None:
    run = make if is_exact else make_add
    run(Source.open(base), Source.open(target), Wish(out=tmp_path / "d"), SILENT)
    other = write(tmp_path / "other", {"embed": torch.randn(5, 4), "norm": torch.ones(4).bfloat16()})
    tensors = tensors_of(patched(open_folder(other), found(tmp_path / "d")), lambda _: None)
    assert torch.equal(tensors["norm"][...].float(), torch.ones(4))
    with pytest.raises(
        BadFileError, match=r"other is not the base of .*: embed differs, the first that was read"
    ):
        tensors["embed"][...]


def test_numbers_that_are_none_are_refused_as_of_any_model(base: Path, tmp_path: Path) -> None:
    broken = {"embed": torch.full((5, 4), torch.nan), "norm": torch.ones(4).bfloat16()}
    target = write(tmp_path / "target", broken)
    make(Source.open(base), Source.open(target), Wish(out=tmp_path / "d"), SILENT)
    tensors = tensors_of(patched(open_folder(base), found(tmp_path / "d")), lambda _: None)
    with pytest.raises(BadFileError, match="embed holds 20 numbers that are NaN"):
        tensors["embed"][...]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("is_missing", [True, False])
def test_right_weights_with_another_config_or_tokenizer_are_refused(
    base: Path, target: Path, tmp_path: Path, name: str, is_missing: bool
) -> None:
    for other in ("tokenizer.json", "README.md"):
        (target / other).write_text("{}")
    make(Source.open(base), Source.open(target), Wish(out=tmp_path / "d"), SILENT)
    (tmp_path / "d" / "README.md").write_text("better")
    changed = patched(open_folder(base), found(tmp_path / "d"))
    assert changed.patch is not None
    assert any("README.md is changed" in notice for notice in changed.patch.notices)
    (tmp_path / "d" / name).unlink() if is_missing else (tmp_path / "d" / name).write_text("[]")
    with pytest.raises(BadFileError, match=f"{name} is changed or missing"):
        patched(open_folder(base), found(tmp_path / "d"))
