"""Reads the start of a line: which quotes and list items it lies in, and what kind of block it begins.

Works on as much of the line as has come, and says None while more of it could change the answer.
CommonMark, but forgiving where models are sloppy: nested items may be indented by too little or too much.
"""

import enum
import re
from dataclasses import dataclass

MAX_HEAD = 4000
"""What a line is cannot depend on more characters than this; a longer start is a paragraph."""
_MAX_DEPTH = 24
_TAB = 4
_CODE_INDENT = 4


class Kind(enum.Enum):
    """What a line is, apart from the containers around it."""

    BLANK = enum.auto()
    PARAGRAPH = enum.auto()
    HEADING = enum.auto()
    RULE = enum.auto()
    FENCE = enum.auto()
    INDENTED = enum.auto()
    """Code that four spaces mark."""
    ROW = enum.auto()
    """Begins with a pipe: of a table, if the lines around it say so."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A block quote."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a list; its columns count from the content of the quote that it lies in."""

    marker: str
    marker_column: int
    content_column: int

    @property
    def least_column(self) -> int:
        """Where a line must begin at least to belong to it."""
        return min(self.content_column, self.marker_column + 2)


Container = Quote | Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where the line before has left off."""

    containers: tuple[Container, ...] = ()
    is_in_paragraph: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a line begins."""

    kind: Kind
    containers: tuple[Container, ...]
    num_kept: int
    """How many of the containers were there before."""
    offset: int
    """Where the content begins, in characters of the line."""
    indent: int = 0
    """Columns of space before the content, behind the containers."""
    column: int = 0
    """Columns from the last quote's content to this one's."""

    @property
    def opens_containers(self) -> bool:
        """Whether the line has markers of its own."""
        return len(self.containers) > self.num_kept


def read_start(head: str, context: Context, *, is_whole: bool) -> Start | None:
    """How the line that begins with `head` starts; `is_whole` says that the line ends there."""
    is_too_long = len(head) > MAX_HEAD
    reader = _Reader(head[:MAX_HEAD], context, is_whole=is_whole and not is_too_long)
    try:
        return reader.read()
    except _UndecidedError:
        return reader.paragraph() if is_too_long else None


class _UndecidedError(Exception):
    """More of the line is needed."""


_RULE = re.compile(r"([-*_])[ \t]*+(?:\1[ \t]*+)*+")
_FENCE = re.compile(r"`{3,}+[^`]*+|~{3,}+.*+", re.DOTALL)
_NUMBER = re.compile(r"\d{1,9}(?!\d)")


