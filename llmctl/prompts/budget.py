"""What one rendering may cost in time and memory, so that a hostile template is stopped in any thread.

Units are characters; a place in a list counts as several. Limits grow with the input: long is not hostile.
"""

import time
from collections.abc import Iterator
from types import GeneratorType
from typing import Any, NoReturn

SECONDS = 2.0
"""Of this thread's processor time, for a short input."""
UNITS = 32_000_000
"""All text and lists that a rendering may make."""
LARGEST = 1_000_000
"""A single text or list."""
SLOT = 16
"""A place in a list that a template makes."""
_TICKS = 32
"""Steps between two looks at the clock."""
_EMPTY: dict[str, str] = {}
_VIEWS = (type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items()))
_ATOMS = frozenset((str, int, float, bool, type(None)))
_CONTAINERS = frozenset((list, tuple, dict, set, frozenset, *_VIEWS))


class TooCostlyError(Exception):
    """A template asks for more time or memory than any prompt needs."""


class Budget:
    """The account of one rendering; used by one thread."""

    __slots__ = ("_given", "_given_ids", "_is_measured", "_until", "_weights", "largest", "left", "ticks")

    def __init__(self, given: tuple[Any, ...] = ()) -> None:
        """`given`: lists of plain data, all that the template is given."""
        self.largest = LARGEST
        self.left = UNITS
        # Not the wall clock: on a busy machine an honest template may wait.
        self._until = time.thread_time() + SECONDS
        self.ticks = 0
        self._weights: dict[int, tuple[object, int]] = {}
        self._given = given
        self._given_ids: frozenset[int] | None = None
        self._is_measured = False

    def tick(self, units: int = 1) -> None:
        """Account for a step. It and all methods here raise `TooCostlyError` where a limit is passed."""
        self.left -= units
        self.ticks -= 1
        if self.left < 0 or self.ticks < 0:
            self.settle()

    def take(self, units: int) -> None:
        """Account for a text or list of this size, before it is made."""
        if units > self.largest:
            self._measure()
            if units > self.largest:
                self.refuse("a text or list", units, self.largest)
        # Large things took long.
        self.ticks -= units >> 12
        self.tick(units)

    def keep(self, value: Any) -> Any:
        """Account for what was made; what makes things one by one will be accounted for then."""
        kind = type(value)
        if isinstance(value, str):
            self.take(len(value))
        elif kind in _CONTAINERS:
            self.take(SLOT * len(value))
        elif kind is GeneratorType:
            return self._metered(value)
        return value

    def check(self, value: Any) -> None:
        """Make sure that `value` can be gone through to its ends.

        Lists of lists of the same list are small in memory and endless on paper, and when compared.
        """
        if type(value) in _ATOMS:
            return
        if self._given_ids is None:
            self._given_ids = frozenset(_ids(self._given))
        # What was given is no larger than the input, and would take as long to weigh as to write.
        if id(value) not in self._given_ids:
            self.weigh(value)

    def weigh(self, value: Any) -> int:
        """Units of `value` written out, all that it holds included, as often as it holds it."""
        if isinstance(value, str):
            return len(value)
        if type(value) not in _CONTAINERS and not isinstance(value, tuple):
            return 8
        known = self._weights.get(id(value))
        if known is not None:
            return known[1]
        self.tick(SLOT)
        parts = [*value, *value.values()] if type(value) is dict else value
        weight = 2
        for part in parts:
            weight += 2 + (len(part) if type(part) is str else self.weigh(part))
        if weight > self.largest:
            self._measure()
            if weight > self.largest:
                self.refuse("a structure", weight, self.largest)
        # The value is kept as well: a freed one would leave its id to another.
        self._weights[id(value)] = (value, weight)
        return weight

    def refuse(self, what: str, units: int | None = None, limit: int | None = None) -> NoReturn:
        """Raise `TooCostlyError` for it."""
        size = "" if units is None else f" of {_short(units)}"
        most = "" if limit is None else f", the limit is {_short(limit)}"
        raise TooCostlyError(f"it makes {what}{size}{most}")

    def _metered(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.tick()
            yield self.keep(value)

    def settle(self) -> None:
        """Look whether all that was taken is too much, and at the clock."""
        if self.left < 0:
            self._measure()
            if self.left < 0:
                raise TooCostlyError("it makes more text than any prompt needs")
        if time.thread_time() > self._until:
            self._measure()
            if time.thread_time() > self._until:
                raise TooCostlyError(f"it takes more than {SECONDS:g} seconds")
        self.ticks = _TICKS

    def _measure(self) -> None:
        """Raise the limits to the size of the input; not before one is met, because it takes time."""
        if self._is_measured:
            return
        self._is_measured = True
        size = len(repr(self._given))
        self.largest += 16 * size
        # A template that adds to one text in every turn copies it as often as there are turns.
        self.left += 256 * size
        self._until += size / 4_000_000


def _short(units: int) -> str:
    return f"{units:,}" if units < 10**15 else "very many"


def _ids(lists: tuple[Any, ...]) -> Iterator[int]:
    """Of given lists, what they hold, and what that holds."""
    for given in lists:
        yield id(given)
        for item in given:
            yield id(item)
            if isinstance(item, dict):
                yield from map(id, item.values())
