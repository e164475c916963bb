"""Tables: their columns, how they fit into the width, and lines with pipes that are none."""

import pytest

from llmctl.cli.markdown import cells
from llmctl.cli.markdown.stream import MarkdownStream
from llmctl.cli.markdown.table import MAX_HELD
from tests.cli.markdown.render import render_cut, visible

SMALL = "| a | b |\n|---|--:|\n| **c** | 10 |\n"
WIDE = "| name | remark |\n|---|---|\n| x | " + "many words that need a lot of room " * 3 + "|\n"


def drawn(text: str, width: int = 40) -> list[str]:
    return visible(render_cut(text, width=width, color=True)).split("\n")[:-1]


def test_a_table_has_a_box() -> None:
    assert drawn(SMALL) == ["┌───┬────┐", "│ a │  b │", "├───┼────┤", "│ c │ 10 │", "└───┴────┘"]


def test_a_header_is_bold_and_cells_have_styles() -> None:
    output = render_cut(SMALL, color=True)
    assert "\033[1ma\033[0m" in output
    assert "\033[1mc\033[0m" in output


def test_without_colour_markers_stay_and_count() -> None:
    assert render_cut(SMALL).split("\n")[3] == "│ **c** │ 10 │"


@pytest.mark.parametrize(
    ("marks", "line"), [("---", "│ a    │"), (":--", "│ a    │"), ("--:", "│    a │"), (":-:", "│  a   │")]
)
def test_columns_are_aligned_as_they_say(marks: str, line: str) -> None:
    assert drawn(f"| head |\n|{marks}|\n| a |")[3] == line


def test_columns_are_aligned_by_cells_not_characters() -> None:
    lines = drawn("| 名前 | x |\n|---|---|\n| 😀 | 1 |\n| e\u0301 | 漢字漢字 |\n| 👩‍👩‍👧 | 🇩🇪 |")
    assert {cells.width(line) for line in lines} == {cells.width(lines[0])}


@pytest.mark.parametrize("width", [20, 30, 40, 80])
def test_a_table_too_wide_wraps_inside_its_cells(width: int) -> None:
    lines = drawn(WIDE, width)
    assert {len(line) for line in lines} == {width}
    assert all(line[0] in "┌│├└" for line in lines)
    assert " ".join(" ".join(line.split("│")[2] for line in lines if "│" in line).split()).endswith(
        "lot of room"
    )


def test_rows_of_several_lines_have_rules_between_them() -> None:
    row = WIDE.split("\n")[2] + "\n"
    lines = drawn(WIDE + row, 40)
    assert sum(line.startswith("├") for line in lines) == 2
    assert sum(line.startswith("├") for line in drawn(SMALL + "| d | 1 |\n")) == 1


def test_where_columns_would_be_too_narrow_each_cell_is_a_line() -> None:
    header = "| one | two | three | four | fives |\n|-|-|-|-|-|\n"
    text = header + "| first | second | third | | fifth |\n| a | b | c | d | e |"
    assert drawn(text, 20) == [
        *("one: first", "two: second", "three: third", "four:", "fives: fifth", ""),
        *("one: a", "two: b", "three: c", "four: d", "fives: e"),
    ]


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ("| a |", ["a", ""]),
        ("| a | b | c | d |", ["a", "b | c | d"]),
        (r"| a \| b | c |", ["a | b", "c"]),
        ("| `a | b` | c |", ["a | b", "c"]),
        ("| a<br>b | c |", ["a", "c"]),
        ("| a | b", ["a", "b"]),
        ("|||", ["", ""]),
    ],
)
def test_what_a_row_is_made_of(row: str, shown: list[str]) -> None:
    line = drawn(f"| x | y |\n|---|---|\n{row}")[3]
    assert [cell.strip() for cell in line.strip("│").split("│")] == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("| a | b |", ["| a | b |"]),
        ("| a | b |\nc", ["| a | b |", "c"]),
        ("| a | b |\n\n|---|---|", ["| a | b |", "", "|---|---|"]),
        ("| a | b |\n|---|", ["| a | b |", "|---|"]),
        ("| a |\n| b |\n- c", ["| a |", "| b |", "• c"]),
        ("| a |\n1. c", ["| a |", "1. c"]),
        ("|", ["|"]),
        ("a || b", ["a || b"]),
    ],
)
def test_what_is_no_table_stays_a_paragraph(text: str, shown: list[str]) -> None:
    assert drawn(text) == shown


@pytest.mark.parametrize("end", ["", "\n", "\n\nnext", "\nnext", "\n# next", "\n- next", "\n```\n```"])
def test_a_table_ends_where_other_text_begins(end: str) -> None:
    assert drawn("| a |\n|---|\n| b |" + end)[:5] == ["┌───┐", "│ a │", "├───┤", "│ b │", "└───┘"]


def test_a_table_without_rows_shows_its_header() -> None:
    assert drawn("| a |\n|---|") == ["┌───┐", "│ a │", "├───┤", "└───┘"]


def test_a_table_lies_in_what_it_is_written_in() -> None:
    assert drawn("- x\n  | a |\n  |---|\n  | b |\n- y") == [
        *("• x", "  ┌───┐", "  │ a │", "  ├───┤", "  │ b │", "  └───┘", "• y")
    ]
    assert drawn("> | a |\n> |---|\n> | b |")[1] == "│ │ a │"


def test_a_long_table_is_shown_before_it_ends_and_keeps_its_columns() -> None:
    out: list[str] = []
    stream = MarkdownStream(out.append, width=lambda: 40, is_colored=False)
    stream.feed("| a | b |\n|---|---|\n")
    for index in range(MAX_HELD - 1):
        stream.feed(f"| row | {index} |\n")
    assert out == []
    for index in range(MAX_HELD - 1, MAX_HELD + 5):
        stream.feed(f"| many more rows | {index} |\n")
        assert f"{index}" in "".join(out)
    stream.finish()
    assert len({len(line) for line in "".join(out).split("\n")[:-1]}) == 1
