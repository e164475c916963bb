"""`compress` and `convert` without room, rights or a whole source: one clear line, and nothing lost."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmctl.artifacts.compress.request import CompressRequest
from llmctl.artifacts.compress.run import compress
from llmctl.artifacts.convert import ConvertRequest, convert
from llmctl.core.errors import BadFileError, DoesNotFitError, LlmctlError
from llmctl.core.progress import SilentProgress
from tests import tiny
from tests.artifacts.delta.pairs import hashes_of

SILENT = SilentProgress()
SHARD = 20_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "model")


def runs(model: Path, out: Path) -> dict[str, Callable[[], object]]:
    """The operations, each with small shards, so that there is something to go on with."""

    def compressed(method: str) -> Callable[[], object]:
        request = CompressRequest(
            model=str(model), target=out, method=method, evaluates=False, max_shard_bytes=SHARD
        )
        return lambda: compress(request, SILENT)

    request = ConvertRequest(model=str(model), target=out, dtype="bfloat16", max_shard_bytes=SHARD)
    return {
        "convert": lambda: convert(request, SILENT),
        **{method: compressed(method) for method in ("int8", "int4", "fp8", "nf4")},
    }


NAMES = ("convert", "int8", "int4", "fp8", "nf4")


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_one_line_and_loses_nothing(name: str, model: Path, tmp_path: Path) -> None:
    before, limit = hashes_of(model), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SHARD // 4, limit[1]))
    try:
        with pytest.raises(DoesNotFitError) as caught:
            runs(model, tmp_path / "out")[name]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "\n" not in caught.value.message
    assert not (tmp_path / "out").exists()
    assert hashes_of(model) == before
    runs(model, tmp_path / "out")[name]()
    assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_cut_short_is_named(name: str, model: Path, tmp_path: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BadFileError, match=r"model\.safetensors"):
        runs(model, tmp_path / "out")[name]()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nobody may write into /proc, not even root")
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_may_not_be_written_to_is_named(name: str, model: Path) -> None:
    with pytest.raises(LlmctlError, match="/proc"):
        runs(model, Path("/proc/out"))[name]()
