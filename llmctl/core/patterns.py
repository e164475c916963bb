"""Regular expressions by which a checkpoint or an adapter names modules, matched in bounded time."""

import re
import time
import warnings

import regex

from llmctl.core.errors import BadFileError

_SECONDS = 1.0
_MAX_LENGTH, _MAX_GROUPS = 1000, 12
# `regex` gives up after a time while it matches, not while it compiles: these could make that take minutes,
# or mean something else than they do in `re`.
_REFUSED = re.compile(r"\)\{|\(\?(?!:|=|!|<=|<!|i\))|\{(?!\d*,?\d*\})")
_ESCAPED = re.compile(r"\\.", re.DOTALL)
# Classes of POSIX within brackets are such to `regex` alone.
_POSIX = re.compile(r"\[\^?\]?[^\]]*\[[:.=]")


class Pattern:
    """One expression, which has a second of this process for all names together.

    Every method raises `BadFileError` where that takes longer.
    """

    def __init__(self, text: str, *, where: str, hint: str, form: str = "{}") -> None:
        """`where` says who has it under which key; what is matched is `form` with `text` in it.

        Raises `BadFileError`, with `hint`, for what is no expression or could take for ever to compile.
        """
        self.text = text
        self._where, self._hint = f"{where} the expression {text[:100]!r}", hint
        self._seconds_left = _SECONDS
        if len(text) > _MAX_LENGTH or text.count("(") > _MAX_GROUPS or _REFUSED.search(text):
            raise self._refusal(
                f"and llmctl takes {_MAX_LENGTH} characters and {_MAX_GROUPS} groups at most, none of them "
                "counted or of a special kind"
            )
        if _POSIX.search(_ESCAPED.sub("", text)):
            raise self._refusal("which has [:, [. or [= within brackets: llmctl takes no classes of POSIX")
        try:
            # Alone first: it must not be right only by what stands around it.
            for each in (text, form.format(text)):
                _check(each)
                self._compiled = regex.compile(each)
        except (re.error, OverflowError, regex.error) as error:
            raise self._refusal(f"which is no regular expression: {error}") from error

    def matches(self, name: str) -> bool:
        """Whether it matches the whole name."""
        return self._timed(name, is_whole=True) is not None

    def matches_start(self, name: str) -> bool:
        """Whether it matches at the start of the name."""
        return self._timed(name, is_whole=False) is not None

    def number(self, name: str) -> int | None:
        """What its group `idx` found at the start of the name; None where it does not match."""
        found = self._timed(name, is_whole=False)
        return int(found["idx"]) if found is not None else None

    def _timed(self, name: str, *, is_whole: bool) -> "regex.Match[str] | None":
        started = time.process_time()
        match = self._compiled.fullmatch if is_whole else self._compiled.match
        try:
            found = match(name, timeout=self._seconds_left)
        except (TimeoutError, MemoryError) as error:
            raise self._refusal(f"which takes more than {_SECONDS:g} s to match names of modules") from error
        self._seconds_left = max(1e-3, self._seconds_left - (time.process_time() - started))
        return found

    def _refusal(self, why: str) -> BadFileError:
        return BadFileError(f"{self._where}, {why}", hint=self._hint)


def _check(text: str) -> None:
    """Raise what `re` raises: it is the judge of what is an expression, `regex` takes more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        re.compile(text)
