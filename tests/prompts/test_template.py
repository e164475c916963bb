"""The choice of a chat template, and reading one from a file."""

from pathlib import Path

import pytest

from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.prompts.template import choose, read


def test_the_users_file_wins_over_the_tokenizers_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("mine 日本", encoding="utf-8")
    chosen = choose(read(str(file)), "the tokenizer's", model="m")
    assert (chosen.text, chosen.source) == ("mine 日本", str(file))


def test_without_a_file_the_tokenizers_own_is_taken() -> None:
    chosen = choose(None, "own", model="m")
    assert (chosen.text, chosen.source) == ("own", "tokenizer")


def test_of_several_templates_the_one_called_default_is_taken() -> None:
    assert choose(None, {"tool_use": "tools", "default": "chat"}, model="m").text == "chat"


@pytest.mark.parametrize("of_tokenizer", [None, {}, {"tool_use": "tools"}])
def test_without_any_template_the_error_says_how_to_go_on(of_tokenizer: dict[str, str] | None) -> None:
    with pytest.raises(UsageError, match="of some/model has no chat template") as caught:
        choose(None, of_tokenizer, model="some/model")
    assert "--template FILE.jinja" in str(caught.value.hint)
    assert "--raw" in str(caught.value.hint)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.jinja"):
        read(str(tmp_path / "none.jinja"))


def test_a_folder_or_a_binary_file_is_a_bad_file(tmp_path: Path) -> None:
    binary = tmp_path / "binary.jinja"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, binary):
        with pytest.raises(BadFileError, match="cannot read the template"):
            read(str(path))


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.jinja").write_text("at home", encoding="utf-8")
    assert read("~/x.jinja").text == "at home"
