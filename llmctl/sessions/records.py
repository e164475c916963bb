"""What the log keeps: sessions, and the turns in them. Plain frozen data.

Times are in unix seconds, durations in seconds, counts in tokens.
"""

import unicodedata
from dataclasses import dataclass

from llmctl.core.errors import UsageError
from llmctl.core.types import Role

MAX_NAME_CHARS = 80
MAX_TITLE_CHARS = 60
# Control characters, half characters, and what ends a line or paragraph.
_REFUSED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """A message that is to be kept."""

    role: Role
    content: str
    reasoning: str = ""
    """What the model said to itself before it answered."""
    model: str | None = None
    """Who wrote it (assistant) or was asked."""
    endpoint: str | None = None
    """URL of the server that answered; None for a model in the process."""
    finish_reason: str | None = None
    """`stop`, `length` or `cancelled`, of an answer."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(NewTurn):
    """A message of the log."""

    id: int
    """Grows with time; never given twice."""
    session_id: int
    created: float
    is_retracted: bool
    """Whether the user took it back: it is no more of the conversation, but can be looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation."""

    id: int
    """Never given twice."""
    name: str | None
    title: str
    """The first words of the user on one line, "" when there are none."""
    model: str | None
    """The last one used."""
    created: float
    updated: float
    num_turns: int
    """Without the retracted ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A turn that a search found."""

    session: Session
    turn: Turn
    snippet: str
    """One line around the match; the session's name where that is what matches."""


def title_of(content: str) -> str:
    """The beginning of a text on one line of at most `MAX_TITLE_CHARS` characters, cut between words."""
    # A title needs no more of an answer of megabytes.
    text = " ".join(content.lstrip()[: 10 * MAX_TITLE_CHARS].split())
    if len(text) <= MAX_TITLE_CHARS:
        return text
    kept = text[:MAX_TITLE_CHARS]
    # A language without blanks, or one long word, is cut where it is.
    words = kept[: kept.rfind(" ")] if " " in kept[MAX_TITLE_CHARS // 2 :] else kept[:-1]
    return f"{words}…"


def check_name(name: str) -> str:
    """`name`, if a session can be called that. Raises `UsageError`."""
    for is_bad, why in (
        (not name, "is empty"),
        (len(name) > MAX_NAME_CHARS, f"has {len(name)} characters, more than {MAX_NAME_CHARS}"),
        (name.isdecimal(), "has only digits, as the number of a session does"),
        (name.startswith("-"), "begins with -, as a flag does"),
        (name != name.strip(), "begins or ends with a blank"),
        (any(unicodedata.category(char) in _REFUSED_CATEGORIES for char in name), "has a control character"),
    ):
        if is_bad:
            raise UsageError(
                f"a session cannot be called {name[: MAX_NAME_CHARS + 1]!r}: the name {why}",
                hint=f"give 1 to {MAX_NAME_CHARS} characters, such as a word or two",
            )
    return name
