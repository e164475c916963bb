"""Spans inside a paragraph: which markers style, which stay, and how long they may hold text back."""

import pytest

from llmctl.cli.markdown.delimiters import MAX_CODE, MAX_EMPHASIS, MAX_LINK
from llmctl.cli.markdown.stream import MarkdownStream
from tests.cli.markdown.render import pieces, render_cut, visible


def styled(text: str, style: str) -> str:
    return f"\033[{style}m{text}\033[0m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a **b** c", f"a {styled('b', '1')} c"),
        ("a *b* c", f"a {styled('b', '3')} c"),
        ("a _b_ c", f"a {styled('b', '3')} c"),
        ("__b c__", styled("b c", "1")),
        ("***b***", styled("b", "1;3")),
        ("~~b~~", styled("b", "9")),
        ("`b`", styled("b", "36")),
        ("`` a`b ``", styled("a`b", "36")),
        ("`*b*`", styled("*b*", "36")),
        ("**a *b* c**", f"{styled('a ', '1')}{styled('b', '1;3')}{styled(' c', '1')}"),
        ("***a** b*", f"{styled('a', '3;1')}{styled(' b', '3')}"),
        ("***a* b**", f"{styled('a', '1;3')}{styled(' b', '1')}"),
        ("**a `**` b**", f"{styled('a ', '1')}{styled('**', '1;36')}{styled(' b', '1')}"),
        ("这是**重点：**内容", f"这是{styled('重点：', '1')}内容"),
        ("(**b**)", f"({styled('b', '1')})"),
        ("**b\nc**", f"{styled('b', '1')}\n{styled('c', '1')}"),
    ],
)
def test_what_styles(text: str, shown: str) -> None:
    assert render_cut(text, width=1000, color=True) == shown + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "2 * 3 = 6 * 1",
        "5*4 and 3*2",
        "2**10 and 3**5",
        "snake_case_name and other_snake_case",
        "__init__ and __init__.py",
        "~5 to ~6",
        "*args and **kwargs",
        "**never closed",
        "*one** more",
        "_one_two",
        "wow!",
        "[a]",
        "`a``",
        "*Prices may vary",
        "`never closed",
        "[never closed",
        "[a] and [b] (c)",
        "[a](not a link)",
        "a ** b ** c",
        "a ****",
        "https://x.y/_a_/*b*/~~c~~",
        r"C:\new \(x_1 * y_2\) \frac{a}{b}",
        r"\[ x = 1 \]",
        "array[0][1] = list[str](x y)",
        "&amp; &lt;",
        "<a href='x'>HTML</a> <br>",
        "wow! yes!",
    ],
)
def test_what_stays_as_it_was_written(text: str) -> None:
    assert render_cut(text, width=1000, color=True) == text + "\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"\*a\* \_b\_ \`c\` \# \\", r"*a* _b_ `c` # " + "\\"),
        (r"\[a\](b)", "[a](b)"),
        ("a\\\nb", "a\nb"),
        ("a  \nb", "a\nb"),
    ],
)
def test_a_backslash_takes_a_mark_its_meaning(text: str, shown: str) -> None:
    assert render_cut(text, color=True) == shown + "\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](http://b)", f"{styled('a', '4')}{styled(' (http://b)', '2')}"),
        ('[a](http://b "title")', f"{styled('a', '4')}{styled(' (http://b)', '2')}"),
        ("[http://b](http://b)", styled("http://b", "4")),
        ("[x@y](mailto:x@y)", styled("x@y", "4")),
        ("[a](<b c>)", f"{styled('a', '4')}{styled(' (b c)', '2')}"),
        ("[a](b(c)d)", f"{styled('a', '4')}{styled(' (b(c)d)', '2')}"),
        ("[**a**](b)", f"{styled('a', '4;1')}{styled(' (b)', '2')}"),
        ("![a](b.png)", f"{styled('a', '4')}{styled(' (b.png)', '2')}"),
        ("[](b)", styled("b", "2")),
        ("[a]()", styled("a", "4")),
    ],
)
def test_a_link_is_its_text_and_where_it_leads_unless_they_are_the_same(text: str, shown: str) -> None:
    assert render_cut(text, color=True) == shown + "\n"


@pytest.mark.parametrize("text", ["**a** *b* `c` ~~d~~ [e](f) ![g](h) \\*", "***a** b* __c__"])
def test_without_colour_all_markers_stay(text: str) -> None:
    assert render_cut(text) == text + "\n"


def written_after(text: str) -> str:
    """What is on the screen once `text` has come and the answer goes on."""
    out: list[str] = []
    stream = MarkdownStream(out.append, width=lambda: 5000, is_colored=True)
    for piece in pieces(text, 3):
        stream.feed(piece)
    return visible("".join(out))


def test_words_pass_while_they_come() -> None:
    assert written_after("The capital of Fra") == "The capital of"
    assert written_after("- The capital of Fra") == "• The capital of"
    assert written_after("> # The capital of Fra") == "│ # The capital of"


def test_the_first_word_of_a_line_does_not_wait_for_its_end() -> None:
    assert written_after("Capi") == "Cap"


@pytest.mark.parametrize(
    ("opening", "limit"), [("*", MAX_EMPHASIS), ("**", MAX_EMPHASIS), ("`", MAX_CODE), ("[", MAX_LINK)]
)
def test_an_opening_marker_holds_no_more_than_so_many_characters(opening: str, limit: int) -> None:
    held = "x " * (limit // 2 - 2)
    assert written_after(f"see {opening}{held}") == "see"
    assert written_after(f"see {opening}{held}{held}").startswith(f"see {opening}x x")


def test_what_cannot_be_a_link_is_not_held() -> None:
    assert written_after("see [a] and more ") == "see [a] and more"
    assert written_after("see [a](and more with it ") == "see [a](and more with it"


def test_a_stopped_answer_shows_what_was_held() -> None:
    assert render_cut("see **this and `that", color=True) == "see **this and `that\n"
