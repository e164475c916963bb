"""A run that is killed at any moment leaves no folder that looks whole, and the next gives the same bytes."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llmctl.artifacts.delta.apply import Wish as ApplyWish
from llmctl.artifacts.delta.apply import apply
from llmctl.artifacts.delta.find import find
from llmctl.artifacts.delta.make import make
from llmctl.artifacts.delta.make_add import make_add
from llmctl.artifacts.delta.opened import Delta
from llmctl.artifacts.delta.results import Wish
from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import DoesNotFitError
from llmctl.core.progress import SilentProgress
from tests.artifacts.delta.pairs import hashes_of, write
from tests.artifacts.killing import MOMENTS, check_kills, killed_after

SILENT = SilentProgress()


def model(factor: float, rows: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        f"layers.{number}.weight": torch.randn(rows, 16, generator=generator) * factor for number in range(6)
    }


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "base", model(1.0), shards=2), write(tmp_path / "target", model(1.001), shards=3)


def runs(pair: tuple[Path, Path], out: Path) -> dict[str, Callable[[], object]]:
    """The operations, each with small shards, so that there is something to go on with."""
    base, target = pair
    wish = Wish(out=out, max_shard_bytes=1000)
    return {
        "make": lambda: make(Source.open(base), Source.open(target), wish, SILENT),
        "make add": lambda: make_add(Source.open(base), Source.open(target), wish, SILENT),
        "apply": lambda: apply(Source.open(base), Delta.open(base.parent / "d"), ApplyWish(out=out), SILENT),
    }


@pytest.mark.parametrize("name", ["make", "make add", "apply"])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(
    pair: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    base, target = pair
    make(Source.open(base), Source.open(target), Wish(out=tmp_path / "d"), SILENT)
    runs(pair, tmp_path / "whole")[name]()
    wanted = hashes_of(tmp_path / "whole")
    run = runs(pair, tmp_path / "out")[name]
    check_kills(lambda moment: killed_after(moment, run), tmp_path / "out", wanted=wanted, moments=MOMENTS)
    if not (tmp_path / "out").exists():
        run()
    assert hashes_of(tmp_path / "out") == wanted


def test_each_killed_run_keeps_the_shards_that_it_finished(pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = runs(pair, tmp_path / "out")["make add"]
    finished = []
    for _ in range(2):
        killed_after(14, run)
        journal = (tmp_path / ".out.llmctl-part" / "journal.jsonl").read_text().splitlines()
        finished.append(len(journal))
    assert finished == sorted(finished)
    assert finished[-1] > finished[0]


def test_replacing_a_folder_leaves_the_old_one_or_the_new_one(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    base, target = pair
    make(Source.open(base), Source.open(base), Wish(out=tmp_path / "out"), SILENT)
    old = hashes_of(tmp_path / "out")
    wish = Wish(out=tmp_path / "out", overwrite=True)
    make(Source.open(base), Source.open(target), Wish(out=tmp_path / "new"), SILENT)
    new = hashes_of(tmp_path / "new")
    seen = []
    for moment in range(1, 40, 2):
        killed_after(moment, lambda: make(Source.open(base), Source.open(target), wish, SILENT))
        now = hashes_of(tmp_path / "out")
        assert now in (old, new)
        seen.append(now == new)
    assert (seen[0], seen[-1]) == (False, True)


def test_a_limit_on_the_size_of_files_is_one_error(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, target = pair
    made = [hashes_of(base), hashes_of(target)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DoesNotFitError, match="is full"):
            make(Source.open(base), Source.open(target), Wish(out=tmp_path / "d"), SILENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "target"]
    assert [hashes_of(base), hashes_of(target)] == made


def test_a_delta_that_is_found_by_its_path_is_what_it_says(pair: tuple[Path, Path], tmp_path: Path) -> None:
    runs(pair, tmp_path / "out")["make add"]()
    found = find(str(tmp_path / "out"), revision=None, progress=SILENT)
    assert (found.kind, found.is_told) == ("add", True)
