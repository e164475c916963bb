"""The bash script in a real bash: TAB pressed at a terminal, and the line that comes of it."""

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
    typed_flag,
)
from tests.cli.completions.terminal import LEFT, TAB, Terminal

INSERT_ALL = "\x1b*"
RC = r"""
PS1='$ '
bind 'set bell-style none'
_report() {
    printf '\001%s\002%s\002\003' "${READLINE_LINE:0:READLINE_POINT}" "${READLINE_LINE:READLINE_POINT}"
}
bind -x '"\C-xd": _report'
"""
# How a user may have set up the shell; the script must work in all of them.
SETTINGS = {
    "words broken at blanks only": r"COMP_WORDBREAKS=$' \t\n\"\'><;|&('",
    "words broken at @ too": r"COMP_WORDBREAKS=$' \t\n\"\'@><=;|&(:'",
    "strict": "set -u; shopt -s failglob nocasematch",
    "no globs": "set -f; shopt -s nullglob dotglob; IFS=:",
}


def start(
    place: Place, text: str, name: str, settings: str = "", env: dict[str, str] | None = None
) -> Terminal:
    """A bash that has read the script `text` and then the user's `settings`."""
    path = place.root / f"{name}.bash"
    path.write_text(text, encoding="utf-8")
    rc = place.root / f"{name}.rc"
    rc.write_text(f"{RC}\nsource {shlex.quote(str(path))}\n{settings}\n", encoding="utf-8")
    return Terminal(
        [find_shell("bash"), "--noprofile", "--rcfile", str(rc), "-i"], cwd=place.cwd, env=env or place.env
    )


@pytest.fixture(scope="module")
def bash(place: Place) -> Iterator[Terminal]:
    with start(place, sample_script("bash"), "sample") as terminal:
        yield terminal


def offers(bash: Terminal, line: str) -> set[str]:
    """What readline inserts when it is told to insert all completions."""
    left, _ = bash.press(line + INSERT_ALL)
    if left == line:
        return set()
    # Where = ends a word the first of them takes what stands before it along; elsewhere all do.
    words = shlex.split(left)[len(shlex.split(f"{line}x")) - 1 :]
    return {word.removeprefix(typed_flag(line)).rstrip("/") for word in words}


@pytest.mark.parametrize("line", cases.OFFERS)
def test_it_offers_what_can_follow(bash: Terminal, place: Place, line: str) -> None:
    assert offers(bash, line) == cases.OFFERS[line]
    assert place.traces() == []


@pytest.mark.parametrize("line", cases.COMPLETED)
def test_tab_completes_the_line(bash: Terminal, place: Place, line: str) -> None:
    assert bash.press(line + TAB) == (cases.COMPLETED[line], "")
    assert place.traces() == []


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_settings_of_the_user_do_not_matter(place: Place, settings: str) -> None:
    with start(place, sample_script("bash"), "settings", SETTINGS[settings]) as bash:
        assert {line: offers(bash, line) for line in cases.OFFERS} == cases.OFFERS
        assert {line: bash.press(line + TAB)[0] for line in cases.COMPLETED} == cases.COMPLETED


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quote_is_closed(bash: Terminal, quote: str) -> None:
    left, _ = bash.press(f"llmctl chat --session {quote}my{TAB}")
    assert left == f"llmctl chat --session {quote}my chat{quote}"


def test_a_colon_is_part_of_a_name(bash: Terminal) -> None:
    # Bash ends a word there, so that only what stands behind it is told.
    assert bash.press(f"llmctl chat qwen:{INSERT_ALL}")[0].split() == ["llmctl", "chat", "qwen:0.6b", "8b"]


def test_it_completes_in_the_middle_of_a_line(bash: Terminal) -> None:
    left, right = bash.press("llmctl se show --na" + LEFT * len(" show --na") + TAB)
    assert (left.rstrip(), right.lstrip()) == ("llmctl settings", "show --na")


def test_only_what_stands_left_of_the_cursor_counts(bash: Terminal) -> None:
    assert bash.press("llmctl chat --device=cuXX" + LEFT * 2 + TAB)[0] == "llmctl chat --device=cuda "


@pytest.mark.parametrize("line", ["llmctl chat < RE", "llmctl chat 2>RE", "llmctl chat demo >RE"])
def test_a_redirection_takes_files(bash: Terminal, line: str) -> None:
    assert bash.press(line + TAB)[0] == f"{line}ADME.md "


def test_a_redirection_is_no_argument(bash: Terminal) -> None:
    assert offers(bash, "llmctl chat < RE dem") == cases.DEMOS


def test_where_nothing_else_can_follow_the_flags_are_shown(bash: Terminal) -> None:
    assert {"--help", "-v", "--color"} <= offers(bash, "llmctl chart ")


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize("name", sorted(cases.HOSTILE))
def test_a_completed_name_reaches_the_command_as_it_is(
    bash: Terminal, place: Place, name: str, quote: str
) -> None:
    prefix = cases.unique_prefix(name)
    typed = quote + prefix if quote else "".join(f"\\{char}" for char in prefix)
    left, _ = bash.press(f"llmctl chat {typed}{TAB}")
    if set(name) & {"": set(), "'": {"'"}, '"': set('"`$\\!')}[quote]:
        assert left == f"llmctl chat {typed}"
    else:
        assert arguments("bash", left, place) == ["chat", name]


@pytest.mark.parametrize("variable", CACHE_VARIABLES)
def test_the_lists_lie_where_llmctl_keeps_its_cache(tmp_path: Path, variable: str) -> None:
    check_cache_folders(tmp_path, variable, bash_offers_once)


def bash_offers_once(place: Place, env: dict[str, str]) -> set[str]:
    with start(place, sample_script("bash"), "once", env=env) as bash:
        return offers(bash, "llmctl chat --session ")


def test_without_a_list_nothing_is_offered(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    (place.root / "cache" / "sessions.txt").unlink()
    assert bash_offers_once(place, place.env) == set()


def test_every_command_of_llmctl_is_completed(place: Place) -> None:
    with start(place, script("bash"), "real") as bash:
        for command in command_tree().walk():
            path = " ".join(command.path)
            assert offers(bash, f"{path} -") == set(command.flag_names)
            if command.commands:
                assert offers(bash, f"{path} ") == {below.name for below in command.commands}
