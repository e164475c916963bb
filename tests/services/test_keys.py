"""The API key is found where it should be, and no message shows it."""

import logging
import os
import threading
from pathlib import Path

import pytest

from llmctl.core.errors import BadFileError, LlmctlError, NotFoundError, UsageError
from llmctl.services.keys import find_api_key

SECRET = "sk-secret"


def key_file(folder: Path, text: str, *, mode: int = 0o600) -> str:
    path = folder / "key"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("environ", "want"),
    [
        ({}, None),
        ({"OPENAI_API_KEY": "b"}, "b"),
        ({"LLMCTL_API_KEY": "a", "OPENAI_API_KEY": "b"}, "a"),
        ({"LLMCTL_API_KEY": "", "OPENAI_API_KEY": " b\n"}, "b"),
        ({"LLMCTL_API_KEY": " "}, None),
    ],
)
def test_variables_are_looked_at_in_order(environ: dict[str, str], want: str | None) -> None:
    assert find_api_key(environ, None) == want


@pytest.mark.parametrize("text", [SECRET, f"{SECRET}\n", f"\n  {SECRET} \r\n\n"])
def test_a_file_wins_over_variables(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert find_api_key({"LLMCTL_API_KEY": "other"}, key_file(tmp_path, text)) == SECRET
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "holds nothing"),
        (" \n\n", "holds nothing"),
        (f"{SECRET}\n{SECRET}\n", "holds 2 lines"),
        (f"key = {SECRET}", "characters"),
        (f"{SECRET}\xe9", "characters"),
        (f"{SECRET}\x00", "characters"),
    ],
)
def test_a_file_that_holds_no_key_is_refused_without_showing_it(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(BadFileError, match=what) as caught:
        find_api_key({"LLMCTL_API_KEY": "other"}, key_file(tmp_path, text))
    assert SECRET not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no such key file: .*nowhere"):
        find_api_key({}, str(tmp_path / "nowhere"))


def test_a_folder_is_no_key_file(tmp_path: Path) -> None:
    with pytest.raises(LlmctlError, match="cannot read the key file"):
        find_api_key({}, str(tmp_path))


def test_a_variable_with_more_than_a_key_is_refused_without_showing_it() -> None:
    with pytest.raises(UsageError, match="OPENAI_API_KEY holds characters") as caught:
        find_api_key({"OPENAI_API_KEY": f"Bearer {SECRET}"}, None)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_can_read_is_warned_of(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_api_key({}, key_file(tmp_path, SECRET, mode=mode)) == SECRET
    assert "can be read by other users: chmod 600" in caplog.text
    assert SECRET not in caplog.text


def test_a_key_may_come_through_a_pipe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    writer = threading.Thread(target=pipe.write_text, args=(SECRET,))
    writer.start()
    assert find_api_key({}, str(pipe)) == SECRET
    writer.join()
    assert caplog.records == []
