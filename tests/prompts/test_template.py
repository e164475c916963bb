"""The choice of a chat template, and reading one from a file."""

from pathlib import Path

import pytest

from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.prompts.library import find
from llmctl.prompts.template import ChatTemplate, RowTemplate, by_name, choose, read

ROW = RowTemplate(name="zephyr", family="zephyr")
WINS = RowTemplate(name="zephyr", wins=True, family="zephyr")
IN_TOKENIZER = RowTemplate(name="tokenizer", family="llama-3")
NO_CHAT = RowTemplate(name="none", family="gpt2")
MINE = ChatTemplate("mine", "mine.jinja")


@pytest.mark.parametrize(
    ("explicit", "row", "of_tokenizer", "text", "source", "reason"),
    [
        (MINE, WINS, "own", "mine", "flag", "mine.jinja (--template)"),
        (MINE, None, None, "mine", "flag", "mine.jinja (--template)"),
        (None, WINS, "own", None, "row", "family zephyr: zephyr (goes before the tokenizer's own)"),
        (None, ROW, "own", "own", "tokenizer", "the tokenizer's own chat template"),
        (None, None, "own", "own", "tokenizer", "the tokenizer's own chat template"),
        (None, IN_TOKENIZER, "own", "own", "tokenizer", "the tokenizer's own chat template"),
        (None, NO_CHAT, "own", "own", "tokenizer", "the tokenizer's own chat template"),
        (None, ROW, None, None, "row", "family zephyr: zephyr (the tokenizer has none)"),
        (None, ROW, {"tool_use": "x"}, None, "row", "family zephyr: zephyr (the tokenizer has none)"),
    ],
)
def test_the_flag_goes_before_a_row_that_wins_and_this_before_tokenizer_and_row(
    explicit: ChatTemplate | None,
    row: RowTemplate | None,
    of_tokenizer: str | dict[str, str] | None,
    text: str | None,
    source: str,
    reason: str,
) -> None:
    chosen = choose(explicit, row, of_tokenizer, model="m")
    assert chosen.template.text == (find("zephyr").text if text is None else text)
    assert (chosen.source, chosen.reason) == (source, reason)


def test_the_users_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("mine 日本", encoding="utf-8")
    assert read(str(file)) == ChatTemplate("mine 日本", str(file))


def test_a_template_is_read_by_its_name_where_no_file_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read("zephyr") == by_name("zephyr")
    assert read("zephyr").stop == ("</s>",)
    (tmp_path / "zephyr").write_text("a file", encoding="utf-8")
    assert read("zephyr").text == "a file"


def test_of_several_templates_the_one_called_default_is_taken() -> None:
    own = {"tool_use": "tools", "default": "chat"}
    assert choose(None, None, own, model="m").template.text == "chat"


@pytest.mark.parametrize("row", [None, IN_TOKENIZER])
@pytest.mark.parametrize("of_tokenizer", [None, {}, {"tool_use": "tools"}])
def test_without_any_template_the_error_says_how_to_go_on(
    of_tokenizer: dict[str, str] | None, row: RowTemplate | None
) -> None:
    with pytest.raises(UsageError, match="of some/model has no chat template") as caught:
        choose(None, row, of_tokenizer, model="some/model")
    assert "--template FILE.jinja" in str(caught.value.hint)
    assert "--raw" in str(caught.value.hint)


def test_a_family_that_does_not_chat_says_so() -> None:
    with pytest.raises(UsageError, match=r"openai/gpt2 is no chat model \(family gpt2\)") as caught:
        choose(None, NO_CHAT, None, model="openai/gpt2")
    assert "--raw" in str(caught.value.hint)


def test_a_row_with_an_unknown_template_is_told() -> None:
    with pytest.raises(NotFoundError, match="no template is called 'zephir'"):
        choose(None, RowTemplate(name="zephir"), None, model="m")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.jinja"):
        read(str(tmp_path / "none.jinja"))
    with pytest.raises(
        NotFoundError, match="no template file 'zephir' and no template of that name"
    ) as caught:
        read("zephir")
    assert "did you mean zephyr" in str(caught.value.hint)


def test_a_folder_a_binary_file_or_one_without_end_is_a_bad_file(tmp_path: Path) -> None:
    binary = tmp_path / "binary.jinja"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, what in ((tmp_path, "a folder"), (binary, "not UTF-8 text"), (Path("/dev/zero"), "more than")):
        with pytest.raises(BadFileError, match=f"the template '{path}' .*{what}"):
            read(str(path))


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.jinja").write_text("at home", encoding="utf-8")
    assert read("~/x.jinja").text == "at home"
