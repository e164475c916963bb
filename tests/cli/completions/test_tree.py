"""The command line as data: what is read out of Typer's parameters."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.cli.commands import COMMANDS, Entry
from llmctl.cli.completions.tree import Command, Flag, Value, _first_sentence, command_tree, fill
from tests.cli.completions.sample import ENTRIES


def find(*path: str) -> Command:
    return next(command for command in command_tree(ENTRIES).walk() if command.path == ("llmctl", *path))


def flag(name: str, *path: str) -> Flag:
    return next(flag for flag in find(*path).flags if name in flag.names)


def test_it_holds_every_command_of_llmctl() -> None:
    def paths(entries: dict[str, Entry], above: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = [above]
        for name, entry in entries.items():
            found += paths(entry.commands or {}, (*above, name))
        return found

    assert [command.path for command in command_tree().walk()] == paths(COMMANDS, ("llmctl",))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--prompt", Value(placeholder="TEXT", offers=())),
        ("-p", Value(placeholder="TEXT", offers=())),
        ("--file", Value(placeholder="FILE", offers=("@files",))),
        ("--device", Value(placeholder="auto|cuda|cpu", offers=("auto", "cuda", "cpu"))),
        ("--length", Value(placeholder="auto|N", offers=("auto",))),
        ("--kind", Value(placeholder="big|small", offers=("big", "small"))),
        ("--draft", Value(placeholder="MODEL", offers=("@models", "@folders"))),
        ("--session", Value(placeholder="SESSION", offers=("@sessions",))),
        ("--into", Value(placeholder="FOLDER", offers=("@folders",))),
        ("--raw", None),
        ("--no-plain", None),
        ("--verbose", None),
        ("--help", None),
    ],
)
def test_the_metavar_says_what_a_flag_takes(name: str, value: Value | None) -> None:
    assert flag(name, "chat").value == value


def test_a_flag_has_all_its_spellings_and_a_short_explanation() -> None:
    assert flag("-p", "chat") == Flag(
        names=("-p", "--prompt"),
        help="Answer this",
        value=Value(placeholder="TEXT", offers=()),
        is_repeatable=False,
    )
    assert flag("-f", "chat").is_repeatable
    assert flag("-v", "chat").is_repeatable
    assert flag("--plain", "chat").names == ("--plain", "--no-plain")


def test_hidden_flags_are_left_out() -> None:
    assert "--secret" not in find("chat").flag_names


def test_groups_know_their_commands_and_take_the_common_flags() -> None:
    group = find("settings")
    assert [below.name for below in group.commands] == ["show", "deep"]
    assert {"-v", "--color", "-h"} <= set(group.flag_names)
    assert "--version" in find().flag_names
    assert "--version" not in group.flag_names


def test_arguments_are_read_in_order() -> None:
    copy = find("settings", "deep", "copy")
    assert [argument.offers for argument in copy.arguments] == [("@sessions",), ("@files",)]
    assert copy.is_last_repeatable
    assert not find("settings", "show").is_last_repeatable


@pytest.mark.parametrize("name", ["two words", "a;b", "$x", "x'y", "ü", ""])
def test_a_name_that_would_need_quotes_is_refused(name: str) -> None:
    with pytest.raises(AssertionError):
        command_tree({name: ENTRIES["chart"]})


def test_a_table_without_a_place_in_the_template_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        fill("bash", {"NOWHERE": ""})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Answer this. Then go.", "Answer this"),
        ("Is it?  Yes.", "Is it?"),
        ("Text before\n    the prompt; - is stdin.", "Text before the prompt; - is stdin"),
        ("As in 0.5 or v1.2", "As in 0.5 or v1.2"),
        ("", ""),
    ],
)
def test_only_the_first_sentence_is_shown(text: str, sentence: str) -> None:
    assert _first_sentence(text) == sentence


@given(st.text(alphabet=string.ascii_letters + ".!? \n\t", max_size=60))
def test_an_explanation_is_one_line(text: str) -> None:
    assert "\n" not in _first_sentence(text)
