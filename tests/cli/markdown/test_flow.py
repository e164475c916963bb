"""Words and lines: where they break, what they are wide, what a resized window does."""

from collections.abc import Callable

import pytest

from llmctl.cli.markdown import cells
from llmctl.cli.markdown.stream import MarkdownStream
from tests.cli.markdown.render import pieces, render


def lines(text: str, width: int = 20) -> list[str]:
    return render(text, width=width).split("\n")[:-1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("twenty characters ok", ["twenty characters ok"]),
        ("twenty characters  ok", ["twenty characters", "ok"]),
        ("one   two", ["one   two"]),
        ("a " + "b" * 45 + " c", ["a", "b" * 20, "b" * 20, "b" * 5 + " c"]),
        ("漢字" * 6, ["漢字" * 5, "漢字"]),
        ("漢" * 10 + "。次", ["漢" * 9, "漢。次"]),
        ("漢" * 9 + "「次」", ["漢" * 9, "「次」"]),
        ("a漢字 " * 4, ["a漢字 a漢字 a漢字 a", "漢字"]),
        ("한국어는 띄어쓰기가 있다", ["한국어는 띄어쓰기가", "있다"]),
        ("👩‍👩‍👧" * 11, ["👩‍👩‍👧" * 10, "👩‍👩‍👧"]),
        ("🇩🇪" * 11, ["🇩🇪" * 10, "🇩🇪"]),
        ("e\u0301" * 21, ["e\u0301" * 20, "e\u0301"]),
        ("❤️" * 11, ["❤️" * 10, "❤️"]),
        ("👍🏽" * 11, ["👍🏽" * 10, "👍🏽"]),
        ("x" * 19 + "漢", ["x" * 19, "漢"]),
        ("a b\u00a0c" + " d" * 8, ["a b\u00a0c" + " d" * 7, "d"]),
        ("\u3000" + "漢" * 10, ["\u3000" + "漢" * 9, "漢"]),
    ],
)
def test_where_lines_break(text: str, shown: list[str]) -> None:
    assert lines(text) == shown
    assert render(pieces(text, 1), width=20).split("\n")[:-1] == shown


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("abc", 3),
        ("漢字", 4),
        ("e\u0301", 1),
        ("👩‍👩‍👧", 2),
        ("🇩🇪", 2),
        ("❤️", 2),
        ("👍🏽", 2),
        ("1️⃣", 2),
        ("\u200b", 0),
    ],
)
def test_how_wide_text_is(text: str, width: int) -> None:
    assert cells.width(text) == width


@pytest.mark.parametrize("text", ["a", "e\u0301", "👩‍👩‍👧", "🇩🇪", "❤️", "👍🏽", "1️⃣", "한", "नि"])
def test_what_one_character_is(text: str) -> None:
    assert cells.clusters(text * 3) == [text] * 3


def test_a_tower_of_marks_is_no_endless_character() -> None:
    assert max(map(len, cells.clusters("e" + "\u0301" * 1000))) < 100


def test_a_url_stays_whole_on_a_line_of_its_own() -> None:
    url = "https://example.org/" + "a" * 30
    assert lines(f"see {url} for more") == ["see", f"{url} for more"]
    assert lines(f"see ({url})") == ["see", f"({url})"]


def test_a_style_ends_before_a_line_does_and_begins_again_after() -> None:
    output = render("> **one two three four five**", width=20, color=True)
    bar = "\033[2m│\033[0m"
    assert output == f"{bar} \033[1mone two three four\033[0m\n{bar} \033[1mfive\033[0m\n"


def resized(widths: list[tuple[str, int]]) -> str:
    """Each text is fed while the window has the width beside it."""
    out: list[str] = []
    width: list[int] = [0]
    ask: Callable[[], int] = lambda: width[0]  # noqa: E731
    stream = MarkdownStream(out.append, width=ask, is_colored=False)
    for text, width[0] in widths:
        stream.feed(text)
    stream.finish()
    return "".join(out)


def test_a_wider_window_counts_at_once() -> None:
    assert resized([("one two three four ", 20), ("five six", 40)]) == "one two three four five six\n"


def test_a_narrower_window_has_broken_the_line_itself() -> None:
    # 27 columns are a full line of 20 and 7 more: there is room for 13 in the terminal's second line.
    text = resized([("one two three four five six ", 80), ("seven eight nine", 20)])
    assert text == "one two three four five six seven eight\nnine\n"


def test_a_tab_in_a_paragraph_is_four_columns() -> None:
    assert lines("a\tb") == ["a    b"]


@pytest.mark.parametrize("width", [0, 1, 2, 3])
def test_a_window_of_no_width_at_all_loses_nothing(width: int) -> None:
    output = render("> - one **漢字** `two`\n\n| a | b |\n|--|--|\n| c | d |\n\n---\n", width=width)
    assert [mark for mark in "one漢字twoabcd" if mark not in output] == []
