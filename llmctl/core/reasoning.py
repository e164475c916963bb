"""Tells what a model says to itself from what it answers, in text that comes in pieces.

Families that reason write `<think>…</think>` before the answer. Only a block that opens the answer counts:
further on, the tags are what the answer talks about.
"""

from dataclasses import dataclass

OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a piece of text turned out to be."""

    reasoning: str = ""
    text: str = ""


class ReasoningSplitter:
    """Splits one answer; pieces joined, it says the same however the answer is cut."""

    def __init__(self, *, is_open: bool = False) -> None:
        """`is_open`: whether the prompt itself has already opened the block, as some templates do."""
        self._held = ""
        self._is_inside = is_open
        self._is_settled = False
        """Whether the answer has begun, so that no tag counts any more."""
        self._has_content = False
        """Whether anything but white space came since the present part began."""

    def push(self, piece: str) -> Parts:
        """The parts of `piece` that are settled."""
        if self._is_settled:
            return Parts(text=self._answer(piece))
        self._held += piece
        return self._inside() if self._is_inside else self._before()

    def finish(self) -> Parts:
        """What was held back as the possible beginning of a tag."""
        held, self._held = self._held, ""
        return Parts(reasoning=held) if self._is_inside else Parts(text=held)

    def _before(self) -> Parts:
        start = self._held.lstrip()
        if start.startswith(OPEN):
            self._is_inside, self._held = True, start[len(OPEN) :]
            return self._inside()
        if OPEN.startswith(start):
            return Parts()
        self._is_settled, self._has_content = True, True
        text, self._held = self._held, ""
        return Parts(text=text)

    def _inside(self) -> Parts:
        reasoning, tag, rest = self._held.partition(CLOSE)
        if tag:
            self._is_inside, self._is_settled, self._has_content, self._held = False, True, False, ""
            return Parts(reasoning=reasoning, text=self._answer(rest))
        keep = next((n for n in range(len(CLOSE) - 1, 0, -1) if reasoning.endswith(CLOSE[:n])), 0)
        self._held = reasoning[len(reasoning) - keep :]
        return Parts(reasoning=reasoning[: len(reasoning) - keep])

    def _answer(self, piece: str) -> str:
        """The blank lines between the block and the answer belong to neither."""
        if not self._has_content:
            piece = piece.lstrip("\n")
            self._has_content = bool(piece)
        return piece
