"""Emphasis, code, links and escapes inside a paragraph, styled as soon as a span's end is known.

Text without markers passes at once. What opens a span is held until the span ends, the paragraph does, or a
fixed number of characters has come; then it stands as it was written.
"""

import re
from collections.abc import Callable
from typing import Protocol

from llmctl.cli.markdown.delimiters import (
    PENDING,
    Pending,
    Text,
    find_code,
    find_emphasis,
    find_link,
    opens,
)

Emit = Callable[[str, str], None]

BOLD, ITALIC, UNDERLINE = "1", "3", "4"
_CODE_STYLE, _STRIKE, _LABEL, _TARGET = "36", "9", UNDERLINE, "2"
_EMPHASIS = {1: ITALIC, 2: BOLD, 3: f"{BOLD};{ITALIC}"}
# An exclamation mark at the end may become that of an image. Runs are cut, to bound what is held.
_MARKERS = re.compile(r"\\|`{1,64}|\*{1,64}|_{1,64}|~{1,64}|!?\[|!\Z")
_SCHEME = "://"
_NO_WORD = re.compile(r"[^!-~]")
# Not the parentheses and braces of LaTeX: `\(x\)` and `\{` lose their meaning without the backslash.
_ESCAPABLE = frozenset("\\`*_[]#+-.!~|<>$\"'&")


class InlineText(Protocol):
    """Takes the text of one paragraph, piece by piece."""

    def feed(self, text: str) -> None:
        """A piece of the paragraph; its lines end in newlines."""

    def finish(self) -> None:
        """The paragraph is over."""


class RawInline:
    """Hands text on with its markers, for where no style could stand for them."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    def feed(self, text: str) -> None:
        """See `InlineText`."""
        self._emit(text, "")

    def finish(self) -> None:
        """See `InlineText`."""


class StyledInline:
    """Hands text on without the markers that are understood, in styles that add to `style`."""

    def __init__(self, emit: Emit, style: str = "") -> None:
        self._emit = emit
        self._style = style
        self._held = ""
        self._before = "\n"
        """The last character handed on, as it was in the source."""
        self._word = ""
        """As much of the present word as tells whether it is a URL."""

    def feed(self, text: str) -> None:
        """See `InlineText`."""
        self._read(Text(self._held + text, is_whole=False))

    def finish(self) -> None:
        """See `InlineText`."""
        self._read(Text(self._held, is_whole=True))
        self._before, self._word = "\n", ""

    def _read(self, source: Text) -> None:
        index = 0
        while match := _MARKERS.search(source.text, index):
            self._plain(source.text[index : match.start()])
            index = match.start()
            end = self._marker(source, match)
            if isinstance(end, Pending):
                break
            self._before = source.text[end - 1]
            index = end
        else:
            self._plain(source.text[index:])
            index = len(source.text)
        self._held = source.text[index:]

    def _marker(self, source: Text, match: re.Match[str]) -> int | Pending:
        """Hand on what begins at a marker; the index behind it."""
        if match.end() == len(source.text) and not source.is_whole:
            return PENDING
        char = match[0][0]
        end: int | Pending | None = None
        if char == "\\":
            end = self._escape(source, match.end())
        elif char == "`":
            end = self._code(source, match)
        elif char in "*_~" and not self._is_url:
            end = self._emphasis(source, match)
        elif char in "![" and not self._is_url:
            end = self._link(source, match)
        if end is None:
            self._plain(match[0])
            return match.end()
        return end

    def _escape(self, source: Text, index: int) -> int | Pending | None:
        char = source.after(index)
        if char == "[" and index + 1 == len(source.text) and not source.is_whole:
            return PENDING
        # `\[ x = 1 \]` is mathematics.
        beside = {"[": source.after(index + 1), "]": self._before}.get(char, "x")
        if char == "\n" and index < len(source.text):
            return index
        if char not in _ESCAPABLE or beside.isspace():
            return None
        self._plain(char)
        return index + 1

    def _code(self, source: Text, match: re.Match[str]) -> int | Pending | None:
        code = find_code(source, match.end(), len(match[0]))
        if code is None or isinstance(code, Pending):
            return code
        self._span(code.content, _CODE_STYLE, is_literal=True)
        return code.end

    def _emphasis(self, source: Text, match: re.Match[str]) -> int | Pending | None:
        char, strength = match[0][0], len(match[0])
        if not opens(char, strength, self._before, source.after(match.end())):
            return None
        span = find_emphasis(source, match.end(), char, strength)
        if span is None or isinstance(span, Pending):
            return span
        content = source.text[span.start : span.stop]
        if match[0] == "__" and re.fullmatch(r"\w+", content):
            # A name such as __init__.
            return None
        self._span(content, _STRIKE if char == "~" else _EMPHASIS[span.strength])
        return span.end

    def _link(self, source: Text, match: re.Match[str]) -> int | Pending | None:
        link = find_link(source, match.end())
        if link is None or isinstance(link, Pending):
            return link
        if link.label:
            self._span(link.label, _LABEL)
        if link.url and link.url.removeprefix("mailto:") != link.label:
            shown = f" ({link.url})" if link.label else link.url
            self._span(shown, _TARGET, is_literal=True)
        return link.end

    def _span(self, content: str, style: str, *, is_literal: bool = False) -> None:
        style = f"{self._style};{style}" if self._style else style
        if is_literal:
            self._emit(content, style)
        else:
            inner = StyledInline(self._emit, style)
            inner.feed(content)
            inner.finish()
        self._word = ""

    def _plain(self, text: str) -> None:
        if not text:
            return
        self._emit(text, self._style)
        self._before = text[-1]
        word = _NO_WORD.split(self._word + text)[-1]
        self._word = _SCHEME if _SCHEME in word else word[-2:]

    @property
    def _is_url(self) -> bool:
        return self._word == _SCHEME
