"""`lora merge` and `extract` that are killed give the same bytes in the end, and go on with nobody else's."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.artifacts.lora.extract import ExtractRequest, extract
from llmctl.artifacts.lora.merge import MergeRequest, merge
from llmctl.core.progress import SilentProgress
from tests import tiny
from tests.artifacts.delta.pairs import hashes_of
from tests.artifacts.killing import MOMENTS, check_kills, killed_after, killed_at, killed_command
from tests.lora.made import queries, write

SILENT = SilentProgress()
SHARD = 40_000


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "base")


def adapter(place: Path, base: Path, factor: float = 1.0) -> Path:
    tensors = {name: each * factor for name, each in queries().items()}
    return write(place, tensors, base_model_name_or_path=str(base))


def merged(folder: Path, out: Path, **options: Any) -> None:
    merge(MergeRequest(**{"adapter": str(folder), "out": out, "max_shard_bytes": SHARD, **options}), SILENT)


def runs(base: Path, out: Path) -> dict[str, Callable[[], object]]:
    beside = base.parent
    wish = ExtractRequest(base=str(base), target=str(beside / "target"), out=out, rank=2)
    return {"merge": lambda: merged(beside / "adapter", out), "extract": lambda: extract(wish, SILENT)}


@pytest.fixture
def inputs(base: Path) -> Path:
    """What both commands need; the base is returned."""
    adapter(base.parent / "adapter", base)
    tiny.folder(base.parent / "target", seed=2)
    return base


@pytest.mark.parametrize("name", ["merge", "extract"])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(name: str, inputs: Path) -> None:
    out, whole = inputs.parent / "out", inputs.parent / "whole"
    runs(inputs, whole)[name]()
    run, wanted = runs(inputs, out)[name], hashes_of(whole)
    check_kills(lambda moment: killed_after(moment, run), out, wanted=wanted, moments=MOMENTS)
    if not out.exists():
        run()
    assert hashes_of(out) == wanted
    assert not list(inputs.parent.glob(".*"))


@pytest.mark.parametrize("name", ["merge", "extract"])
def test_a_run_that_is_killed_at_random_ends_with_the_same_bytes(name: str, inputs: Path) -> None:
    out, whole = inputs.parent / "out", inputs.parent / "whole"
    runs(inputs, whole)[name]()
    run, chance = runs(inputs, out)[name], random.Random(name)
    delays = [chance.uniform(0, 0.1) for _ in range(10)]
    check_kills(lambda s: killed_at(s, run), out, wanted=hashes_of(whole), moments=delays, least=0)
    if not out.exists():
        run()
    assert hashes_of(out) == hashes_of(whole)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["merge", "extract"])
def test_a_command_that_is_killed_at_random_ends_with_the_same_bytes(name: str, inputs: Path) -> None:
    folders = {each: str(inputs.parent / each) for each in ("base", "adapter", "target")}
    given = {
        "merge": ["--adapter", folders["adapter"], "--max-shard-size", f"{SHARD // 1000}KB"],
        "extract": ["--base", folders["base"], "--target", folders["target"], "--rank", "2"],
    }[name]
    out, whole = inputs.parent / "out", inputs.parent / "whole"
    runs(inputs, whole)[name]()
    arguments = ["lora", name, *given, "--out", str(out)]
    chance = random.Random(name)
    moments = [0.0, *(chance.uniform(0, 0.03) for _ in range(4))]
    check_kills(
        lambda moment: killed_command(arguments, out, moment),
        out,
        wanted=hashes_of(whole),
        moments=moments,
        least=1,
    )
    if not out.exists():
        runs(inputs, out)[name]()
    assert hashes_of(out) == hashes_of(whole)


def num_finished(out: Path) -> int:
    """Files of weights that are whole and noted."""
    journal = out.parent / f".{out.name}.llmctl-part" / "journal.jsonl"
    return len(journal.read_text().splitlines()) - 1 if journal.exists() else 0


def interrupted(run: Callable[[], object], out: Path) -> None:
    """A run that is killed when shards with tensors that the adapter changes are finished."""
    assert any(killed_after(14, run) and num_finished(out) >= 4 for _ in range(9))
    assert not out.exists()


@pytest.mark.parametrize("place", ["adapter", "other"])
def test_a_merge_is_not_gone_on_with_by_another_adapter(place: str, inputs: Path) -> None:
    beside, out = inputs.parent, inputs.parent / "out"
    first = beside / "adapter"
    interrupted(lambda: merged(first, out), out)
    times = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    other = adapter(beside / place, inputs, factor=2.0)
    if place == "other":
        # The files of an archive are often all of one time.
        for path in other.iterdir():
            os.utime(path, ns=(times[path.name], times[path.name]))
    merged(other, out)
    merged(other, beside / "whole")
    assert hashes_of(out) == hashes_of(beside / "whole")


@pytest.mark.parametrize("what", ["config", "base", "shards"])
def test_a_merge_is_not_gone_on_with_by_another_wish(what: str, inputs: Path) -> None:
    beside, out = inputs.parent, inputs.parent / "out"
    folder = beside / "adapter"
    options: dict[str, Any] = {}
    interrupted(lambda: merged(folder, out), out)
    if what == "config":
        tiny.edit_json(folder / "adapter_config.json", lora_alpha=2)
    elif what == "base":
        options = {"base": str(tiny.folder(beside / "base2", seed=5))}
    else:
        options = {"max_shard_bytes": 2 * SHARD}
    merged(folder, out, **options)
    merged(folder, beside / "whole", **options)
    assert hashes_of(out) == hashes_of(beside / "whole")


@pytest.mark.parametrize("what", ["rank", "target", "base"])
def test_an_extraction_is_not_gone_on_with_by_another_wish(what: str, inputs: Path) -> None:
    beside, out = inputs.parent, inputs.parent / "out"
    wish = ExtractRequest(base=str(inputs), target=str(beside / "target"), rank=2, out=out)
    # Killed when its one file is finished, and the folder is not.
    moments = range(34, 60)
    assert any(
        killed_after(moment, lambda: extract(wish, SILENT)) and num_finished(out) for moment in moments
    )
    if what == "rank":
        wish = replace(wish, rank=3)
    else:
        copy = shutil.copytree(inputs if what == "base" else beside / "target", beside / "copy")
        tiny.edit_weights(copy, lambda tensors: tensors["lm_head.weight"].mul_(1.5))
        wish = replace(wish, base=str(copy)) if what == "base" else replace(wish, target=str(copy))
    extract(wish, SILENT)
    extract(replace(wish, out=beside / "whole"), SILENT)
    assert hashes_of(out) == hashes_of(beside / "whole")
