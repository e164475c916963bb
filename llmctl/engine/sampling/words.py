"""Bad words of a request in a tokenizer's tokens."""

from collections.abc import Iterable, Iterator
from typing import Any

from llmctl.core.errors import UsageError
from llmctl.engine.sampling.constraints import Word

# Something before the word that no token joins with it.
_ANCHOR = "\n"


def spellings(tokenizer: Any, words: Iterable[str]) -> tuple[Word, ...]:
    """The ids by which `tokenizer` writes each of `words` at the beginning, after a space and within a text.

    Other ways to cut a word into tokens are not found. Raises `UsageError` for a word without tokens.
    """
    found: dict[Word, None] = {}
    for word in words:
        ways = list(_ways(tokenizer, word))
        if not ways:
            raise UsageError(f"bad_words: {word!r} has no tokens in this model's tokenizer")
        found.update(dict.fromkeys(ways))
    return tuple(found)


def _ways(tokenizer: Any, word: str) -> Iterator[Word]:
    for text in dict.fromkeys((word, f" {word.lstrip()}")):
        if ids := _ids(tokenizer, text):
            yield ids
    anchor = _ids(tokenizer, _ANCHOR)
    anchored = _ids(tokenizer, _ANCHOR + word)
    if anchor and anchored[: len(anchor)] == anchor and len(anchored) > len(anchor):
        yield anchored[len(anchor) :]


def _ids(tokenizer: Any, text: str) -> Word:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"bad_words: {text!a} is not valid Unicode", hint="give text in UTF-8") from error
    return tuple(tokenizer.encode(text, add_special_tokens=False))
