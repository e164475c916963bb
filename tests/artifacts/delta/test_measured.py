"""Memory that deltas of a gigabyte take, each run in a process of its own; `measured` tells the times too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.artifacts.delta.measured import TENSOR_BYTES, write_pair
from tests.artifacts.delta.pairs import hashes_of
from tests.conftest import ROOT

pytestmark = pytest.mark.heavy
GIGABYTES = 1.0
MEMORY_CAP = 3 * TENSOR_BYTES + 400e6


def measured(*args: str) -> dict[str, float]:
    """One run of the script."""
    command = [sys.executable, "-m", "tests.artifacts.delta.measured", *args]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    told: dict[str, float] = json.loads(ended.stdout)
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gigabyte")
    write_pair(made, GIGABYTES)
    return made


def test_deltas_take_little_memory(folder: Path) -> None:
    runs = {name: measured(name, str(folder)) for name in ("make", "apply")}
    assert max(run["peak"] for run in runs.values()) <= MEMORY_CAP, runs
    assert runs["apply"]["bytes"] > 0.9e9
    made, target = hashes_of(folder / "apply"), hashes_of(folder / "target")
    assert made == target


@pytest.mark.parametrize("form", ["make-add", "apply-add"])
def test_add_deltas_take_little_memory(folder: Path, form: str) -> None:
    assert measured(form, str(folder))["peak"] <= MEMORY_CAP
