"""Shows an answer in the terminal while it arrives, as markdown or as it is; nothing written is redrawn.

`MarkdownStream` divides the text into lines and blocks. Words of paragraphs pass as they come; only a line
whose kind is open, a line of code, and a table wait. A line break in a paragraph stays: models mean it.
"""

import re
from collections.abc import Callable

from llmctl.cli.markdown.code import Fence
from llmctl.cli.markdown.controls import ControlFilter
from llmctl.cli.markdown.flow import BAR, DIM, Flow, sgr
from llmctl.cli.markdown.inline import BOLD, UNDERLINE, InlineText, RawInline, StyledInline
from llmctl.cli.markdown.starts import (
    MAX_HEAD,
    Container,
    Context,
    Item,
    Kind,
    Quote,
    Start,
    read_start,
)
from llmctl.cli.markdown.table import Table, read_alignments, split_row

_BULLETS = "•◦▪"
_MAYBE_DELIMITERS = re.compile(r"[ \t>]*+\|?[ \t:|-]*+")
_PREFIX_OF_ROW = re.compile(r"[ \t>]*+")


class PlainStream:
    """Text as it is, but for control characters, which are shown as escapes."""

    def __init__(self, write: Callable[[str], None], *, width: Callable[[], int], is_colored: bool) -> None:
        self._write = write
        self._controls = ControlFilter()
        self._is_at_start = True

    def feed(self, text: str) -> None:
        """A piece of the answer."""
        self._show(self._controls.feed(text))

    def finish(self) -> None:
        """The answer is over: end its last line."""
        self._show(self._controls.finish())
        if not self._is_at_start:
            self._show("\n")

    def _show(self, text: str) -> None:
        if text:
            self._write(text)
            self._is_at_start = text.endswith("\n")


