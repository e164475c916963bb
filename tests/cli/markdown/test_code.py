"""Fenced code: exactly what the model wrote, line by line, in colours that end with each line."""

import pytest
from pygments.lexers import get_lexer_by_name

from llmctl.cli.markdown.code import LANGUAGES, Highlighter
from llmctl.cli.markdown.stream import MarkdownStream
from tests.cli.markdown.render import SGR, render_cut, visible

CODE = "def f(x):\n    return x\n\n\n\tx = '" + "long " * 40 + "'   "


@pytest.mark.parametrize("is_colored", [False, True])
@pytest.mark.parametrize(
    "fence", ["```", "````", "~~~", "```python", "~~~ py title", "``` {.python}", "```nosuch"]
)
def test_code_comes_out_as_it_was_written(fence: str, is_colored: bool) -> None:
    closing = fence[0] * (len(fence) - len(fence.lstrip("`~")))
    output = visible(render_cut(f"a\n{fence}\n{CODE}\n{closing}\nb", width=20, color=is_colored))
    assert output == f"a\n{fence}\n{CODE}\n{closing}\nb\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("````\n```\n````\nb", "````\n```\n````\nb\n"),
        ("~~~\n```\n~~~", "~~~\n```\n~~~\n"),
        ("```\na\n`````\nb", "```\na\n`````\nb\n"),
        ("```\na\n``` b\n```", "```\na\n``` b\n```\n"),
        ("```\na", "```\na\n"),
        ("```py", "```py\n"),
        ("```\n**a**\n# b\n| c |\n```", "```\n**a**\n# b\n| c |\n```\n"),
        ("```a``` b", "```a``` b\n"),
        ("``", "``\n"),
        ("- a\n  ```\n  b\n    c\n  ```\n- d", "- a\n```\nb\n  c\n```\n- d\n"),
        ("- ```\n  b\n  ```", "-\n```\nb\n```\n"),
        ("1. a\n\n   ```\nb\n   ```\n   c", "1. a\n\n```\nb\n```\n   c\n"),
        ("> ```\n> b\n>  c\n> ```\n> d", "```\nb\n c\n```\n> d\n"),
        ("> ```\n> b\nc", "```\nb\nc\n"),
    ],
)
def test_where_a_block_begins_and_ends(text: str, shown: str) -> None:
    assert render_cut(text) == shown


def test_a_line_of_code_is_written_when_it_ends() -> None:
    out: list[str] = []
    stream = MarkdownStream(out.append, width=lambda: 80, is_colored=False)
    stream.feed("```\nfirst\nsecond")
    assert "".join(out) == "```\nfirst\n"
    stream.feed("\n")
    assert "".join(out) == "```\nfirst\nsecond\n"


def test_a_string_over_several_lines_is_one_and_each_line_has_its_colour() -> None:
    lines = render_cut('```python\n"""a\nif b\n"""\nif c\n```', color=True).split("\n")
    assert lines[1:5] == [
        '\033[32m"""a\033[0m',
        "\033[32mif b\033[0m",
        '\033[32m"""\033[0m',
        "\033[35mif\033[0m c",
    ]


@pytest.mark.parametrize("language", ["json", "yaml", "console", "makefile", "PYTHON", "kt", "c++"])
def test_languages_of_all_kinds_have_colours(language: str) -> None:
    lines = {"makefile": "a: b  # c", "console": "$ echo 'x'", "yaml": "a: 'b' # c", "json": '{"a": 1}'}
    line = lines.get(language, 'import x; return "a";')
    shown = Highlighter(language).line(line)
    assert "\033[" in shown
    assert visible(shown) == line


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_takes_any_line(language: str) -> None:
    get_lexer_by_name(language)
    highlighter = Highlighter(language)
    for line in ('x = "a', "]]> */ }} %} ''' \"\"\"", "", "<?php <a href='", "\t#{${`é字", "(" * 200):
        shown = highlighter.line(line)
        assert visible(shown) == line
        assert SGR.findall(shown)[-1:] in ([], ["\033[0m"])


@pytest.mark.parametrize("language", ["nosuch", "maple", "text", "é", "{"])
def test_an_unknown_language_stays_plain(language: str) -> None:
    assert Highlighter(language).line("if x: return 1") == "if x: return 1"


def test_a_very_long_line_stays_plain() -> None:
    assert Highlighter("python").line("x = 1;" * 1000) == "x = 1;" * 1000
