"""A table: held until its columns are known, then drawn with box characters as wide as there is room for."""

import re
from collections.abc import Callable

from llmctl.cli.markdown import cells
from llmctl.cli.markdown.flow import BAR, DIM, Flow, sgr
from llmctl.cli.markdown.inline import BOLD, InlineText, RawInline, StyledInline

MAX_HELD = 100
"""Rows after which the columns are fixed."""
_MIN_COLUMN = 5
# Cells that columns get beyond their need where more rows come: numbers grow.
_SLACK = 2
# A column is not kept wide for the sake of a word longer than this.
_LONG_WORD = 16
_CELLS = re.compile(r"\\.|`+[^`]+`+|\|", re.DOTALL)
_DELIMITERS = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_SGR = re.compile(r"\033\[[0-9;]*m")


def split_row(line: str) -> list[str]:
    """The cells of a table's line; a pipe that is escaped or in code does not divide."""
    line = line.strip().removeprefix("|")
    found, start = [], 0
    for match in _CELLS.finditer(line):
        if match[0] == "|":
            found.append(line[start : match.start()])
            start = match.end()
    if line[start:].strip():
        found.append(line[start:])
    return [cell.strip().replace("\\|", "|") for cell in found]


def read_alignments(line: str) -> list[str] | None:
    """`<`, `>` or `^` for each column of a line of dashes; None for any other line."""
    line = line.strip()
    if "-" not in line or not _DELIMITERS.fullmatch(line):
        return None
    marks = [(cell[0] == ":", cell[-1] == ":") for cell in split_row(line)]
    return [{(True, True): "^", (False, True): ">"}.get(mark, "<") for mark in marks]


