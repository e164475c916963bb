"""Takes a JSON object apart, each value by its name and type; errors name what is missing or cannot be."""

import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from llmctl.core.errors import UsageError

MAX_COUNT = 1_000_000
"""Most of what is counted, where nothing else is said."""
MAX_NAMES = 100
MAX_LINE_CHARACTERS = 500
_LINE = f"one line of text, at most {MAX_LINE_CHARACTERS} characters"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_T = TypeVar("_T")


class Fields:
    """A JSON object whose values are taken by name and type; what has no default must be there."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where or 'the message'} must be a JSON object, not {shown(value)}")
        self._values, self._prefix = value, where and f"{where}."

    def text(self, name: str, default: str | None = None) -> str:
        """One line; empty only where that is the default."""
        value = self._get(name, default)
        if not is_line(value) and (default is None or value != default):
            raise self._wrong(name, _LINE, value)
        return str(value)

    def characters(self, name: str, default: str) -> str:
        """Any text."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "text", value)
        return value

    def texts(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of lines, without what stands in it twice."""
        value = self._get(name, default)
        if not isinstance(value, list | tuple) or len(value) > MAX_NAMES or not all(map(is_line, value)):
            raise self._wrong(name, f"a list of at most {MAX_NAMES} names", value)
        return tuple(dict.fromkeys(value))

    def identifier(self, name: str) -> str:
        """What can stand in a path."""
        value = self._get(name, None)
        if not isinstance(value, str) or not _ID.fullmatch(value):
            raise self._wrong(name, "at most 100 letters, digits, dots, dashes and underscores", value)
        return value

    def flag(self, name: str) -> bool:
        """True or false; left out, false."""
        value = self._get(name, False)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def count(self, name: str, default: int | None = None, *, least: int = 0, most: int = MAX_COUNT) -> int:
        """A whole number in a range."""
        value = self._get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._wrong(name, f"a whole number from {least} to {most}", value)
        return value

    def optional_count(self, name: str, *, most: int) -> int | None:
        """A whole number from 1, or null, which may be left out."""
        return None if self._values.get(name) is None else self.count(name, least=1, most=most)

    def number(self, name: str, default: float | None = None, *, most: float) -> float:
        """A number from 0 to `most`."""
        value = self._get(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # NaN is not in any range.
        if not is_number or not (0 <= value <= most or value == default):
            raise self._wrong(name, f"a number from 0 to {most:g}", value)
        return float(value)

    def objects(self, name: str, read: "Callable[[Fields], _T]", *, most: int) -> tuple[_T, ...]:
        """A list of objects, each read by `read`."""
        value = self._get(name, None)
        if not isinstance(value, list | tuple) or len(value) > most:
            raise self._wrong(name, f"a list of at most {most} objects", value)
        return tuple(read(Fields(each, f"{self._prefix}{name}[{index}]")) for index, each in enumerate(value))

    def refuse_others(self, *names: str) -> None:
        """Raise `UsageError` for a value that nobody will look at."""
        for name in self._values:
            if name not in names:
                raise UsageError(
                    f"{self._prefix}{shown(name)} is not a field", hint=f"there is {', '.join(names)}"
                )

    def _get(self, name: str, default: Any) -> Any:
        value = self._values.get(name, default)
        if value is None and name not in self._values:
            raise UsageError(f"{self._prefix}{name} is missing")
        return value

    def _wrong(self, name: str, expected: str, value: Any) -> UsageError:
        return UsageError(f"{self._prefix}{name} must be {expected}, not {shown(value)}")


def is_line(value: Any) -> bool:
    """Whether it is text that can be a name."""
    return isinstance(value, str) and 0 < len(value) <= MAX_LINE_CHARACTERS and value.isprintable()


def shown(value: Any) -> str:
    """A value for an error's line, however long or deep it is."""
    return reprlib.repr(value)
