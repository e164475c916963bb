"""Where llmctl's files are: the XDG rules, our own variables before them, and who may read what."""

import stat
from pathlib import Path

import pytest

from llmctl.core.places import Places, private_folder

HOME = Path("/home/alpaca")


def test_the_defaults_are_those_of_xdg() -> None:
    assert Places.from_environ({"HOME": str(HOME)}) == Places(
        config=HOME / ".config/llmctl", data=HOME / ".local/share/llmctl", cache=HOME / ".cache/llmctl"
    )


@pytest.mark.parametrize("kind", ["config", "data", "cache"])
def test_an_xdg_variable_moves_one_folder(kind: str, tmp_path: Path) -> None:
    places = Places.from_environ({"HOME": str(HOME), f"XDG_{kind.upper()}_HOME": str(tmp_path)})
    moved = {name for name in ("config", "data", "cache") if getattr(places, name) == tmp_path / "llmctl"}
    assert moved == {kind}


@pytest.mark.parametrize("text", ["", "relative/path", "./x", "~/x"])
def test_an_xdg_variable_that_is_not_absolute_is_ignored(text: str) -> None:
    assert (
        Places.from_environ({"HOME": str(HOME), "XDG_DATA_HOME": text}).data == HOME / ".local/share/llmctl"
    )


@pytest.mark.parametrize("kind", ["config", "data", "cache"])
def test_our_own_variable_wins_and_is_taken_as_it_is(kind: str, tmp_path: Path) -> None:
    environ = {
        "HOME": str(HOME),
        f"XDG_{kind.upper()}_HOME": "/elsewhere",
        f"LLMCTL_{kind.upper()}_HOME": str(tmp_path),
    }
    assert getattr(Places.from_environ(environ), kind) == tmp_path


def test_our_own_variable_understands_the_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(HOME))
    assert Places.from_environ({"LLMCTL_DATA_HOME": "~/mine"}).data == HOME / "mine"


def test_an_empty_variable_counts_as_not_set() -> None:
    environ = {"HOME": str(HOME), "XDG_CACHE_HOME": "", "LLMCTL_CACHE_HOME": ""}
    assert Places.from_environ(environ).cache == HOME / ".cache/llmctl"


def test_without_home_the_system_is_asked() -> None:
    assert Places.from_environ({}).cache == Path.home() / ".cache/llmctl"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = private_folder(tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b"
    assert mode_of(path) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o750, 0o701, 0o704])
def test_a_private_folder_that_others_can_enter_is_mended(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)
    (tmp_path / "kept").touch()
    private_folder(tmp_path)
    assert mode_of(tmp_path) == 0o700
    assert (tmp_path / "kept").exists()


def test_a_private_folder_that_its_owner_locked_stays_locked(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    private_folder(tmp_path)
    assert mode_of(tmp_path) == 0o500
    tmp_path.chmod(0o700)
