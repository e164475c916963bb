"""Token ids into text, piece by piece: never half a character, a special token or a part of a stop string.

Plain Python over anything with a tokenizer's `decode`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CHARACTER_IDS = 4
"""A character is at most four tokens, of a byte each."""
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Vocabulary(Protocol):
    """What of a tokenizer the detokenizer needs."""

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the special tokens that have a role, such as BOS."""
        ...

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Tokens beside the trained ones by id; those that are `special` are not text."""
        ...

    def convert_ids_to_tokens(self, ids: int) -> str | None:
        """A token's own spelling, None for an id that has none."""
        ...

    def decode(self, ids: Sequence[int], *, clean_up_tokenization_spaces: bool) -> str:
        """The text of some ids."""
        ...


class Detokenizer:
    """The text of one growing sequence of ids; the pieces joined equal the decoding of the whole.

    Decodes only a window of the last two pieces, so a token costs the same at any length. The window must
    start where text is settled: behind a whole character, and never inside a run of sentencepiece byte
    tokens that still grows, because their decoder judges such a run as one.
    """

    def __init__(self, vocabulary: Vocabulary, *, after: Sequence[int] = ()) -> None:
        """`after`: ids that the text goes on from.

        Sentencepiece decoders drop the space before a text's first word; it is kept when the text goes on
        from another.
        """
        self._vocabulary = vocabulary
        added = vocabulary.added_tokens_decoder.items()
        self._skipped = {*vocabulary.all_special_ids, *(each for each, token in added if token.special)}
        self._ids = self._context(after)
        self._window_start = 0
        self._shown_end = len(self._ids)
        self._shown = self._decode(0, self._shown_end)
        """The text of `_ids[_window_start:_shown_end]`."""

    def push(self, token_id: int) -> str:
        """The text that this token settles, "" while it may still change."""
        if not self._is_text(token_id):
            return ""
        self._ids.append(token_id)
        if self._is_byte(token_id):
            return ""
        text, end = self._decode(self._window_start, len(self._ids)), len(self._ids)
        if text.endswith(REPLACEMENT):
            if end - self._shown_end <= CHARACTER_IDS:
                return ""
            text, end = self._settled(text)
        piece = text[len(self._shown) :]
        self._window_start, self._shown_end = self._shown_end, end
        self._shown = self._decode(self._window_start, end)
        return piece

    def finish(self) -> str:
        """What is left when no more tokens come, broken characters as U+FFFD."""
        text = self._decode(self._window_start, len(self._ids))
        piece = text[len(self._shown) :]
        self._window_start = self._shown_end = len(self._ids)
        self._shown = ""
        return piece

    def _settled(self, text: str) -> tuple[str, int]:
        """The part of a window's broken `text` that no further token changes, and where its ids end.

        One of the last boundaries lies between two characters; only there the halves add up to the whole.
        """
        end = len(self._ids)
        for cut in range(end - 1, end - 1 - CHARACTER_IDS, -1):
            head = self._decode(self._window_start, cut)
            if head + self._decode(cut, end) == text:
                return head, cut
        return self._shown, self._shown_end

    def _context(self, after: Sequence[int]) -> list[int]:
        """The last of `after` whose text stands by itself; one is enough to count as text before."""
        whole = (each for each in reversed(after) if self._is_text(each) and self._is_whole(each))
        return [each for each in (next(whole, None),) if each is not None]

    def _is_whole(self, token_id: int) -> bool:
        if self._is_byte(token_id):
            return False
        return REPLACEMENT not in self._vocabulary.decode([token_id], clean_up_tokenization_spaces=False)

    def _decode(self, start: int, end: int) -> str:
        return self._vocabulary.decode(self._ids[start:end], clean_up_tokenization_spaces=False)

    def _is_text(self, token_id: int) -> bool:
        # Models have more rows than tokenizers have tokens: such an id must not count as text before.
        return token_id not in self._skipped and self._vocabulary.convert_ids_to_tokens(token_id) is not None

    def _is_byte(self, token_id: int) -> bool:
        token = self._vocabulary.convert_ids_to_tokens(token_id)
        return token is not None and _BYTE_TOKEN.fullmatch(token) is not None


class StopStrings:
    """Passes text on up to the first stop string, holding back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.is_hit = False

    def push(self, piece: str) -> str:
        """The text that can be shown now; sets `is_hit` when a stop string is complete."""
        if self.is_hit:
            return ""
        text = self._held + piece
        # The first to be complete counts, so that it does not matter how the text is cut into pieces.
        hits = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if hits:
            self.is_hit, self._held = True, ""
            return text[: min(hits)[1]]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back, now that nothing can complete it."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
