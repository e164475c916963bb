"""The zsh script in a real zsh: TAB pressed at a terminal, what it offers and the line that comes of it."""

import re
import shlex
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
)
from tests.cli.completions.terminal import LEFT, TAB, Terminal

# Offers pass through compadd, which is the only way to learn of all of them, ambiguous ones too.
RC = r"""
PS1='$ '
LISTMAX=10000
autoload -Uz compinit
compinit -u -D
typeset -ga offered=()
compadd() {
    local -a hits
    if [[ ${@[1,(i)(-|--)]} != *-[OAD]* ]]; then
        builtin compadd -A hits "$@"
        offered+=($hits)
    fi
    builtin compadd "$@"
}
report() {
    emulate -L zsh
    print -rn -- $'\1'$LBUFFER$'\2'$RBUFFER$'\2'
    if (( $#offered )); then print -rn -- ${(j::)${offered/%/$'\4'}}; fi
    print -n $'\3'
    offered=()
}
zle -N report
bindkey -e '^Xd' report
"""
# How a user may have set up the shell.
SETTINGS = {
    "usual": "",
    "like other shells": "setopt sh_word_split ksh_arrays glob_subst no_unset null_glob extended_glob",
    "menu": "setopt menu_complete glob_complete; zstyle ':completion:*' menu select",
}


def start(place: Place, text: str, settings: str = "", env: dict[str, str] | None = None) -> Terminal:
    """A zsh that finds the script `text` as compinit does."""
    (place.root / "zsh" / "functions").mkdir(exist_ok=True)
    (place.root / "zsh" / "functions" / "_llmctl").write_text(text, encoding="utf-8")
    rc = f"fpath=($ZDOTDIR/functions $fpath)\n{RC}\n{settings}\n"
    (place.root / "zsh" / ".zshrc").write_text(rc, encoding="utf-8")
    return Terminal([find_shell("zsh"), "-d", "-i"], cwd=place.cwd, env=env or place.env)


@pytest.fixture(scope="module")
def zsh(place: Place) -> Iterator[Terminal]:
    with start(place, sample_script("zsh")) as terminal:
        yield terminal


def offers(zsh: Terminal, line: str) -> set[str]:
    """What zsh offers, without its quotes."""
    return {"".join(shlex.split(offer)).rstrip("/") for offer in zsh.offers(line + TAB)}


@pytest.mark.parametrize("line", cases.OFFERS)
def test_it_offers_what_can_follow(zsh: Terminal, place: Place, line: str) -> None:
    assert offers(zsh, line) == cases.OFFERS[line]
    assert place.traces() == []


@pytest.mark.parametrize("line", cases.COMPLETED)
def test_tab_completes_the_line(zsh: Terminal, place: Place, line: str) -> None:
    assert zsh.press(line + TAB) == (cases.COMPLETED[line], "")
    assert place.traces() == []


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_settings_of_the_user_do_not_matter(place: Place, settings: str) -> None:
    with start(place, sample_script("zsh"), SETTINGS[settings]) as zsh:
        assert offers(zsh, "llmctl chat ") == cases.MODELS | cases.FOLDERS
        assert offers(zsh, "llmctl settings deep copy ") == cases.SESSIONS


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quote_is_closed(zsh: Terminal, quote: str) -> None:
    left, _ = zsh.press(f"llmctl chat --session {quote}my{TAB}")
    assert left == f"llmctl chat --session {quote}my chat{quote} "


def test_a_colon_is_part_of_a_name(zsh: Terminal) -> None:
    assert offers(zsh, "llmctl chat qwen:") == {"qwen:0.6b", "qwen:8b"}


def test_it_completes_in_the_middle_of_a_line(zsh: Terminal) -> None:
    left, right = zsh.press("llmctl se show --na" + LEFT * len(" show --na") + TAB)
    assert (left.rstrip(), right.lstrip()) == ("llmctl settings", "show --na")


def test_a_choice_may_follow_a_short_flag_at_once(zsh: Terminal) -> None:
    assert zsh.press(f"llmctl chat -fRE{TAB}")[0] == "llmctl chat -fREADME.md "


def test_where_nothing_else_can_follow_the_flags_are_shown(zsh: Terminal) -> None:
    assert {"--help", "-v", "--color"} <= offers(zsh, "llmctl chart ")


@pytest.mark.parametrize("name", sorted(cases.HOSTILE))
def test_a_completed_name_reaches_the_command_as_it_is(zsh: Terminal, place: Place, name: str) -> None:
    typed = "".join(f"\\{char}" for char in cases.unique_prefix(name))
    left, _ = zsh.press(f"llmctl chat {typed}{TAB}")
    assert arguments("zsh", left, place) == ["chat", name]


def test_commands_and_flags_are_listed_with_what_they_do(zsh: Terminal) -> None:
    assert re.search(r"chart +-- Draw: a chart\b", zsh.screen(f"llmctl {TAB}{TAB}"))
    assert re.search(r"--file +-- Text: it's \[1] \\ 'x' \$\(id\)", zsh.screen(f"llmctl chat --{TAB}{TAB}"))


def test_it_can_be_sourced_as_well(place: Place) -> None:
    path = place.root / "sourced.zsh"
    path.write_text(sample_script("zsh"), encoding="utf-8")
    with start(place, "", f"source {shlex.quote(str(path))}") as zsh:
        assert offers(zsh, "llmctl settings ") == {"show", "deep"}


@pytest.mark.parametrize("variable", CACHE_VARIABLES)
def test_the_lists_lie_where_llmctl_keeps_its_cache(tmp_path: Path, variable: str) -> None:
    check_cache_folders(tmp_path, variable, zsh_offers_once)


def zsh_offers_once(place: Place, env: dict[str, str]) -> set[str]:
    with start(place, sample_script("zsh"), env=env) as zsh:
        return offers(zsh, "llmctl chat --session ")


def test_without_a_list_nothing_is_offered(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    (place.root / "cache" / "sessions.txt").unlink()
    assert zsh_offers_once(place, place.env) == set()


def test_every_command_of_llmctl_is_completed(place: Place) -> None:
    with start(place, script("zsh")) as zsh:
        for command in command_tree().walk():
            names = set(command.flag_names)
            long = {name for name in names if name.startswith("--")}
            path = " ".join(command.path)
            assert offers(zsh, f"{path} --") == long
            assert names - long <= offers(zsh, f"{path} -") <= names
            if command.commands:
                assert offers(zsh, f"{path} ") == {below.name for below in command.commands}
