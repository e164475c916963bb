"""A TOML table that is read key by key: wrong types and leftover keys are errors that name file and row."""

from collections.abc import Mapping
from typing import Any

from llmctl.core.errors import BadFileError

Scalar = str | int | float | bool


class Table:
    """One table of a file. Every key is taken at most once; `close` complains about what nobody took."""

    def __init__(self, values: Mapping[str, Any], *, where: str, path: str = "") -> None:
        """`where` is the file and row for messages, `path` this table's place in the row ("match.")."""
        self._values = dict(values)
        self._known: list[str] = []
        self._where = where
        self._path = path

    def text(self, key: str, default: str | None = None, *, choices: tuple[str, ...] = ()) -> str:
        """A string; without `default` it must be there. Raises `BadFileError`, as all readers here do."""
        value = self._take(key, default)
        if value is None:
            raise self.error(key, "is missing")
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, f"must be a string that is not empty, not {value!r}")
        if choices and value not in choices:
            raise self.error(key, f"must be one of {', '.join(choices)}, not {value!r}")
        return value

    def optional(self, key: str) -> str:
        """A string, "" when the key is absent."""
        return self.text(key) if key in self._values else self._absent(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty when the key is absent."""
        value = self._take(key, [])
        if not is_texts(value):
            raise self.error(key, f"must be a list of strings that are not empty, not {value!r}")
        return tuple(value)

    def ids(self, key: str) -> tuple[int, ...]:
        """A list of token ids, empty when the key is absent."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
            raise self.error(key, f"must be a list of whole numbers from 0, not {value!r}")
        return tuple(value)

    def flag(self, key: str) -> bool:
        """true or false, false when the key is absent."""
        value = self._take(key, False)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def table(self, key: str) -> "Table":
        """A table below this one, empty when the key is absent."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            raise self.error(key, f"must be a table, not {value!r}")
        return Table(value, where=self._where, path=f"{self._path}{key}.")

    def literals(self, key: str) -> tuple[tuple[str, ...], ...]:
        """A list whose entries are a string or a list of strings; each entry comes as a tuple."""
        value = self._take(key, [])
        if not isinstance(value, list):
            raise self.error(key, f"must be a list, not {value!r}")
        entries = [[entry] if isinstance(entry, str) else entry for entry in value]
        if not all(entry and is_texts(entry) for entry in entries):
            raise self.error(key, f"must hold strings and lists of strings, not {value!r}")
        return tuple(map(tuple, entries))

    def rest(self) -> dict[str, Any]:
        """All that was not taken, unchecked; the table is closed by it."""
        values, self._values = self._values, {}
        return values

    def close(self) -> None:
        """Raise `BadFileError` when a key is left that nobody took."""
        for key in self._values:
            raise self.error(key, "is not known here", hint=f"known: {', '.join(self._known)}")

    def error(self, key: str, problem: str, *, hint: str | None = None) -> BadFileError:
        """The error about a key of this table."""
        return BadFileError(f"{self._where}: {self._path}{key} {problem}", hint=hint)

    def _absent(self, key: str) -> str:
        self._known.append(key)
        return ""

    def _take(self, key: str, default: Any) -> Any:
        self._known.append(key)
        return self._values.pop(key, default)


def is_texts(value: Any) -> bool:
    """Whether it is a list of strings that are not empty."""
    return isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value)
