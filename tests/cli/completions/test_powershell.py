"""The PowerShell script, judged without a PowerShell: that it parses, and what stands in its table.

What only running it would show (that its engine offers the right words) has no test.
"""

import re
from collections.abc import Iterator

import pytest
import tree_sitter
import tree_sitter_powershell

from llmctl.cli.completions import powershell
from llmctl.cli.completions.command import script
from llmctl.cli.completions.tree import Command, Flag, Value, command_tree
from tests.cli.completions.conftest import sample_script

LANGUAGE = tree_sitter.Language(tree_sitter_powershell.language())


def parse(text: str) -> tree_sitter.Node:
    return tree_sitter.Parser(LANGUAGE).parse(text.encode()).root_node


def strings(node: tree_sitter.Node) -> Iterator[str]:
    """Every text in single quotes as PowerShell reads it."""
    if node.type == "verbatim_string_characters":
        assert node.text is not None
        yield node.text.decode()[1:-1].replace("''", "'")
    for child in node.children:
        yield from strings(child)


def command(help_text: str) -> Command:
    """A command with one flag, both explained by `help_text`."""
    flag = Flag(names=("-a", "--all"), help=help_text, value=None, is_repeatable=False)
    place = Value(placeholder="MODEL", offers=("@models",))
    return Command(
        path=("llmctl",),
        help=help_text,
        flags=(flag,),
        arguments=(place,),
        is_last_repeatable=False,
        commands=(),
    )


def test_it_parses() -> None:
    assert not parse(script("powershell")).has_error


@pytest.mark.parametrize(
    "broken", [("@{ Names", "@( Names"), ("if ($null -ne $awaited) {", "if {"), ("'@files'", "'@files")]
)
def test_a_script_that_is_broken_would_be_found(broken: tuple[str, str]) -> None:
    text = sample_script("powershell")
    assert broken[0] in text
    assert parse(text.replace(*broken, 1)).has_error


def test_every_command_and_flag_of_llmctl_is_in_it() -> None:
    words = set(strings(parse(script("powershell"))))
    for each in command_tree().walk():
        assert {" ".join(each.path), *each.flag_names} <= words
        assert {below.name for below in each.commands} <= words


def test_every_list_of_offers_is_in_it() -> None:
    words = list(strings(parse(sample_script("powershell"))))
    assert {"@models @folders", "@sessions", "auto cuda cpu", "all changed"} <= set(words)
    text = sample_script("powershell")
    assert "@{ Names = @('-f', '--file'); Offers = '@files'; Help" in text
    assert "@{ Names = @('-p', '--prompt'); Offers = ''; Help" in text
    assert "@{ Names = @('-x', '--raw'); Offers = $null; Help" in text
    assert re.search(r"Arguments = @\('@sessions', '@files'\)\n +IsLastRepeatable = \$true", text)


@pytest.mark.parametrize("text", ["it's", "$(calc) `x", '"q" ; }', "''", "a'; calc #", "@' '@"])
def test_no_help_text_gets_out_of_its_quotes(text: str) -> None:
    root = parse(powershell.script(command(text)))
    assert not root.has_error
    assert text in strings(root)


def test_it_is_plain_ascii_whatever_the_help_says() -> None:
    text = powershell.script(command("the user’s ‘own’ “ü”"))
    assert text.isascii()
    assert "the user's 'own' \"?\"" in strings(parse(text))
