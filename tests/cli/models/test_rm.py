"""`llmctl models rm`: asks, removes, tells, and refuses what is no download."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Ended, Llmctl
from tests.loading.test_removal import A, B, cached, names
from tests.terminal import CTRL_D, ENTER, terminal

NAME = "owner/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def repository(hub: Path) -> Path:
    return cached(hub, {A: {"config.json": "x" * 8}, B: {"config.json": "y"}}, {"main": A, "dev": B})


def fails(ended: Ended, code: int, *words: str) -> None:
    assert (ended.code, ended.out) == (code, "")
    assert len(ended.err.splitlines()) == 1
    assert [word for word in words if word not in ended.err] == []


def test_a_model_is_removed_and_the_freed_bytes_told(llmctl: Llmctl, hub: Path, repository: Path) -> None:
    ended = llmctl("models", "rm", NAME, "--yes")
    assert (ended.code, ended.out, ended.err) == (0, f"removed {NAME}: 170 B freed\n", "")
    assert names(hub) == []
    fails(llmctl("models", "rm", NAME, "--yes"), 3, NAME, str(hub), "models list --local")


def test_json_tells_what_went(llmctl: Llmctl, repository: Path) -> None:
    ended = llmctl("models", "rm", NAME, "--revision", "dev", "-y", "--json")
    told = json.loads(ended.out)
    assert told == {"name": NAME, "removed": True, "commits": [B], "freed_bytes": 50}
    assert names(repository / "snapshots") == [A]


def test_without_a_terminal_nobody_can_be_asked(llmctl: Llmctl, repository: Path) -> None:
    fails(llmctl("models", "rm", NAME, stdin=b"y\n"), 2, "add --yes")
    assert repository.exists()


@pytest.mark.parametrize(("answer", "is_gone"), [(f"y{ENTER}", True), (ENTER, False), (CTRL_D, False)])
def test_at_a_terminal_it_asks(repository: Path, answer: str, is_gone: bool) -> None:
    with terminal("models", "rm", NAME, columns=400) as opened:
        opened.wait_for(r"\[y/N\]")
        assert f"Remove {NAME} (170 B) from {repository}? [y/N]" in opened.text()
        opened.send(answer)
        assert opened.ended() == 0
        assert ("removed nothing" in opened.text()) is not is_gone
    assert repository.exists() is not is_gone


def test_what_is_no_download_is_refused(
    llmctl: Llmctl, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(llmctl("models", "rm", "demo", "--yes"), 2, "demo is a part of llmctl")
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    for model in (str(mine), str(tmp_path / "m.gguf"), f"{tmp_path}:m.gguf", str(repository)):
        fails(llmctl("models", "rm", model, "--yes"), 2, f"{model} is yours")
    monkeypatch.chdir(tmp_path)
    fails(llmctl("models", "rm", "mine", "--yes"), 2, "mine is yours")
    assert names(tmp_path) == ["hub", "m.gguf", "mine", "stdin"]


@pytest.mark.parametrize(
    "model",
    [
        *("../hub", "a/../..", "", "a/b/c", "models--owner--tiny", "owner", "./x", "owner/tiny/x", "a:b"),
        "/dev/zero",
    ],
)
def test_names_that_are_no_download_s_reach_nothing(llmctl: Llmctl, repository: Path, model: str) -> None:
    fails(llmctl("models", "rm", "--yes", "--", model), 3)
    assert repository.exists()


def test_a_model_of_modelscope_is_removed_from_its_cache(llmctl: Llmctl, hub: Path) -> None:
    other = cached(
        Path(os.environ["LLMCTL_CACHE_HOME"]) / "modelscope", {A: {"config.json": "x"}}, {"master": A}
    )
    assert llmctl("models", "rm", NAME, "-y").out == f"removed {NAME}: 50 B freed\n"
    assert not other.exists()


def test_the_shell_s_list_of_models_follows(llmctl: Llmctl, repository: Path) -> None:
    names_file = Path(os.environ["LLMCTL_CACHE_HOME"]) / "models.txt"
    names_file.parent.mkdir(parents=True, exist_ok=True)
    names_file.write_text(f"{NAME}\n")
    llmctl("models", "rm", NAME, "-y")
    assert names_file.read_text() == "demo\ndemo-base\n"
