"""The lists of names for the shells: nothing gets in that a shell could take for more than a name."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core import name_list
from llmctl.core.name_list import read_names, write_names


def test_names_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "models.txt"
    write_names(path, ["b/c", "a b", "qwen:0.6b", "größe"])
    assert path.read_bytes() == "b/c\na b\nqwen:0.6b\ngröße\n".encode()
    assert read_names(path) == ["b/c", "a b", "qwen:0.6b", "größe"]


@pytest.mark.parametrize(
    "name", ["", "-rf", "--help", "a\nb", "a\rb", "\x1b[31mred", "\x00", "a\x85b", "\u2028", "\udcff"]
)
def test_what_is_not_one_plain_line_is_left_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / "models.txt"
    write_names(path, [name, "good"])
    assert path.read_text() == "good\n"


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=8), max_size=5))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("list") / "models.txt"
    write_names(path, names)
    found = read_names(path)
    assert [name for name in names if name in found] == found
    assert all(name.isprintable() and not name.startswith("-") for name in found)
    assert [name for name in names if name.isalnum()] == [name for name in found if name.isalnum()]


def test_a_file_that_need_not_change_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "models.txt"
    write_names(path, ["a"])
    before = path.stat()
    write_names(path, ["a"])
    assert path.stat() == before
    write_names(path, ["b"])
    assert path.stat().st_ino != before.st_ino


def test_a_reader_never_sees_half_a_list(tmp_path: Path) -> None:
    path = tmp_path / "models.txt"
    write_names(path, ["a"])
    with path.open() as old:
        write_names(path, ["b", "c"])
        assert old.read() == "a\n"
    assert [file.name for file in tmp_path.iterdir()] == ["models.txt"]


def test_a_folder_that_cannot_be_written_is_told_at_debug_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.DEBUG, logger=name_list.__name__):
        write_names(tmp_path / "file" / "models.txt", ["a"])
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "models.txt" in record.getMessage()


def test_a_folder_in_the_place_of_the_file_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "models.txt").mkdir()
    write_names(tmp_path / "models.txt", ["a"])
    assert read_names(tmp_path / "models.txt") == []


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"\x00\n", b"-x\n\n", b""])
def test_a_damaged_file_is_read_as_far_as_it_goes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "models.txt"
    path.write_bytes(content + b"good\n")
    assert read_names(path)[-1:] == ["good"]
    assert all(name.isprintable() for name in read_names(path))


def test_a_missing_file_holds_no_names(tmp_path: Path) -> None:
    assert read_names(tmp_path / "models.txt") == []
