"""Reading single tensors of a checkpoint: what is read equals what was written, and damage is named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llmctl.core.errors import BadFileError
from llmctl.loading.reading import stored_tensors

TENSORS = {
    "f32": torch.randn(3, 5),
    "bf16": torch.randn(2, 2, 7, dtype=torch.bfloat16),
    "f16": torch.randn(4, dtype=torch.float16),
    "f8": torch.randn(4, 4).to(torch.float8_e4m3fn),
    "i8": torch.arange(-5, 5, dtype=torch.int8),
    "i64": torch.arange(7),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 4),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_every_type_is_read_as_it_was_written_and_counted(file: Path) -> None:
    counts: list[int] = []
    stored = stored_tensors((file,), counts.append)
    assert set(stored) == set(TENSORS)
    for name, want in TENSORS.items():
        got = stored[name][...]
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        assert torch.equal(
            got.view(torch.uint8) if name == "f8" else got, want.view(torch.uint8) if name == "f8" else want
        )
    assert sum(counts) == sum(tensor.numel() * tensor.element_size() for tensor in TENSORS.values())


def test_each_reading_gives_memory_of_its_own(file: Path) -> None:
    stored = stored_tensors((file,), lambda count: None)
    first = stored["f32"][...]
    first.zero_()
    assert torch.equal(stored["f32"][...], TENSORS["f32"])


def test_a_file_cut_short_after_its_header_was_read_is_named(file: Path) -> None:
    stored = stored_tensors((file,), lambda count: None)
    file.write_bytes(file.read_bytes()[:-40])
    last = max(stored.values(), key=lambda tensor: tensor.entry.end)
    with pytest.raises(BadFileError, match="it ends at byte"):
        last[...]


def test_a_file_that_is_gone_is_named(file: Path) -> None:
    stored = stored_tensors((file,), lambda count: None)
    file.unlink()
    with pytest.raises(BadFileError, match=r"cannot read .*model\.safetensors: No such file"):
        stored["f32"][...]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_none_are_refused(tmp_path: Path, number: float, dtype: torch.dtype) -> None:
    weight = torch.ones(8, 8, dtype=dtype)
    weight[3, 4] = number
    save_file({"layer.weight": weight}, tmp_path / "model.safetensors")
    stored = stored_tensors((tmp_path / "model.safetensors",), lambda count: None)
    with pytest.raises(BadFileError, match=r"layer\.weight holds 1 numbers that are NaN or infinite"):
        stored["layer.weight"][...]


def test_large_numbers_whose_sum_is_too_large_are_no_damage(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.full((4,), 3e38)}, tmp_path / "model.safetensors")
    stored = stored_tensors((tmp_path / "model.safetensors",), lambda count: None)
    assert torch.equal(stored["layer.weight"][...], torch.full((4,), 3e38))