class MarkdownStream:
    """Markdown as it means, wrapped at the terminal's width.

    Without colour the text keeps its markers, so that nothing is lost that only a style could show.
    `width` is asked at every line and wrap, so that a resized window counts at once.
    """

    def __init__(self, write: Callable[[str], None], *, width: Callable[[], int], is_colored: bool) -> None:
        self._write = write
        self._is_colored = is_colored
        self._controls = ControlFilter()
        self._out: list[str] = []
        self._flow = Flow(self._out.append, width=width)
        self._context = Context()
        self._line: list[str] = []
        """What has come of a line that waits."""
        self._inline: InlineText | None = None
        """Takes the text of an open paragraph or heading."""
        self._is_inside = False
        """Whether the present line passes on to `_inline` as it comes."""
        self._fence: Fence | None = None
        self._table: Table | None = None
        self._header: tuple[Start, str] | None = None
        """A line that is a table's header if the next one says so."""
        self._has_blank = False
        """Whether an empty line stands before whatever comes next."""
        self._has_begun = False

    def feed(self, text: str) -> None:
        """A piece of the answer."""
        self._take(self._controls.feed(text))
        self._flush()

    def finish(self) -> None:
        """The answer is over, or was stopped: show what still waits and end the line."""
        self._take(self._controls.finish())
        if self._line or self._is_inside:
            self._newline()
        self._release_header()
        self._end_block()
        self._fence, self._context, self._has_blank = None, Context(), False
        self._flush()

    def _flush(self) -> None:
        if self._out:
            text = "".join(self._out)
            self._out.clear()
            self._write(text)

    # From text to lines

    def _take(self, text: str) -> None:
        *lines, last = text.split("\n")
        for line in lines:
            self._piece(line)
            self._newline()
        self._piece(last)

    def _piece(self, text: str) -> None:
        """A part of a line."""
        if not text:
            return
        if self._is_inside and self._inline is not None:
            self._inline.feed(text)
        elif self._fence is not None:
            self._line.append(text)
        else:
            self._line.append(text)
            self._read_line(is_whole=False)

    def _newline(self) -> None:
        if self._is_inside and self._inline is not None:
            self._inline.feed("\n")
            self._end_line()
        elif self._fence is not None:
            line = "".join(self._line)
            self._line.clear()
            self._code_line(self._fence, line)
        else:
            self._read_line(is_whole=True)

    def _end_line(self) -> None:
        self._is_inside = False
        if not self._context.is_in_paragraph:
            self._end_block()

    def _read_line(self, *, is_whole: bool) -> None:
        """Begin what the waiting line begins, as soon as that can be told."""
        line = "".join(self._line)
        self._line[:] = [line]
        if self._header is not None and not self._is_header_settled(line, is_whole=is_whole):
            return
        start = read_start(line, self._context, is_whole=is_whole)
        if start is None:
            return
        self._line.clear()
        self._begin(start, line)
        if is_whole and self._is_inside:
            self._newline()

    # Blocks

    def _begin(self, start: Start, line: str) -> None:
        if start.kind is Kind.BLANK and not start.opens_containers:
            self._end_block()
            self._has_blank = self._has_begun
            self._context = Context(containers=start.containers)
        elif start.kind is Kind.ROW:
            self._row(start, line)
        elif self._goes_on(start):
            self._inside(line[start.offset :])
        else:
            self._end_block()
            self._enter(start)
            self._content(start, line)

    def _goes_on(self, start: Start) -> bool:
        is_same = start.containers == self._context.containers and not start.opens_containers
        return self._context.is_in_paragraph and is_same and start.kind is Kind.PARAGRAPH

    def _enter(self, start: Start) -> None:
        """Go into the containers of a new block, an empty line before it where there was one."""
        if start.kind is Kind.HEADING and not start.opens_containers:
            self._has_blank = self._has_begun
        kept = start.containers[: start.num_kept]
        if self._has_blank:
            self._flow.begin(self._prefix(kept), "")
            self._flow.line("")
        self._has_blank, self._has_begun = False, True
        first = self._prefix(kept) + self._prefix(start.containers, start.num_kept, is_first=True)
        self._flow.begin(first, self._prefix(start.containers))
        self._context = Context(containers=start.containers)

    def _prefix(self, containers: tuple[Container, ...], skip: int = 0, *, is_first: bool = False) -> str:
        """What stands before the text of a line in `containers`, those before `skip` left out."""
        parts = []
        for index, container in enumerate(containers):
            if index < skip:
                continue
            if isinstance(container, Quote):
                parts.append(f"{BAR if self._is_colored else '>'} ")
                continue
            marker = self._marker(container, containers[:index]) + " "
            parts.append(marker if is_first else " " * len(marker))
        return "".join(parts)

    def _marker(self, item: Item, outer: tuple[Container, ...]) -> str:
        if not self._is_colored or item.marker[0].isdigit():
            return item.marker
        depth = sum(isinstance(container, Item) for container in outer)
        return _BULLETS[min(depth, len(_BULLETS) - 1)]

    def _content(self, start: Start, line: str) -> None:
        text = line[start.offset :]
        if start.kind is Kind.PARAGRAPH:
            self._context = Context(containers=start.containers, is_in_paragraph=True)
            self._inline = self._new_inline("")
            self._inside(text)
        elif start.kind is Kind.HEADING:
            self._heading(text)
        elif start.kind is Kind.RULE:
            mark = "═" if text[0] == "=" else "─"
            self._flow.line(self._dim(mark * self._flow.room()))
        elif start.kind is Kind.FENCE:
            self._open_fence(start, text)
        elif start.kind is Kind.INDENTED:
            self._flow.line(" " * start.indent + text, has_prefix=False)
        else:
            self._flow.line("")

    def _heading(self, text: str) -> None:
        level = len(text) - len(text.lstrip("#"))
        style = f"{BOLD};{UNDERLINE}" if level == 1 else BOLD
        self._flow.text(text[:level] + " ", BOLD if self._is_colored else "")
        self._inline = self._new_inline(style)
        self._inside(text[level:].lstrip(" \t"))

    def _new_inline(self, style: str) -> InlineText:
        return StyledInline(self._flow.text, style) if self._is_colored else RawInline(self._flow.text)

    def _inside(self, text: str) -> None:
        self._is_inside = True
        if text and self._inline is not None:
            self._inline.feed(text)

    def _open_fence(self, start: Start, text: str) -> None:
        """A fence begins its line whatever it lies in; the marker of a list item comes on a line before."""
        if any(isinstance(container, Item) for container in start.containers[start.num_kept :]):
            self._flow.line("")
        self._flow.line(self._dim(text.rstrip()), has_prefix=False)
        num_quotes = sum(isinstance(container, Quote) for container in start.containers)
        self._fence = Fence(text, column=start.column, num_quotes=num_quotes, is_colored=self._is_colored)

    def _code_line(self, fence: Fence, line: str) -> None:
        content = fence.content(line)
        if content is None:
            self._fence = None
            self._line.append(line)
            self._read_line(is_whole=True)
        elif fence.is_closed_by(content):
            self._fence = None
            self._flow.line(self._dim(content.strip()), has_prefix=False)
        else:
            self._flow.line(fence.shown(content), has_prefix=False)

    def _end_block(self) -> None:
        """Settle the paragraph, heading or table that is open."""
        if self._inline is not None:
            self._inline.finish()
            self._inline = None
        self._flow.newline()
        if self._table is not None:
            self._write_rows(self._table.close())
            self._table = None
        self._context = Context(containers=self._context.containers)

    def _dim(self, text: str) -> str:
        return sgr(text, DIM) if self._is_colored else text

    # Tables

    def _row(self, start: Start, line: str) -> None:
        """A whole line that begins with a pipe."""
        is_same = start.containers == self._context.containers and not start.opens_containers
        if self._table is not None and is_same:
            self._write_rows(self._table.add(line[start.offset :]))
        else:
            self._header = (start, line)

    def _is_header_settled(self, line: str, *, is_whole: bool) -> bool:
        """Decide by the line after it what a possible header is; False while that must wait, or is done."""
        assert self._header is not None
        start, header = self._header
        if _MAYBE_DELIMITERS.fullmatch(line) and len(line) <= MAX_HEAD:
            if not is_whole:
                return False
            alignments = read_alignments(_PREFIX_OF_ROW.sub("", line, count=1))
            header = header[start.offset :]
            if alignments is not None and len(alignments) == len(split_row(header)):
                self._open_table(start, header, alignments)
                return False
        self._release_header()
        return True

    def _open_table(self, start: Start, header: str, alignments: list[str]) -> None:
        self._header = None
        self._line.clear()
        self._end_block()
        self._enter(start)
        self._table = Table(header, alignments, width=self._flow.room, is_colored=self._is_colored)

    def _release_header(self) -> None:
        """The line that might have been a header is a paragraph's."""
        if self._header is None:
            return
        (start, line), self._header = self._header, None
        text = line[start.offset :]
        if not (self._context.is_in_paragraph and not start.opens_containers):
            self._end_block()
            self._enter(start)
            self._context = Context(containers=start.containers, is_in_paragraph=True)
            self._inline = self._new_inline("")
        self._inside(text)
        self._newline()

    def _write_rows(self, lines: list[str]) -> None:
        for line in lines:
            self._flow.line(line)
