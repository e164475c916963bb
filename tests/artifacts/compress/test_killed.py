"""`compress` and `convert` that are killed at any moment end with the same bytes; nothing half done shows."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from llmctl.artifacts.compress.request import CompressRequest
from llmctl.artifacts.compress.run import compress
from llmctl.artifacts.convert import ConvertRequest, convert
from llmctl.core.progress import SilentProgress
from llmctl.loading.checkpoint import open_folder
from tests import tiny
from tests.artifacts.delta.pairs import hashes_of
from tests.artifacts.killing import MOMENTS, check_kills, killed_after, killed_at, killed_command

SILENT = SilentProgress()
SHARD = 30_000
NAMES = ["convert", "pickles", "compress", "compress calibrated", "compress judged"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Rows of 64 numbers; beside it the same as a pickle file, and a text."""
    folder = tiny.folder(tmp_path / "source", hidden_size=64, dtype=torch.bfloat16)
    (tmp_path / "text.txt").write_text("some words of several kinds, " * 20)
    tiny.tokenizer().save_pretrained(tmp_path / "pickles")
    (tmp_path / "pickles" / "config.json").write_text((folder / "config.json").read_text())
    weights: dict[str, torch.Tensor] = {}
    tiny.edit_weights(folder, weights.update)
    torch.save(weights, tmp_path / "pickles" / "pytorch_model.bin")
    return folder


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card tells how long it took, which is never the same."""
    monkeypatch.setattr("llmctl.artifacts.compress.run.time.monotonic", lambda: 0.0)


def runs(name: str, source: Path, out: Path) -> Callable[[], object]:
    """One of `NAMES`, with small shards, so that there is something to go on with."""
    text = source.parent / "text.txt"
    from_pickles = ConvertRequest(model=str(source.parent / "pickles"), target=out, max_shard_bytes=SHARD)
    other = ConvertRequest(model=str(source), target=out, dtype="float32", max_shard_bytes=2 * SHARD)

    def run() -> object:
        # A forked process lacks the threads that torch believes in.
        torch.set_num_threads(1)
        if name in ("convert", "pickles"):
            return convert(from_pickles if name == "pickles" else other, SILENT)
        request = CompressRequest(
            model=str(source),
            target=out,
            method="int4",
            calibration=text if "calibrated" in name else None,
            evaluates="judged" in name,
            evaluation=text if "judged" in name else None,
            max_shard_bytes=SHARD,
        )
        return compress(request, SILENT)

    return run


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(name: str, source: Path) -> None:
    out, whole = source.parent / "out", source.parent / "whole"
    runs(name, source, whole)()
    run, wanted, before = runs(name, source, out), hashes_of(whole), hashes_of(source)
    check_kills(lambda moment: killed_after(moment, run), out, wanted=wanted, moments=MOMENTS)
    if not out.exists():
        run()
        assert not list(source.parent.glob(".*"))
    assert hashes_of(out) == wanted
    assert len(open_folder(out).weight_files) > 1
    assert hashes_of(source) == before


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_run_that_is_killed_at_random_ends_with_the_same_bytes(name: str, source: Path) -> None:
    out, whole = source.parent / "out", source.parent / "whole"
    runs(name, source, whole)()
    run, chance = runs(name, source, out), random.Random(name)
    delays = [chance.uniform(0, 0.15) for _ in range(10)]
    check_kills(lambda s: killed_at(s, run), out, wanted=hashes_of(whole), moments=delays, least=0)
    if not out.exists():
        run()
    assert hashes_of(out) == hashes_of(whole)


def test_a_shard_of_another_method_or_text_is_not_gone_on_with(source: Path) -> None:
    out, whole = source.parent / "out", source.parent / "whole"
    plain, learned = (runs(name, source, out) for name in ("compress", "compress calibrated"))
    assert any(killed_after(14, plain) and num_finished(out) >= 2 for _ in range(9))
    learned()
    runs("compress calibrated", source, whole)()
    assert hashes_of(out) == hashes_of(whole)


def num_finished(out: Path) -> int:
    """Files of weights that are whole and noted."""
    journal = out.parent / f".{out.name}.llmctl-part" / "journal.jsonl"
    return len(journal.read_text().splitlines()) - 1 if journal.exists() else 0


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["convert", "compress", "compress judged"])
def test_a_command_that_is_killed_at_random_ends_with_the_same_bytes(name: str, source: Path) -> None:
    command = ["models", "convert"] if name == "convert" else ["compress", "--method", "int4"]
    flags = {"convert": ["--dtype", "float32"], "compress": ["--no-eval"], "compress judged": []}[name]
    out, whole = source.parent / "out", source.parent / "whole"
    arguments = [*command, str(source), *flags, "--max-shard-size", f"{SHARD // 1000}KB", "--out"]
    command_of = [sys.executable, "-m", "llmctl", *arguments]
    subprocess.run([*command_of, str(whole)], check=True, capture_output=True)
    chance, num_killed = random.Random(name), 0
    for delay in (0.0, *(chance.uniform(0, 0.1) for _ in range(9))):
        num_killed += killed_command([*arguments, str(out)], out, delay)
        if out.exists():
            break
    assert num_killed
    if not out.exists():
        subprocess.run([*command_of, str(out)], check=True, capture_output=True)
        assert not list(source.parent.glob(".*"))
    assert untimed(out) == untimed(whole)


def untimed(folder: Path) -> dict[str, str]:
    """Hashes of all files, but of the card, and what the provenance tells without the time."""
    told = json.loads(path.read_text()) if (path := folder / "llmctl_compress.json").exists() else {}
    told.get("result", {}).pop("seconds", None)
    without = ("README.md", "llmctl_compress.json")
    return {"told": str(told)} | {k: v for k, v in hashes_of(folder).items() if k not in without}
