"""Where an answer's text goes while it comes: markdown, safe text for a terminal, or the bytes for a pipe."""

from typing import Protocol

from llmctl.cli.console import Console


class TextStream(Protocol):
    """Takes an answer's text piece by piece."""

    def feed(self, text: str) -> None:
        """Show a piece."""
        ...

    def finish(self) -> None:
        """Settle what was shown and end its line, if there is one."""
        ...


def text_stream(console: Console, style: str) -> TextStream:
    """An answer's text on stdout; `style` is `rich` (markdown as it means) or `simple` (as it is written)."""
    if not console.shows_text:
        return _Unchanged(console)
    from llmctl.cli.markdown.stream import MarkdownStream, PlainStream

    kind = MarkdownStream if style == "rich" else PlainStream
    return kind(console.write, width=console.width, is_colored=console.has_stdout_color)


def reasoning_stream(console: Console) -> TextStream:
    """What a model says to itself, dim on stderr."""
    from llmctl.cli.markdown.stream import MarkdownStream

    def write(text: str) -> None:
        # A colour that runs over a line's end bleeds in scrollback and pagers.
        console.aside("\n".join(console.dim(line) for line in text.split("\n")))

    return MarkdownStream(write, width=console.width, is_colored=False)


class _Unchanged:
    """For programs: the text to the byte, and a newline at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = "\n"

    def feed(self, text: str) -> None:
        self._console.write(text)
        self._last = text[-1:] or self._last

    def finish(self) -> None:
        if self._last != "\n":
            self._console.line()
