"""What `compress` and `models convert` cannot take, and where they must not write: one line; all stays."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llmctl.artifacts.compress.request import CompressRequest
from llmctl.artifacts.compress.run import compress
from llmctl.artifacts.convert import ConvertRequest, convert
from llmctl.core.errors import BadFileError, LlmctlError, UsageError
from llmctl.core.progress import SilentProgress
from tests import tiny
from tests.artifacts.delta.pairs import hashes_of
from tests.lora.made import queries, write

SILENT = SilentProgress()
RUNS: dict[str, Callable[[Path, Path, bool], object]] = {
    "convert": lambda source, out, overwrite: convert(
        ConvertRequest(model=str(source), target=out, overwrite=overwrite), SILENT
    ),
    "compress": lambda source, out, overwrite: compress(
        CompressRequest(model=str(source), target=out, method="int4", evaluates=False, overwrite=overwrite),
        SILENT,
    ),
}
both = pytest.mark.parametrize("name", RUNS)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "model")


def gguf(model: Path) -> Path:
    path = model.parent / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    return path


def adapter(model: Path) -> Path:
    return write(model.parent / "adapter", queries(), base_model_name_or_path=str(model))


def only_ckpt(model: Path) -> Path:
    (model / "model.safetensors").rename(model / "model.ckpt")
    return model


@both
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (gguf, "GGUF"),
        (adapter, "adapter"),
        (only_ckpt, "only pickle weights"),
    ],
)
def test_what_is_no_checkpoint_is_refused_by_name(
    name: str, made: Callable[[Path], Path], said: str, model: Path, tmp_path: Path
) -> None:
    source = made(model)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(LlmctlError, match=said) as refused:
        RUNS[name](source, tmp_path / "out", False)
    assert "\n" not in refused.value.message
    assert refused.value.hint
    # It cannot be its own remedy.
    assert "models convert" not in refused.value.hint
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_pickles_are_to_be_converted_first_and_then_compress(model: Path, tmp_path: Path) -> None:
    weights: dict[str, torch.Tensor] = {}
    tiny.edit_weights(model, weights.update)
    torch.save(weights, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(BadFileError, match="only pickle weights") as refused:
        RUNS["compress"](model, tmp_path / "out", False)
    assert f"`llmctl models convert {model} --out DIR`" in (refused.value.hint or "")
    RUNS["convert"](model, tmp_path / "safe", False)
    RUNS["compress"](tmp_path / "safe", tmp_path / "out", False)


@both
@pytest.mark.parametrize("place", [".", "inner", "inner/more", ".."])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_source_is_never_the_place_of_the_result(
    name: str, place: str, overwrite: bool, model: Path
) -> None:
    before = hashes_of(model)
    with pytest.raises(UsageError, match=r"which is read"):
        RUNS[name](model, model / place, overwrite)
    assert hashes_of(model) == before
    assert not list(model.parent.glob(".*"))


@both
def test_a_folder_of_something_else_is_not_replaced(name: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    for overwrite, said in ((False, "photos exists"), (True, "photos holds no model")):
        with pytest.raises(UsageError, match=said):
            RUNS[name](model, tmp_path / "photos", overwrite)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"
