"""Files are written whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from llmctl.core.errors import LlmctlError, NotFoundError, UsageError
from llmctl.core.files import write_whole


def test_a_file_is_written_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "für\n")
    assert (tmp_path / "a.txt").read_bytes() == "für\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_is_replaced_with_its_mode_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o600)
    write_whole(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    with pytest.raises(UsageError, match=r"a\.txt exists"):
        write_whole(path, "newer", replaces=False)
    assert path.read_text() == "new"


def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_whole(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_half_characters_do_not_spoil_the_rest(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "a\udc80b")
    assert (tmp_path / "a.txt").read_text() == "a?b"


def test_what_is_no_place_for_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        write_whole(tmp_path, "x")
    with pytest.raises(NotFoundError, match="no such folder"):
        write_whole(tmp_path / "nosuch" / "a.txt", "x")


def test_a_device_is_written_to_and_stays() -> None:
    write_whole(Path(os.devnull), "x")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_full_disk_leaves_the_old_file() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("/dev/full is absent")
    with pytest.raises(LlmctlError, match="cannot write /dev/full: No space left on device"):
        write_whole(full, "x")
