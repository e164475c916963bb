"""The fish script in a real fish: what it offers, and the line that comes of TAB at a terminal."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.cli.completions.command import script
from llmctl.cli.completions.tree import command_tree
from tests.cli.completions import cases
from tests.cli.completions.conftest import (
    CACHE_VARIABLES,
    Place,
    arguments,
    check_cache_folders,
    find_shell,
    make_place,
    sample_script,
    typed_flag,
)
from tests.cli.completions.terminal import LEFT, TAB, Terminal

RC = r"""
function fish_greeting
end
function report
    set -l line (commandline)
    set -l left (math (commandline -C) + 1)
    printf '\001%s\002%s\002\003' (string sub -e (commandline -C) -- "$line") (string sub -s $left -- "$line")
end
bind \cxd report
"""


def install(place: Place, text: str) -> None:
    """Put the script `text` where fish looks for it."""
    folder = place.root / "home" / ".config" / "fish" / "completions"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "llmctl.fish").write_text(text, encoding="utf-8")
    # Without this folder fish starts Python to fill it.
    (place.root / "home/.local/share/fish/generated_completions").mkdir(parents=True, exist_ok=True)
    (folder.parent / "config.fish").write_text(RC, encoding="utf-8")


@pytest.fixture(scope="module")
def installed(place: Place) -> Place:
    install(place, sample_script("fish"))
    return place


@pytest.fixture(scope="module")
def fish(installed: Place) -> Iterator[Terminal]:
    with Terminal([find_shell("fish"), "-i"], cwd=installed.cwd, env=installed.env) as terminal:
        yield terminal


def completions(place: Place, lines: list[str], env: dict[str, str] | None = None) -> list[str]:
    """What `complete -C` prints for each of `lines`: a word, and after a tab what it does."""
    program = "for line in $argv; complete -C $line; printf '\\0'; end"
    command = [find_shell("fish"), "-c", program, "--", *lines]
    ended = subprocess.run(command, cwd=place.cwd, env=env or place.env, capture_output=True, check=True)
    assert ended.stderr == b""
    return ended.stdout.decode().split("\0")[:-1]


def offers(place: Place, line: str, env: dict[str, str] | None = None) -> set[str]:
    """The words that go on from what is typed; when there are none fish offers similar ones as well."""
    words = [offer.partition("\t")[0] for offer in completions(place, [line], env)[0].splitlines()]
    typed = shlex.split(f"{line}x")[-1][:-1]
    return {word.removeprefix(typed_flag(line)).rstrip("/") for word in words if word.startswith(typed)}


@pytest.mark.parametrize("line", cases.OFFERS)
def test_it_offers_what_can_follow(installed: Place, line: str) -> None:
    assert offers(installed, line) == cases.OFFERS[line]
    assert installed.traces() == []


@pytest.mark.parametrize("line", cases.COMPLETED)
def test_tab_completes_the_line(fish: Terminal, place: Place, line: str) -> None:
    assert fish.press(line + TAB) == (cases.COMPLETED[line], "")
    assert place.traces() == []


def test_a_colon_is_part_of_a_name(installed: Place) -> None:
    assert offers(installed, "llmctl chat qwen:") == {"qwen:0.6b", "qwen:8b"}


def test_it_completes_in_the_middle_of_a_line(fish: Terminal) -> None:
    left, right = fish.press("llmctl se show --na" + LEFT * len(" show --na") + TAB)
    assert (left.rstrip(), right.lstrip()) == ("llmctl settings", "show --na")


@pytest.mark.parametrize("name", sorted(cases.HOSTILE))
def test_a_completed_name_reaches_the_command_as_it_is(fish: Terminal, place: Place, name: str) -> None:
    typed = "".join(char if char.isalnum() else f"\\{char}" for char in cases.unique_prefix(name))
    left, _ = fish.press(f"llmctl chat {typed}{TAB}")
    assert arguments("fish", left, place) == ["chat", name]


def test_commands_and_flags_are_listed_with_what_they_do(installed: Place) -> None:
    commands, flags = completions(installed, ["llmctl ", "llmctl chat --"])
    assert "chart\tDraw: a chart" in commands.splitlines()
    assert "--file\tText: it's [1] \\ 'x' $(id)" in flags.splitlines()


@pytest.mark.parametrize("variable", CACHE_VARIABLES)
def test_the_lists_lie_where_llmctl_keeps_its_cache(tmp_path: Path, variable: str) -> None:
    check_cache_folders(tmp_path, variable, sessions)


def sessions(place: Place, env: dict[str, str]) -> set[str]:
    install(place, sample_script("fish"))
    return offers(place, "llmctl chat --session ", env)


def test_without_a_list_nothing_is_offered(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    (place.root / "cache" / "sessions.txt").unlink()
    assert sessions(place, place.env) == set()


def test_every_command_of_llmctl_is_completed(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    install(place, script("fish"))
    for command in command_tree().walk():
        path = " ".join(command.path)
        assert offers(place, f"{path} -") == set(command.flag_names)
        if command.commands:
            assert offers(place, f"{path} ") == {below.name for below in command.commands}
