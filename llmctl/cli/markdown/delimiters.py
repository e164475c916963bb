"""Finds where an inline span ends in text that may go on: emphasis, code, links.

Each search looks no further than a fixed number of characters, so that a stray marker neither stalls the
answer nor costs more the longer the text gets. None means "no span", PENDING "more text would tell".
"""

import enum
import re
from dataclasses import dataclass
from typing import Literal

MAX_EMPHASIS = 160
MAX_CODE = 240
MAX_LINK = 600


class Pending(enum.Enum):
    """What a search says when it depends on text that has not come."""

    PENDING = enum.auto()


PENDING: Literal[Pending.PENDING] = Pending.PENDING


@dataclass(frozen=True, slots=True)
class Text:
    """What has come of a paragraph; `is_whole` once nothing follows."""

    text: str
    is_whole: bool

    def is_final(self, limit: int) -> bool:
        """Whether the characters before `limit` are all there, and whatever follows cannot change them."""
        return self.is_whole or len(self.text) > limit

    def after(self, index: int) -> str:
        """The character at `index`; a newline stands behind the end."""
        return self.text[index] if index < len(self.text) else "\n"


@dataclass(frozen=True, slots=True)
class Emphasis:
    """The inside and the end of a span that `strength` markers close: 1 emphasis, 2 strong, 3 both."""

    start: int
    stop: int
    end: int
    strength: int


@dataclass(frozen=True, slots=True)
class Code:
    """The inside of a code span, and the index behind it."""

    content: str
    end: int


@dataclass(frozen=True, slots=True)
class Link:
    """The parts of a link or image, and the index behind it."""

    label: str
    url: str
    end: int


def opens(char: str, strength: int, before: str, after: str) -> bool:
    """Whether a run of `strength` markers between these two characters can begin a span."""
    if after.isspace() or strength > 3 or (char == "~" and strength != 2):
        return False
    if strength == 1 and after in ".,;:/)":
        return False
    # `5*4` and snake_case are no emphasis; many scripts know no spaces around it.
    return not before.isalnum() or (char == "*" and not before.isascii())


def _closes(char: str, before: str, after: str) -> bool:
    return not before.isspace() and not (char == "_" and after.isalnum())


def find_emphasis(source: Text, start: int, char: str, strength: int) -> Emphasis | Pending | None:
    """The end of a span whose opening run of `strength` times `char` ends before `start`."""
    limit = start + MAX_EMPHASIS
    marks = _MARKS[char]
    inside, index = start, start
    while match := marks.search(source.text, index, limit):
        index = match.end()
        if index == len(source.text) and not source.is_whole:
            return PENDING
        if match[0][0] == "`":
            code = find_code(source, index, len(match[0]))
            if code is PENDING:
                return PENDING
            index = code.end if isinstance(code, Code) else index
            continue
        before, after = source.text[match.start() - 1], source.after(index)
        if match[0][0] == "\\" or match.start() == inside or not _closes(char, before, after):
            continue
        length = len(match[0])
        if strength == 3 and length < 3:
            # `***a** b*` and `***a* b**`: an inner span ends, and the rest of the run opened an outer one.
            inside, strength = inside - length, 3 - length
        elif length in (strength, 3) and after != char:
            return Emphasis(inside, index - strength, index, strength)
    return None if source.is_final(limit) else PENDING


_MARKS = {char: re.compile(rf"\\.|`+|{re.escape(char)}+", re.DOTALL) for char in "*_~"}


def find_code(source: Text, start: int, length: int) -> Code | Pending | None:
    """The code span whose opening run of `length` backticks ends before `start`."""
    limit = start + MAX_CODE
    for match in _BACKTICKS.finditer(source.text, start, limit):
        if match.end() == len(source.text) and not source.is_whole:
            return PENDING
        if len(match[0]) == length and (match.end() < limit or source.after(limit) != "`"):
            content = source.text[start : match.start()].replace("\n", " ")
            if content.strip(" ") and content[0] == content[-1] == " ":
                content = content[1:-1]
            return Code(content, match.end())
    return None if source.is_final(limit) else PENDING


_BACKTICKS = re.compile("`+")


def find_link(source: Text, start: int) -> Link | Pending | None:
    """The link whose label begins at `start`, behind the bracket."""
    limit = start + MAX_LINK
    bracket = _find_bracket(source, start, limit)
    if not isinstance(bracket, int):
        return bracket
    if bracket + 1 == len(source.text) and not source.is_whole:
        return PENDING
    if source.after(bracket + 1) != "(":
        return None
    target = _TARGET.match(source.text, bracket + 1, limit)
    if target is not None:
        return Link(source.text[start:bracket], (target["url"] or "").strip("<>"), target.end())
    if source.is_final(limit) or not _TARGET_START.fullmatch(source.text, bracket + 1):
        return None
    return PENDING


def _find_bracket(source: Text, start: int, limit: int) -> int | Pending | None:
    """Where the label that begins at `start` ends; it may have brackets in it, but none in these."""
    end = _LABEL.match(source.text, start, limit).end()  # type: ignore[union-attr]  # it matches "" too
    if end < limit and source.text[end : end + 1] == "]":
        return end
    if source.is_final(limit) or not _LABEL_START.fullmatch(source.text, end):
        return None
    return PENDING


_PLAIN = r"(?:\\.|[^\[\]\\])*+"
_LABEL = re.compile(rf"(?:\\.|[^\[\]\\]|\[{_PLAIN}\])*+", re.DOTALL)
_LABEL_START = re.compile(rf"(?:\[{_PLAIN})?\\?", re.DOTALL)
_ESCAPED_OR_NESTED = r"\\[^\s]|\((?:\\[^\s]|[^\s()\\])*+\)"
_URL = rf"<[^<>\n]*+>|(?:{_ESCAPED_OR_NESTED}|[^\s()<\\])(?:{_ESCAPED_OR_NESTED}|[^\s()\\])*+"
_TARGET = re.compile(rf"""\([ ]*+(?P<url>{_URL})?(?:\s++(?:"[^"]*+"|'[^']*+'))?[ ]*+\)""")
# The start of what might become a target.
_TARGET_START = re.compile(
    r"""\([ ]*+(?:<[^<>\n]*+>?|(?:\\[^\s]?|\((?:\\[^\s]?|[^\s()\\])*+\)?|[^\s()\\])*+)"""
    r"""(?:\s++(?:"[^"]*+"?|'[^']*+'?)?[ ]*+)?"""
)
