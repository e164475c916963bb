"""Shared by the tests of downloads."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from llmctl.core.errors import LlmctlError
from llmctl.loading.hub.download import download

ID = "owner/tiny"
WEIGHTS = "model.safetensors"
NUM_BYTES = 200_000
_SHA256_DIGITS = 64


class Recorder:
    """A `Progress` that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.num_bytes = 0

    def stage(self, name: str, *, total_bytes: int | None = None) -> None:
        self.stages.append((name, total_bytes))

    def advance(self, num_bytes: int) -> None:
        assert num_bytes > 0
        self.num_bytes += num_bytes


def get(repo_id: str = ID, revision: str | None = None) -> Path:
    return download(repo_id, revision=revision, progress=Recorder())


def fails(
    kind: type[LlmctlError], *words: str, repo_id: str = ID, revision: str | None = None
) -> LlmctlError:
    """The download ends in exactly this kind of error, told in one line with these words."""
    with pytest.raises(LlmctlError) as caught:
        get(repo_id, revision)
    error = caught.value
    told = f"{error.message} ({error.hint})"
    assert type(error) is kind, told
    assert "\n" not in told
    for word in words:
        assert word in told, told
    return error


def assert_same(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    wanted = {name: body for name, body in files.items() if name != "README.md"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == wanted
    assert not list(folder.parents[1].glob("blobs/*.incomplete"))


def unfinished_weights(home: Path) -> Path:
    (path,) = (
        path for path in home.glob("hub/models--*/blobs/*.incomplete") if len(path.stem) == _SHA256_DIGITS
    )
    return path
