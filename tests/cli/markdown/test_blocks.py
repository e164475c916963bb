"""Blocks and what they lie in: headings, lists, quotes, code, rules."""

import pytest

from llmctl.cli.markdown.starts import MAX_HEAD
from tests.cli.markdown.render import render_cut, visible


def plain(text: str, width: int = 30) -> list[str]:
    return render_cut(text, width=width).split("\n")[:-1]


def bare(text: str, width: int = 30) -> list[str]:
    return visible(render_cut(text, width=width, color=True)).split("\n")[:-1]


@pytest.mark.parametrize("level", range(1, 7))
def test_a_heading_is_bold_and_its_level_stays_visible(level: int) -> None:
    marks = "#" * level
    style = "1;4" if level == 1 else "1"
    output = render_cut(f"{marks} A `b`", color=True)
    assert visible(output) == f"{marks} A b\n"
    assert f"\033[{style};36mb" in output
    assert render_cut(f"{marks} A `b`") == f"{marks} A `b`\n"


@pytest.mark.parametrize("text", ["#hashtag", "####### seven", "\\# no"])
def test_what_is_no_heading(text: str) -> None:
    assert "\033[1" not in render_cut(text, color=True)


def test_an_empty_line_comes_before_a_heading() -> None:
    assert plain("a\n# b\nc") == ["a", "", "# b", "c"]
    assert plain("# a\n\n\n\n# b") == ["# a", "", "# b"]


def test_empty_lines_become_one_and_none_at_the_ends() -> None:
    assert plain("\n\na\n\n\n \nb\n\n\n") == ["a", "", "b"]


def test_a_line_break_in_a_paragraph_stays() -> None:
    assert plain("a\nb  \nc\\\nd") == ["a", "b", "c\\", "d"]


def test_an_underlined_heading_is_a_line_over_a_rule() -> None:
    assert plain("a\n===\nb\n---\nc", width=20) == ["a", "═" * 20, "b", "─" * 20, "c"]


@pytest.mark.parametrize("text", ["---", "***", "___", "- - -", "*  *  *", "-----------", " ---  "])
def test_a_rule_is_as_wide_as_the_terminal(text: str) -> None:
    assert plain(f"a\n\n{text}\n\nb", width=25) == ["a", "", "─" * 25, "", "b"]


@pytest.mark.parametrize("text", ["--", "-- -a", "**", "--- a", "-*-", "==="])
def test_what_is_no_rule(text: str) -> None:
    assert "─" not in render_cut(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("- a\n- b", ["• a", "• b"]),
        ("* a\n+ b", ["• a", "• b"]),
        ("- a\n  - b\n    - c\n      - d\n- e", ["• a", "  ◦ b", "    ▪ c", "      ▪ d", "• e"]),
        ("1. a\n2. b\n10. c", ["1. a", "2. b", "10. c"]),
        ("3) a\n4) b", ["3) a", "4) b"]),
        ("1. a\n   - b\n     c", ["1. a", "   ◦ b", "     c"]),
        ("1. a\n   - b\n    - c", ["1. a", "   ◦ b", "   ◦ c"]),
        ("1. a\n  - b\n    - c", ["1. a", "   ◦ b", "     ▪ c"]),
        ("- a\n      - b", ["• a", "  ◦ b"]),
        ("-\ta\n\t- b", ["• a", "  ◦ b"]),
        ("- a\n\n- b\n\n  c\n\nd", ["• a", "", "• b", "", "  c", "", "d"]),
        ("- [ ] a\n- [x] b", ["• [ ] a", "• [x] b"]),
        ("- - a\n  - b", ["• ◦ a", "  ◦ b"]),
        ("-\n- a", ["•", "• a"]),
        ("- a\nb", ["• a", "  b"]),
        ("a\n- b", ["a", "• b"]),
        ("a\n1. b", ["a", "1. b"]),
        ("- # a\n- > b\n  > c", ["• # a", "• │ b", "  │ c"]),
    ],
)
def test_a_list_has_hanging_indents(text: str, shown: list[str]) -> None:
    assert bare(text) == shown


@pytest.mark.parametrize("text", ["-a", "1.a", "a\n1986. b", "a\n-", "5-3", "+1", "1234567890. a", "1", "1."])
def test_what_is_no_list(text: str) -> None:
    assert bare(text) == text.split("\n")


def test_a_list_wraps_under_its_text() -> None:
    assert plain("10. one two three four five six seven\n    - eight nine ten eleven twelve", width=20) == [
        "10. one two three",
        "    four five six",
        "    seven",
        "    - eight nine ten",
        "      eleven twelve",
    ]


def test_nesting_too_deep_for_the_terminal_keeps_half_of_it_for_words() -> None:
    text = "".join(f"{'  ' * depth}- item number {depth}\n" for depth in range(20))
    lines = plain(text, width=20)
    assert max(map(len, lines)) <= 20
    assert [word for line in lines for word in line.split() if word.isdigit()] == [str(n) for n in range(20)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("> a\n> b", ["│ a", "│ b"]),
        (">a\n>\n>b", ["│ a", "│", "│ b"]),
        ("> a\nb", ["│ a", "│ b"]),
        ("> a\n\nb", ["│ a", "", "b"]),
        ("> a\n\n> b", ["│ a", "", "│ b"]),
        ("> > a\n> b", ["│ │ a", "│ │ b"]),
        ("> > a\n>\n> b", ["│ │ a", "│", "│ b"]),
        ("> - a\n>   b\n> - c", ["│ • a", "│   b", "│ • c"]),
        ("> # a\n> b", ["│ # a", "│ b"]),
        (">", ["│"]),
    ],
)
def test_a_quote_has_a_bar(text: str, shown: list[str]) -> None:
    assert bare(text) == shown
    assert plain(text) == [line.replace("│", ">").replace("•", "-") for line in shown]


def test_the_bar_goes_on_where_a_quote_wraps() -> None:
    assert plain("> one two three four five six", width=20) == ["> one two three four", "> five six"]


def test_html_stays() -> None:
    assert plain("<div>\n<b>a</b>\n</div>") == ["<div>", "<b>a</b>", "</div>"]


def test_code_that_is_indented_stays_as_it_is() -> None:
    code = ["    def f():", "        return  1  # " + "long " * 10]
    assert plain("a\n\n" + "\n".join(code) + "\n\nb", width=20) == ["a", "", *code, "", "b"]


def test_a_line_whose_kind_stays_open_for_too_long_is_a_paragraph() -> None:
    assert plain("-" * MAX_HEAD + "- a", width=200)[0] == "-" * 200
    assert "".join(plain(" " * (2 * MAX_HEAD) + "a", width=200)) == "a"
    assert "".join(plain("|" * (2 * MAX_HEAD), width=200)) == "|" * (2 * MAX_HEAD)


def test_nothing_comes_of_nothing() -> None:
    assert [render_cut(text, color=True) for text in ("", "\n\n", "  \n")] == ["", "", ""]
