"""Sequences that wait for their turn, by rank, and the one among them that came first. Plain Python."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from llmctl.engine.scheduling.sequence import Sequence

_BY_ARRIVAL = attrgetter("arrival")
_BY_RANK = attrgetter("rank")


class WaitingLine:
    """Changes cost a search in a sorted list; the rank of a sequence must not change while it is in here."""

    def __init__(self) -> None:
        self._by_rank: list[Sequence] = []
        self._by_arrival: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._by_rank)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._by_rank)

    @property
    def first(self) -> Sequence:
        """Whose turn it is."""
        return self._by_rank[0]

    @property
    def oldest(self) -> Sequence:
        """Who has come before all others."""
        return self._by_arrival[0]

    def add(self, sequence: Sequence) -> None:
        """Put a sequence where its rank belongs."""
        insort(self._by_rank, sequence, key=_BY_RANK)
        insort(self._by_arrival, sequence, key=_BY_ARRIVAL)

    def remove(self, sequence: Sequence) -> None:
        """Take out one that is in here."""
        _remove(self._by_rank, sequence, _BY_RANK)
        _remove(self._by_arrival, sequence, _BY_ARRIVAL)


def _remove(line: list[Sequence], sequence: Sequence, key: Callable[[Sequence], Any]) -> None:
    index = bisect_left(line, key(sequence), key=key)
    assert line[index] is sequence, f"{sequence.id} does not wait"
    del line[index]
