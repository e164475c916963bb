"""Writes text word by word into lines of the terminal's width; what is written is never touched again.

A word is held until it ends or does not fit any more. At the start of a line it need not wait at all.
"""

import re
from collections.abc import Callable, Iterable

from llmctl.cli.markdown import cells

RESET = "\033[0m"
DIM = "2"
BAR = "│"
_TOKENS = re.compile("[ \t\u3000]+|[^ \t\u3000]+")
_SPACE = frozenset(" \t\u3000")
_TAB = "    "

Segment = tuple[str, str]
"""Text and its style; a style is the parameters of an SGR sequence, such as "1;36", and "" is none."""


def sgr(text: str, style: str) -> str:
    """`text` in a style that ends with it."""
    return f"\033[{style}m{text}{RESET}" if style and text else text


class Flow:
    """The lines of a block: prefixes (list markers, bars of quotes), words, wrapping and styles.

    `width` is asked whenever a line might wrap. No line gets longer, except by a URL, which the
    terminal wraps itself so that it stays whole for whoever copies it (`breaks_urls`: where that cannot be).
    """

    def __init__(
        self, write: Callable[[str], None], *, width: Callable[[], int], breaks_urls: bool = False
    ) -> None:
        self._write = write
        self._width = width
        self._breaks_urls = breaks_urls
        self._first: str | None = None
        self._rest = ""
        self._column = 0
        self._is_open = False
        self._is_bare = True
        """Whether the line holds nothing but its prefix."""
        self._active = ""
        self._held: Segment = ("", "")
        """The last character: a combining mark may still follow."""
        self._gap: list[Segment] = []
        self._word: list[Segment] = []
        self._word_cells = 0
        self._is_flowing = False
        """Whether the start of the word is on the line already."""
        self._last = ""
        self._scheme = ""
        """As much of the word as tells whether it is a URL."""

    def begin(self, first: str, rest: str) -> None:
        """The prefix of the next line and that of the lines after it."""
        self._first, self._rest = first, rest

    def text(self, text: str, style: str = "") -> None:
        """More text of the block; a newline in it ends the line."""
        head, *lines = text.split("\n")
        self._text(head, style)
        for line in lines:
            self.newline()
            self._text(line, style)

    def newline(self) -> None:
        """End the line, if anything is on it."""
        self._settle()
        self._end_word()
        self._gap.clear()
        if self._is_open:
            self._close()

    def line(self, text: str, *, has_prefix: bool = True) -> None:
        """A whole line that is written as it is, its own styles ended in it."""
        self.newline()
        if has_prefix:
            text = f"{_painted(self._take_prefix())}{text}".rstrip(" ")
        self._write(text + "\n")

    def room(self) -> int:
        """Cells that the next line has behind its prefix, at least 1."""
        return max(self._limit() - len(self._clipped(self._rest if self._first is None else self._first)), 1)

    def _text(self, text: str, style: str) -> None:
        if not text:
            return
        if style != self._held[1]:
            self._settle()
        tokens = _TOKENS.findall(self._held[0] + text)
        last = tokens[-1]
        held = last[-1] if last.isascii() else cells.clusters(last)[-1]
        tokens[-1] = last[: len(last) - len(held)]
        self._held = (held, style)
        self._tokens(tokens, style)
        if held in _SPACE:
            self._end_word()

    def _settle(self) -> None:
        (text, style), self._held = self._held, ("", "")
        if text:
            self._tokens([text], style)

    def _tokens(self, tokens: Iterable[str], style: str) -> None:
        for token in tokens:
            if not token:
                continue
            if token[0] in _SPACE:
                self._end_word()
                self._gap.append((token.replace("\t", _TAB), style))
            else:
                self._part_of_word(token, style)

    def _part_of_word(self, text: str, style: str) -> None:
        for unit in (text,) if text.isascii() else cells.clusters(text):
            if self._last and cells.may_break(self._last, unit[0]):
                self._end_word()
            self._last = unit[-1] if unit.isascii() else unit[0]
            self._grow(unit, style)

    def _grow(self, unit: str, style: str) -> None:
        if self._is_flowing:
            self._pour(unit, style)
            return
        self._word.append((unit, style))
        self._word_cells += cells.width(unit)
        if self._is_bare or not self._fits():
            self._release()
            self._is_flowing = True

    def _end_word(self) -> None:
        if self._word:
            self._release()
        self._is_flowing = False
        self._last = self._scheme = ""

    def _fits(self) -> bool:
        limit = self._limit()
        return self._column + self._gap_cells() + self._word_cells <= limit

    def _gap_cells(self) -> int:
        return sum(cells.width(text) for text, _ in self._gap)

    def _release(self) -> None:
        """Write the held word, on a new line where this one is full."""
        self._open()
        if not self._is_bare and not self._fits():
            self._close()
            self._gap.clear()
        if self._is_bare and self._column + self._gap_cells() >= self._limit():
            self._gap.clear()
        for text, style in self._gap:
            self._pour(text, style)
        self._gap.clear()
        word, self._word, self._word_cells = self._word, [], 0
        for text, style in word:
            self._pour(text, style)

    def _pour(self, text: str, style: str) -> None:
        """Write a part of a word, broken where the line ends."""
        self._open()
        while text:
            room = self._limit() - self._column
            if cells.width(text) <= room:
                self._put(text, style)
                return
            fitting = text[: max(room, 0)] if text.isascii() else ""
            if not self._breaks_urls and "://" in self._scheme + fitting:
                self._put(text, style)
                self._column = (self._column - 1) % self._limit() + 1
                return
            if not fitting and self._is_bare:
                fitting = text[:1] if text.isascii() else text
            self._put(fitting, style)
            text = text[len(fitting) :]
            if text:
                self._close()
                self._open()

    def _put(self, text: str, style: str) -> None:
        if not text:
            return
        if style != self._active:
            self._write((RESET if self._active else "") + (f"\033[{style}m" if style else ""))
            self._active = style
        self._write(text)
        self._column += cells.width(text)
        self._is_bare = False
        seen = self._scheme + text
        self._scheme = "://" if "://" in seen else seen[-2:]

    def _open(self) -> None:
        if not self._is_open:
            prefix = self._take_prefix()
            self._write(_painted(prefix))
            self._column = len(prefix)
            self._is_open = True

    def _close(self) -> None:
        if self._active:
            self._write(RESET)
            self._active = ""
        self._write("\n")
        self._column = 0
        self._is_open, self._is_bare = False, True

    def _take_prefix(self) -> str:
        prefix = self._rest if self._first is None else self._first
        self._first = None
        return self._clipped(prefix)

    def _clipped(self, prefix: str) -> str:
        """Deep nesting on a narrow terminal loses its outer indents, not the room for words."""
        most = self._limit() // 2
        return prefix[len(prefix) - most :] if len(prefix) > most else prefix

    def _limit(self) -> int:
        limit = max(self._width(), 1)
        if self._column > limit:
            # The window has shrunk, and the terminal has broken the line itself.
            self._column %= limit
        return limit


def _painted(prefix: str) -> str:
    return prefix.replace(BAR, sgr(BAR, DIM))
