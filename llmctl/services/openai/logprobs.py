"""Log-probabilities in the shapes of the protocol: chat's, the legacy one of completions, and a prompt's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl.core.types import Candidate, Delta, TokenLogprob
from llmctl.services.openai.calls import Echo

_LEAST = -9999.0
"""JSON has no infinity; the protocol says it so."""
_HALF = "\N{REPLACEMENT CHARACTER}"
_NEAR = 8
"""A token's own text may lack a space or two that it has inside of others."""


def chat_entries(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """As chat has them under `content`."""
    return [
        {**_entry(each.chosen), "top_logprobs": [_entry(candidate) for candidate in each.top]}
        for each in logprobs
    ]


def prompt_entries(logprobs: Sequence[TokenLogprob], count: int) -> list[dict[str, Any] | None]:
    """A prompt's: null for its first token, then `count` likeliest and the one that stands there, by id."""
    return [None, *(_ranked(each, count) for each in logprobs)]


@dataclass(slots=True)
class Legacy:
    """Parallel lists, one item a token."""

    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)
    """Where in the choice's text a token begins, in characters."""

    def add_prompt(self, echo: Echo, logprobs: Sequence[TokenLogprob], count: int) -> int:
        """A prompt that the text begins with; nothing tells how likely its first token was.

        Returns the characters of the text so far, as `add` does.
        """
        self.tokens.append(echo.first_token)
        self.token_logprobs.append(None)
        self.top_logprobs.append(None)
        for each in logprobs:
            self._add(each, count)
        self.text_offset += _offsets(echo.text, self.tokens)
        return len(echo.text)

    def add(self, delta: Delta, start: int, count: int) -> int:
        """Tokens of an answer, whose text so far has `start` characters."""
        place, end = start, start + len(delta.text)
        if len(delta.logprobs) == 1 and delta.text.endswith(token := delta.logprobs[0].chosen.token):
            # What was held back before it comes with it.
            place = end - len(token)
        for each in delta.logprobs:
            self._add(each, count)
            self.text_offset.append(place)
            place = min(place + len(each.chosen.token), end)
        return end

    def as_dict(self) -> dict[str, Any]:
        """The object `logprobs`."""
        return {
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        }

    def _add(self, one: TokenLogprob, count: int) -> None:
        self.tokens.append(one.chosen.token)
        self.token_logprobs.append(_finite(one.chosen))
        # Several tokens may have the same text; the likeliest and the chosen one count.
        likely = {each.token: _finite(each) for each in reversed(one.top[:count])}
        self.top_logprobs.append({one.chosen.token: _finite(one.chosen), **likely})


def _offsets(text: str, tokens: Sequence[str]) -> list[int]:
    """Where in `text` each of its tokens begins; one that is not found there takes no place."""
    found, place = [], 0
    for token in tokens:
        start = text.find(token, place, place + len(token) + _NEAR) if token else -1
        found.append(place if start < 0 else start)
        place = place if start < 0 else start + len(token)
    return found


def _entry(candidate: Candidate) -> dict[str, Any]:
    # A part of a character has no text that would tell its bytes.
    is_text = _HALF not in candidate.token
    told = list(candidate.token.encode("utf-8", "replace")) if is_text else None
    return {"token": candidate.token, "logprob": _finite(candidate), "bytes": told}


def _ranked(one: TokenLogprob, count: int) -> dict[str, Any]:
    ranked = {
        str(each.token_id): {"logprob": _finite(each), "rank": place, "decoded_token": each.token}
        for place, each in enumerate(one.top[:count], start=1)
    }
    chosen = one.chosen
    stands = {"logprob": _finite(chosen), "rank": _rank(one), "decoded_token": chosen.token}
    return {str(chosen.token_id): stands, **ranked}


def _rank(one: TokenLogprob) -> int | None:
    ids = [each.token_id for each in one.top]
    return ids.index(one.chosen.token_id) + 1 if one.chosen.token_id in ids else None


def _finite(candidate: Candidate) -> float:
    return max(candidate.logprob, _LEAST)
