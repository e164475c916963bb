"""What stored text looks like on a terminal: it cannot drive it, and columns line up whatever the script."""

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from llmctl.cli.console import Console, is_terminal

# C0 but tab and newline, DEL, C1, and the marks that reorder a line.
_DRIVING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MAX_CELLS = {"NAME": 24, "MODEL": 32}
"""On a terminal, what stands behind these columns is to be seen as well."""


def local_time(time_s: float) -> str:
    """Unix seconds as `2026-11-25 14:05`, local."""
    return f"{datetime.fromtimestamp(time_s):%Y-%m-%d %H:%M}"


def harmless(text: str) -> str:
    """`text` with control characters as escapes, where stdout is a terminal; unchanged elsewhere."""
    return _DRIVING.sub(_escape, text.replace("\r\n", "\n")) if is_terminal(sys.stdout) else text


def write_json(console: Console, value: Any) -> None:
    """A value on stdout as JSON; what could drive a terminal is escaped in the way of JSON."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    console.line(_DRIVING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def write_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns; on a terminal, lines that fit its width."""
    if is_terminal(sys.stdout):
        limits = [_MAX_CELLS.get(column) for column in columns]
        rows = [
            [_cut(harmless(cell), limit) for cell, limit in zip(row, limits, strict=True)] for row in rows
        ]
    widths = [max(map(_num_cells, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        padded = [cell + " " * (width - _num_cells(cell)) for cell, width in zip(row, widths, strict=True)]
        line = "  ".join(padded).rstrip()
        console.line(_cut(line, console.width() if is_terminal(sys.stdout) else None))


def write_entry(console: Console, facts: Sequence[str], text: str) -> None:
    """Facts on a line, and below it a text that may take several: for narrow terminals and long texts."""
    console.line(_cut(harmless("  ".join(facts)), console.width()))
    indent = "    "
    for line in _lines(harmless(text), max(console.width() - len(indent), 2)):
        console.line(indent + line)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def _lines(text: str, width: int) -> list[str]:
    """`text` broken between words, at most `width` cells a line."""
    from rich.console import Console as RichConsole
    from rich.text import Text

    return [line.plain.rstrip() for line in Text(text).wrap(RichConsole(width=width), width)]


def _num_cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, limit: int | None) -> str:
    """At most `limit` cells of `text`, the last being … when something is missing."""
    from rich.cells import set_cell_size

    if limit is None or _num_cells(text) <= limit:
        return text
    return set_cell_size(text, limit - 1).rstrip() + "…"