class _Reader:
    def __init__(self, head: str, context: Context, *, is_whole: bool) -> None:
        self._head = head
        self._is_whole = is_whole
        self._context = context
        self._index = 0
        self._column = 0
        self._spare = 0
        """Columns of a tab that are not used up."""
        self._containers: list[Container] = []
        self._num_kept = 0

    def read(self) -> Start:
        self._match_containers()
        if self._char() == "\n":
            return self._start(Kind.BLANK)
        while len(self._containers) < _MAX_DEPTH and (self._quote() or self._item()):
            pass
        kind = self._kind()
        if kind is Kind.PARAGRAPH and self._is_continuation():
            self._containers = list(self._context.containers)
            self._num_kept = len(self._containers)
        return self._start(kind)

    def paragraph(self) -> Start:
        """What a line is that goes on for too long."""
        self._is_whole = True
        return self._start(Kind.PARAGRAPH)

    def _start(self, kind: Kind) -> Start:
        indent = self._indent() if kind is not Kind.BLANK else 0
        spaces = len(self._head) - self._index - len(self._head[self._index :].lstrip(" \t"))
        return Start(
            kind=kind,
            containers=tuple(self._containers),
            num_kept=self._num_kept,
            offset=self._index + spaces,
            indent=indent,
            column=self._column + indent,
        )

    def _match_containers(self) -> None:
        """Go past what continues the containers of the line before, as far as they go on."""
        for container in self._context.containers:
            if isinstance(container, Quote):
                if self._char() != ">":
                    break
                self._take_quote()
            elif self._char() != "\n":
                indent = self._indent()
                if self._column + indent < container.least_column:
                    break
                self._take(min(indent, max(container.content_column - self._column, 0)))
            self._containers.append(container)
        self._num_kept = len(self._containers)

    def _is_continuation(self) -> bool:
        """Whether a paragraph's line only goes on with the paragraph before, in whatever that lies."""
        return self._context.is_in_paragraph and len(self._containers) == self._num_kept

    def _quote(self) -> bool:
        if self._char() != ">" or self._is_code_indent():
            return False
        self._take_quote()
        self._containers.append(Quote())
        return True

    def _take_quote(self) -> None:
        self._take(self._indent())
        self._index += 1
        self._column = 0
        if self._index == len(self._head) and not self._is_whole:
            raise _UndecidedError
        if self._indent(is_bounded=True):
            self._take(1)
            self._column = 0

    def _item(self) -> bool:
        marker = self._marker()
        if not marker:
            return False
        self._take(self._indent())
        marker_column = self._column
        self._index += len(marker)
        is_empty = self._char() == "\n"
        spaces = self._indent()
        spaces = spaces if not is_empty and spaces <= _CODE_INDENT else 1
        self._column += len(marker)
        self._take(min(spaces, self._indent()))
        self._containers.append(Item(marker, marker_column, marker_column + len(marker) + spaces))
        return True

    def _marker(self) -> str:
        """The list marker that stands here, or ""."""
        char = self._char()
        if not (char in "-*+" or (char.isascii() and char.isdigit())) or self._is_code_indent():
            return ""
        rest = self._rest()
        if self._is_rule(rest):
            return ""
        marker = self._number(rest) if char.isdigit() else char
        behind = rest[len(marker) :]
        if not behind:
            self._need_more()
        is_empty = self._is_whole and not behind.strip()
        if behind[:1] not in ("", " ", "\t") or (is_empty and self._is_interrupting()):
            return ""
        return marker

    def _number(self, rest: str) -> str:
        number = _NUMBER.match(rest)
        if number is None:
            return ""
        if number.end() == len(rest):
            self._need_more()
        marker = rest[: number.end() + 1]
        return marker if marker[-1] in ".)" and self._may_number(marker) else ""

    def _may_number(self, marker: str) -> bool:
        """A paragraph's line that begins with "1986." is no list, unless it stands in one."""
        is_in_list = any(isinstance(container, Item) for container in self._context.containers)
        return not self._is_interrupting() or is_in_list or marker[:-1] == "1"

    def _kind(self) -> Kind:
        char = self._char()
        rest = self._rest()
        if char == "\n":
            return Kind.BLANK
        if self._is_code_indent() and not self._opened():
            return Kind.PARAGRAPH if self._context.is_in_paragraph else self._whole(Kind.INDENTED)
        if char == "#":
            return self._heading(rest)
        if char in "`~":
            return self._fence(rest)
        if char == "|":
            return self._whole(Kind.ROW)
        if self._is_rule(rest):
            return Kind.RULE
        return Kind.PARAGRAPH

    def _heading(self, rest: str) -> Kind:
        marks = len(rest) - len(rest.lstrip("#"))
        if not rest[marks:].strip():
            self._need_more()
        return Kind.HEADING if marks <= 6 and rest[marks : marks + 1] in ("", " ", "\t") else Kind.PARAGRAPH

    def _fence(self, rest: str) -> Kind:
        match = _FENCE.fullmatch(rest)
        if match is None:
            if not rest.strip(rest[0]) and len(rest) < 3:
                self._need_more()
            return Kind.PARAGRAPH
        return self._whole(Kind.FENCE)

    def _is_rule(self, rest: str) -> bool:
        """Three marks and nothing else, or the underline of a heading."""
        if rest[0] == "=" and self._is_interrupting() and not rest.rstrip().strip("="):
            self._need_more()
            return len(rest.rstrip()) >= 3
        match = _RULE.fullmatch(rest)
        if match is None:
            return False
        self._need_more()
        return rest.count(match[1]) >= 3

    def _whole(self, kind: Kind) -> Kind:
        self._need_more()
        return kind

    def _need_more(self) -> None:
        if not self._is_whole:
            raise _UndecidedError

    def _opened(self) -> bool:
        return len(self._containers) > self._num_kept

    def _is_interrupting(self) -> bool:
        """Whether a block that begins here would end a paragraph at the same depth."""
        is_same_depth = len(self._containers) == len(self._context.containers) and not self._opened()
        return self._context.is_in_paragraph and is_same_depth

    def _is_code_indent(self) -> bool:
        """Whether the indent is that of code; in a list it is more likely a nested item's."""
        if self._indent() < _CODE_INDENT:
            return False
        is_marker = self._char() in "-*+>" or self._char().isdigit()
        return not (is_marker and any(isinstance(container, Item) for container in self._context.containers))

    def _rest(self) -> str:
        return self._head[self._index :].lstrip(" \t")

    def _char(self) -> str:
        """The first character that is no space; a newline at the line's end."""
        rest = self._rest()
        if not rest:
            self._need_more()
        return rest[:1] or "\n"

    def _indent(self, *, is_bounded: bool = False) -> int:
        """Columns of space here; all of them have come unless the caller looks at the first only."""
        columns = self._spare
        for char in self._head[self._index :]:
            if char not in " \t":
                return columns
            columns += _TAB if char == "\t" else 1
        if not is_bounded:
            self._need_more()
        return columns

    def _take(self, columns: int) -> None:
        """Go past `columns` of space."""
        self._column += columns
        while columns > self._spare:
            self._spare += _TAB if self._head[self._index] == "\t" else 1
            self._index += 1
        self._spare -= columns
