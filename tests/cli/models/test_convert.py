"""`llmctl models convert`: what it wrote, where, and how large it is."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.conftest import Llmctl


def test_the_sizes_before_and_after_are_told(llmctl: Llmctl, tmp_path: Path) -> None:
    target = tmp_path / "out"
    ended = llmctl("models", "convert", "demo", "--out", str(target), "--dtype", "float32")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("demo: 4.4 MiB before, 8.8 MiB after, in 1 file\n")
    assert all(tensor.dtype == torch.float32 for tensor in load_file(target / "model.safetensors").values())


def test_shards_are_cut_as_asked_and_programs_get_json(llmctl: Llmctl, tmp_path: Path) -> None:
    target = tmp_path / "out"
    ended = llmctl("models", "convert", "demo", "--out", str(target), "--max-shard-size", "1MB", "--json")
    told = json.loads(ended.out)
    assert told["files"] == len(list(target.glob("*.safetensors"))) > 1
    assert told["bytes_before"] == told["bytes_after"]


def test_a_dry_run_writes_nothing(llmctl: Llmctl, tmp_path: Path) -> None:
    ended = llmctl("models", "convert", "demo", "--out", str(tmp_path / "out"), "--dry-run")
    assert "would be written to" in ended.out
    assert not (tmp_path / "out").exists()


def test_a_dtype_that_is_none_is_refused(llmctl: Llmctl, tmp_path: Path) -> None:
    ended = llmctl("models", "convert", "demo", "--out", str(tmp_path / "out"), "--dtype", "int8")
    assert ended.code == 2
    assert "--dtype must be one of float32, bfloat16, float16, not 'int8'" in ended.err
