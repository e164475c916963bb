"""What holds for any text: the same in any pieces, nothing lost, no line too wide, nothing but colours."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.cli.markdown import cells
from llmctl.cli.markdown.stream import MarkdownStream, PlainStream
from tests.cli.markdown.render import SGR, pieces, render, visible

WORDS = [
    "word",
    "Größe",
    "字",
    "漢字",
    "，",
    "。",
    "😀",
    "👩‍👩‍👧",
    "🇩🇪",
    "❤️",
    "e\u0301",
    "한국어",
    "x",
    "5",
    "b",
]
MARKED = r"""** * _ __ ` `` ``` ~~ ~~~ [ ]( ) ( ]( ![ ! \ | | |---| --- === *** > # ### - 1. 10) + <br> " ' ://
~ $ ***a** [a](b) [a](<b 👍 |:-:| [x] - [ ] *a* **b** `c` a_b_c http://x.y/z_1_ &amp;"""
MARKS = MARKED.split()
TABLE = "\n| a | b |\n|---|:-:|\n"
LINES = ["\n", "\n\n", "\n> ", "\n- ", "\n  - ", "\n1. ", "\n# ", TABLE, "\n```\n", "\n```python\n"]
SPACES = [" ", " ", "  ", "    ", "\t", "\u3000"]
HOSTILE = ["\x1b[2J", "\x1b]0;x\x07", "\r", "\r\n", "\x9b1A", "\x00", "\x7f", "\u202e", "\u2028", "\ud800"]
PARTS = st.one_of(*(st.sampled_from(kind) for kind in (WORDS, MARKS, LINES, SPACES, HOSTILE)))
TEXTS = st.one_of(st.lists(PARTS, max_size=40).map("".join), st.text(max_size=60))
PROSE = st.lists(st.one_of(*(st.sampled_from(kind) for kind in (WORDS, MARKS, LINES, [" "]))), max_size=40)
WIDTHS = st.integers(20, 200)
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MANY = settings(max_examples=300, deadline=None)


@MANY
@given(text=TEXTS, width=WIDTHS, color=st.booleans(), data=st.data())
def test_the_output_is_the_same_however_the_text_is_cut(
    text: str, width: int, color: bool, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    parts = [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = render(text, width=width, color=color)
    assert render(pieces(text, 1), width=width, color=color) == whole
    assert render(parts, width=width, color=color) == whole


@MANY
@given(text=TEXTS, width=WIDTHS, color=st.booleans())
def test_no_control_character_goes_out_but_colours_and_newlines(text: str, width: int, color: bool) -> None:
    output = render(text, width=width, color=color)
    assert not CONTROLS.search(visible(output) if color else output)
    # A tab of the text is still one in code.
    assert color or "\x1b" not in output
    output.encode()


@MANY
@given(text=TEXTS, width=WIDTHS)
def test_each_line_ends_without_a_colour_and_the_last_with_a_newline(text: str, width: int) -> None:
    output = render(text, width=width, color=True)
    assert output == "" or output.endswith("\n")
    for line in output.split("\n"):
        assert SGR.findall(line)[-1:] in ([], ["\033[0m"])


@MANY
@given(words=st.lists(st.one_of(TEXTS, st.just("")), max_size=8), width=WIDTHS, color=st.booleans())
def test_no_visible_word_is_lost(words: list[str], width: int, color: bool) -> None:
    marked = [f"q{index}q{word}z{index}z" for index, word in enumerate(words)]
    output = visible(render(" ".join(marked), width=width, color=color))
    # A word longer than its line is broken, by prefixes and boxes too.
    flat = re.sub(r"[\s│>]", "", output)
    for index in range(len(words)):
        assert f"q{index}q" in flat
        assert f"z{index}z" in flat


@MANY
@given(parts=PROSE, width=WIDTHS, color=st.booleans())
def test_no_line_is_wider_than_the_terminal(parts: list[str], width: int, color: bool) -> None:
    # URLs and code are not wrapped.
    text = re.sub("(```|~~~|://| {4})", " ", "".join(parts))
    for line in visible(render(text, width=width, color=color)).split("\n"):
        assert cells.width(line) <= width


@MANY
@given(text=TEXTS, data=st.data())
def test_plain_text_comes_out_as_it_is(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    output = render([text[:cut], text[cut:]], kind=PlainStream)
    kept = text.replace("\r\n", "\n")
    if not CONTROLS.search(kept):
        assert output == kept + "\n" * (kept != "" and not kept.endswith("\n"))
    assert not CONTROLS.search(output)


@given(widths=st.lists(st.integers(1, 100), min_size=1, max_size=10), text=TEXTS)
def test_a_window_that_is_resized_all_the_time_loses_nothing(widths: list[int], text: str) -> None:
    out: list[str] = []
    asked = iter(widths * 100_000)
    stream = MarkdownStream(out.append, width=lambda: next(asked), is_colored=False)
    for piece in pieces(text + "zz", 3):
        stream.feed(piece)
    stream.finish()
    flat = re.sub(r"[\s>]", "", "".join(out))
    assert flat.endswith("zz") or "|" in text