class Table:
    """Takes rows, gives lines to be written; `width` is the room they have."""

    def __init__(
        self, header: str, alignments: list[str], *, width: Callable[[], int], is_colored: bool
    ) -> None:
        self._header = split_row(header)
        self._alignments = alignments
        self._width = width
        self._is_colored = is_colored
        self._held: list[list[str]] = []
        self._layout: _Grid | _Stack | None = None

    def add(self, line: str) -> list[str]:
        """A row; the lines that can be written by now."""
        row = self._fitted(split_row(line))
        if self._layout is not None:
            return self._layout.row(row)
        self._held.append(row)
        return self._lay_out(slack=_SLACK) if len(self._held) >= MAX_HELD else []

    def close(self) -> list[str]:
        """The table is over; the lines that are left."""
        lines = self._lay_out() if self._layout is None else []
        assert self._layout is not None
        return lines + self._layout.end()

    def _fitted(self, row: list[str]) -> list[str]:
        """As many cells as the header has; those that are too many stay in the last one."""
        count = len(self._header)
        if len(row) > count:
            row = [*row[: count - 1], " | ".join(row[count - 1 :])]
        return row + [""] * (count - len(row))

    def _lay_out(self, *, slack: int = 0) -> list[str]:
        room = self._width()
        inside = room - 3 * len(self._header) - 1
        widths = _column_widths([self._header, *self._held], inside, self._is_colored)
        if widths is not None:
            slack = min(slack, (inside - sum(widths)) // len(widths))
            widths = [width + slack for width in widths]
        if widths is None:
            self._layout = _Stack(self._header, room, self._is_colored)
        else:
            self._layout = _Grid(widths, self._alignments, self._is_colored)
        return self._layout.begin(self._header, self._held)


class _Grid:
    def __init__(self, widths: list[int], alignments: list[str], is_colored: bool) -> None:
        self._widths = widths
        self._alignments = alignments
        self._is_colored = is_colored
        self._is_spaced = False
        """Whether a rule divides the rows: they would run together where cells have several lines."""
        self._num_rows = 0

    def begin(self, header: list[str], rows: list[list[str]]) -> list[str]:
        drawn = [self._cells(row) for row in rows]
        self._is_spaced = any(len(cell) > 1 for row in drawn for cell in row)
        lines = [self._rule("┌┬┐"), *self._lines(self._cells(header, BOLD))]
        return lines + [line for row in drawn for line in self._row(row)]

    def row(self, row: list[str]) -> list[str]:
        return self._row(self._cells(row))

    def end(self) -> list[str]:
        return [self._rule("├┼┤")] * (not self._num_rows) + [self._rule("└┴┘")]

    def _row(self, drawn: list[list[str]]) -> list[str]:
        has_rule = self._is_spaced or not self._num_rows
        self._num_rows += 1
        return [self._rule("├┼┤")] * has_rule + self._lines(drawn)

    def _cells(self, row: list[str], style: str = "") -> list[list[str]]:
        return [
            draw_cell(cell, width, style=style, is_colored=self._is_colored)
            for cell, width in zip(row, self._widths, strict=True)
        ]

    def _lines(self, drawn: list[list[str]]) -> list[str]:
        height = max(1, *map(len, drawn))
        columns = [
            [_aligned(line, width, alignment) for line in cell + [""] * (height - len(cell))]
            for cell, width, alignment in zip(drawn, self._widths, self._alignments, strict=True)
        ]
        bar = self._dim(BAR)
        return [f"{bar} {f' {bar} '.join(line)} {bar}" for line in zip(*columns, strict=True)]

    def _rule(self, corners: str) -> str:
        lines = corners[1].join("─" * (width + 2) for width in self._widths)
        return self._dim(corners[0] + lines + corners[2])

    def _dim(self, text: str) -> str:
        return sgr(text, DIM) if self._is_colored else text


class _Stack:
    """A line "header: value" for each cell, where columns would be too narrow to read."""

    def __init__(self, header: list[str], room: int, is_colored: bool) -> None:
        self._header = header
        self._room = room
        self._is_colored = is_colored
        self._num_rows = 0

    def begin(self, header: list[str], rows: list[list[str]]) -> list[str]:
        if rows:
            return [line for row in rows for line in self.row(row)]
        return [line for name in header for line in self._cell(name, "")]

    def row(self, row: list[str]) -> list[str]:
        lines = [""] * bool(self._num_rows)
        self._num_rows += 1
        for name, value in zip(self._header, row, strict=True):
            lines += self._cell(name, value)
        return lines

    def end(self) -> list[str]:
        return []

    def _cell(self, name: str, value: str) -> list[str]:
        out: list[str] = []
        flow = Flow(out.append, width=lambda: self._room, breaks_urls=True)
        flow.begin("", "  ")
        if name:
            _inline(flow, name, BOLD, is_colored=self._is_colored)
            flow.text(": ", BOLD if self._is_colored else "")
        _inline(flow, value, "", is_colored=self._is_colored)
        flow.newline()
        return "".join(out).split("\n")[:-1]


def draw_cell(text: str, width: int, *, style: str = "", is_colored: bool) -> list[str]:
    """The lines of a cell, none wider than `width` cells, with styles that end in each line."""
    out: list[str] = []
    flow = Flow(out.append, width=lambda: width, breaks_urls=True)
    _inline(flow, text, style, is_colored=is_colored)
    flow.newline()
    return "".join(out).split("\n")[:-1]


def _inline(flow: Flow, text: str, style: str, *, is_colored: bool) -> None:
    inline: InlineText = StyledInline(flow.text, style) if is_colored else RawInline(flow.text)
    inline.feed(_BREAK.sub("\n", text))
    inline.finish()


def _aligned(line: str, width: int, alignment: str) -> str:
    space = max(width - _visible_width(line), 0)
    left = {"<": 0, ">": space, "^": space // 2}[alignment]
    return " " * left + line + " " * (space - left)


def _visible_width(line: str) -> int:
    return cells.width(_SGR.sub("", line))


def _column_widths(rows: list[list[str]], room: int, is_colored: bool) -> list[int] | None:
    """Cells for each column, together at most `room`; None when that is too narrow to read."""
    natural, words = [], []
    for column in zip(*rows, strict=True):
        lines = [
            _SGR.sub("", line) for cell in column for line in draw_cell(cell, 1 << 30, is_colored=is_colored)
        ]
        natural.append(max(map(cells.width, lines), default=1) or 1)
        words.append(max((cells.width(word) for line in lines for word in line.split()), default=1))
    if sum(natural) <= room:
        return natural
    least = [min(width, _MIN_COLUMN) for width in natural]
    whole_words = [max(min(word, _LONG_WORD), few) for word, few in zip(words, least, strict=True)]
    for start in (whole_words, least):
        if sum(start) <= room:
            return _widened(start, natural, room)
    return None


def _widened(widths: list[int], natural: list[int], room: int) -> list[int]:
    """The columns that are cut the most get what is left, cell by cell."""
    widths = list(widths)
    for _ in range(room - sum(widths)):
        narrowest = min(
            (index for index, width in enumerate(widths) if width < natural[index]), key=widths.__getitem__
        )
        widths[narrowest] += 1
    return widths
