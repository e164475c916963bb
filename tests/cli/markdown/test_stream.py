"""What the streams promise as a whole: harmless text, linear cost, a quick import, a clean end."""

import subprocess
import sys
import time
from types import FrameType
from typing import Any

import pytest

from llmctl.cli.markdown.stream import MarkdownStream, PlainStream
from tests.cli.markdown.render import GOLDEN, pieces, render, visible

KINDS = [MarkdownStream, PlainStream]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("a\x9b1Ab", "a\\x9b1Ab"),
        ("a\x00\x08\x0b\x0c\x7fb", "a\\x00\\x08\\x0b\\x0c\\x7fb"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),
        ("a\rb", "a\\rb"),
        ("a\r\nb", "a\nb"),
        ("a\r\r\nb", "a\\r\nb"),
        ("a\r", "a\\r"),
        ("a\ud800b", "a\\ud800b"),
        ("a\u200fb", "a\u200fb"),
    ],
)
def test_control_characters_are_shown_not_obeyed(kind: type, text: str, shown: str) -> None:
    assert render(text, kind=kind) == shown + "\n"
    assert render(pieces(text, 1), kind=kind) == shown + "\n"


def test_control_characters_are_shown_in_code_tables_and_links_too() -> None:
    hostile = "\x1bc"
    code, table = f"```py\n{hostile}\n```\n", f"| {hostile} |\n|---|\n| {hostile} |\n"
    output = render(f"{code}{table}\n[a{hostile}](b{hostile}) `{hostile}`\n# {hostile}", color=True)
    assert visible(output).count("\\x1bc") == 7
    assert hostile not in output


@pytest.mark.parametrize("kind", KINDS)
def test_finish_ends_the_line_and_writes_nothing_after_nothing(kind: type) -> None:
    assert [render(text, kind=kind) for text in ("", "a", "a\n")] == ["", "a\n", "a\n"]


@pytest.mark.parametrize("text", ["```py\na", "> a", "- a\n\n", "| a |\n|---|", "**a", "| a |", "a"])
def test_what_comes_after_the_end_begins_anew(text: str) -> None:
    out: list[str] = []
    stream = MarkdownStream(out.append, width=lambda: 80, is_colored=True)
    stream.feed(text)
    stream.finish()
    out.clear()
    stream.feed("b")
    stream.finish()
    assert "".join(out) == "b\n"


def test_plain_text_stays_as_it_is() -> None:
    text = "# a  \n\n\n- **b**\t| c |\n```\n" + "long " * 50 + "\n"
    assert render(text, kind=PlainStream) == text


def test_plain_text_passes_at_once() -> None:
    out: list[str] = []
    stream = PlainStream(out.append, width=lambda: 80, is_colored=True)
    for piece in ("a", "b\r", "\nc"):
        stream.feed(piece)
    assert out == ["a", "b", "\nc"]


def test_a_piece_is_written_at_most_once() -> None:
    out: list[str] = []
    stream = MarkdownStream(out.append, width=lambda: 80, is_colored=True)
    stream.feed("# a\n\nb **c** d\n- e\n")
    stream.finish()
    assert len(out) == 1


def num_calls(text: str, *, color: bool) -> int:
    """Python functions entered for `text`, four characters at a time."""
    count = 0

    def note(_frame: FrameType, event: str, _arg: Any) -> None:
        nonlocal count
        count += event == "call"

    parts = pieces(text, 4)
    sys.setprofile(note)
    try:
        render(parts, color=color)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("color", [False, True])
def test_work_grows_with_the_text_and_no_faster(color: bool) -> None:
    text = (GOLDEN / "answer.md").read_text(encoding="utf-8")
    num_calls(text, color=color)
    few, many = num_calls(text * 2, color=color), num_calls(text * 10, color=color)
    assert many < 5.2 * few
    assert few < 15 * len(text) * 2


HOSTILE = [
    "**a ",
    "*a ",
    "`a ",
    "[a ",
    "[",
    "![",
    "[a](",
    "[a](((",
    "> ",
    "- ",
    "| a ",
    "-",
    "_",
    "`",
    " ",
    "\\",
    "***a ",
]


@pytest.mark.parametrize(
    "mark", [*HOSTILE, "a", "漢字", "e\u0301", "\u0301", "👩\u200d", "https://", "=", "#", "<"]
)
def test_a_long_line_of_anything_costs_no_more_than_its_length(mark: str) -> None:
    def seconds(length: int) -> float:
        text = mark * (length // len(mark))
        started = time.process_time()
        render(pieces(text, 4), color=True)
        return time.process_time() - started

    seconds(1000)
    # Eight times the text may take eight times as long; a square would be 64.
    assert seconds(24_000) < 24 * seconds(3000) + 0.2


def test_importing_the_stream_brings_in_neither_rich_nor_pygments() -> None:
    script = (
        "import sys, llmctl.cli.markdown.stream\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('rich', 'pygments', 'wcwidth')])\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_english_text_needs_neither_rich_nor_pygments() -> None:
    script = (
        "import sys; from llmctl.cli.markdown.stream import MarkdownStream\n"
        "stream = MarkdownStream(lambda text: None, width=lambda: 80, is_colored=True)\n"
        "stream.feed('# a\\n\\n- **b** [c](d)\\n```\\ne\\n```\\n'); stream.finish()\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('rich', 'pygments', 'wcwidth')])\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
