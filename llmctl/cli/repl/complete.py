"""What Tab offers: commands, their parameters and values, models, sessions and paths. Plain Python."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from llmctl.core.places import expanded


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Something that can stand at the cursor."""

    text: str
    replaces: int
    """How many characters before the cursor it stands for."""
    meaning: str = ""
    display: str = ""


Source = Callable[[str], Iterable[tuple[str, str]]]
"""From the argument so far to (candidate, meaning), candidates that do not fit included."""


def complete(text: str, commands: Mapping[str, str], sources: Mapping[str, Source]) -> Iterator[Choice]:
    """The choices for a line that begins with a slash; `sources` complete the arguments of a command.

    `commands` are names to meanings, `text` is what stands before the cursor.
    """
    if not text.startswith("/") or "\n" in text:
        return
    name, gap, argument = text.partition(" ")
    if not gap:
        yield from _matching(name, commands.items())
    elif name in sources:
        word = argument if name in WHOLE_LINE else argument.rpartition(" ")[2]
        yield from _matching(word, sources[name](argument))


WHOLE_LINE = ("/load", "/save")
"""Their argument is one name, blanks included."""


def paths(argument: str) -> Iterator[tuple[str, str]]:
    """Files and folders that the last word may go on to."""
    typed = argument.rpartition(" ")[2]
    folder, slash, begun = typed.rpartition("/")
    folder += slash
    place = expanded(folder or ".")
    try:
        entries = sorted(place.iterdir())
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(".") or begun.startswith("."):
            yield folder + entry.name + ("/" if entry.is_dir() else ""), ""


def _matching(word: str, candidates: Iterable[tuple[str, str]]) -> Iterator[Choice]:
    for candidate, meaning in candidates:
        if candidate.lower().startswith(word.lower()) and candidate.isprintable():
            yield Choice(text=candidate, replaces=len(word), meaning=meaning)
