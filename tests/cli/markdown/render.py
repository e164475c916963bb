"""Runs markdown through the stream as a terminal would see it; as a script it writes the golden files anew.

After a change: `python -m tests.cli.markdown.render`, then read the difference.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from llmctl.cli.markdown.stream import MarkdownStream, PlainStream

GOLDEN = Path(__file__).parent / "golden"
LOOKS = [(width, is_colored) for width in (40, 80, 200) for is_colored in (False, True)]
SGR = re.compile(r"\033\[[0-9;]*m")


def render(
    text: str | Iterable[str], *, width: int = 80, color: bool = False, kind: type = MarkdownStream
) -> str:
    """All that is written for `text`, which comes whole or in these pieces."""
    out: list[str] = []
    stream: MarkdownStream | PlainStream = kind(out.append, width=lambda: width, is_colored=color)
    for piece in [text] if isinstance(text, str) else text:
        stream.feed(piece)
    stream.finish()
    return "".join(out)


def render_cut(text: str, *, width: int = 80, color: bool = False) -> str:
    """What is written for `text`, having seen that it is the same for pieces of one to three characters."""
    whole = render(text, width=width, color=color)
    for size in (1, 2, 3):
        assert render(pieces(text, size), width=width, color=color) == whole
    return whole


def pieces(text: str, size: int) -> list[str]:
    """`text` in pieces of `size` characters."""
    return [text[index : index + size] for index in range(0, len(text), size)]


def visible(output: str) -> str:
    """What is left without colours."""
    return SGR.sub("", output)


def shown(output: str) -> str:
    """Colours as a text file may hold them."""
    return output.replace("\033", "␛")


def golden_path(width: int, is_colored: bool) -> Path:
    """Where the rendering of `answer.md` for this look is kept."""
    return GOLDEN / f"answer.{width}.{'color' if is_colored else 'plain'}.txt"


def golden_rendering(width: int, is_colored: bool) -> str:
    """`answer.md` as it looks now."""
    text = (GOLDEN / "answer.md").read_text(encoding="utf-8")
    return shown(render(text, width=width, color=is_colored))


if __name__ == "__main__":
    for look in LOOKS:
        golden_path(*look).write_text(golden_rendering(*look), encoding="utf-8")
