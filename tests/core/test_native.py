"""C code compiled on the spot: used where there is a compiler, done without where there is none."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.core import native

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="there is no C compiler")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    native.library.cache_clear()
    yield
    native.library.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "twice.c"
    path.write_text("int twice(int number) { return 2 * number; }\n", encoding="utf-8")
    return path


def compiled(environ_cache: Path) -> list[Path]:
    return sorted((environ_cache / "native").glob("*.so"))


def test_a_function_is_compiled_once_and_called(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLMCTL_CACHE_HOME", str(tmp_path / "cache"))
    library = native.library(source)
    assert library is not None
    assert library.twice(21) == 42
    (made,) = compiled(tmp_path / "cache")
    when = made.stat().st_mtime_ns
    native.library.cache_clear()
    assert native.library(source) is not None
    assert [each.stat().st_mtime_ns for each in compiled(tmp_path / "cache")] == [when]
    assert (made.parent.stat().st_mode & 0o077) == 0


def test_other_code_is_another_library(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCTL_CACHE_HOME", str(tmp_path / "cache"))
    assert native.library(source) is not None
    source.write_text("int twice(int number) { return 2 * number + 1; }\n", encoding="utf-8")
    native.library.cache_clear()
    library = native.library(source)
    assert library is not None
    assert library.twice(21) == 43
    assert len(compiled(tmp_path / "cache")) == 2


def test_code_that_does_not_compile_is_told_and_done_without(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source.write_text("int twice(int number) { return }\n", encoding="utf-8")
    with caplog.at_level(logging.INFO, logger="llmctl"):
        assert native.library(source) is None
    assert "twice.c is not compiled, slower code takes its place: " in caplog.text


@pytest.mark.parametrize("word", ["off", "0", "no"])
def test_a_user_may_do_without(source: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, word)
    assert native.compiler() is None
    assert native.library(source) is None


def test_a_damaged_library_is_no_reason_to_stop(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCTL_CACHE_HOME", str(tmp_path / "cache"))
    assert native.library(source) is not None
    (made,) = compiled(tmp_path / "cache")
    monkeypatch.setenv("LLMCTL_CACHE_HOME", str(tmp_path / "other"))
    damaged = tmp_path / "other" / "native" / made.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no library")
    native.library.cache_clear()
    assert native.library(source) is None
