"""Regular expressions by which a checkpoint names modules, matched in bounded time whoever wrote them."""

import re
import time

import regex

from llmctl.core.errors import BadFileError

_SECONDS = 1.0
_MAX_LENGTH, _MAX_GROUPS = 1000, 12
# `regex` gives up after a time while it matches, not while it compiles: these could make that take minutes,
# or mean something else than they do in `re`.
_REFUSED = re.compile(r"\)\{|\(\?(?!:|=|!|<=|<!|i\))|\{(?!\d*,?\d*\})")


class Pattern:
    """One expression, which has a second of this process for all names together."""

    def __init__(self, text: str, *, key: str, title: str) -> None:
        """`key` of the config of the format `title` holds it. Raises `BadFileError`."""
        self.text = text
        self._where = f"the quantization_config ({title}) has under {key} the expression {text[:100]!r}"
        self._seconds_left = _SECONDS
        if len(text) > _MAX_LENGTH or text.count("(") > _MAX_GROUPS or _REFUSED.search(text):
            raise self._refusal(
                f"and llmctl takes {_MAX_LENGTH} characters and {_MAX_GROUPS} groups at most, none of them "
                "counted or of a special kind"
            )
        try:
            self._compiled = regex.compile(text)
        except regex.error as error:
            raise self._refusal(f"which is no regular expression: {error}") from error

    def matches(self, module: str) -> bool:
        """Whether it matches at the start of a name. Raises `BadFileError` where that takes for ever."""
        started = time.process_time()
        try:
            found = self._compiled.match(module, timeout=self._seconds_left)
        except (TimeoutError, MemoryError) as error:
            raise self._refusal(f"which takes more than {_SECONDS:g} s to match names of modules") from error
        self._seconds_left = max(1e-3, self._seconds_left - (time.process_time() - started))
        return found is not None

    def _refusal(self, why: str) -> BadFileError:
        return BadFileError(
            f"{self._where}, {why}", hint="take another quantisation of this model, or its 16-bit checkpoint"
        )
