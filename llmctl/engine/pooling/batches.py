"""Which inputs run together: batches under a budget of tokens, as alike in length as can be. Plain Python."""

from collections.abc import Callable, Sequence

Plan = Callable[[Sequence[int], int], list[list[int]]]
"""From lengths and a budget to batches of indices, those of the longest first."""


def packed(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Batches whose lengths add up to at most `budget`; an index that is longer has its own."""
    return _filled(lengths, budget, lambda batch, length: sum(batch) + length)


def padded(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of at most `budget` tokens when all are made as long as the longest."""
    return _filled(lengths, budget, lambda batch, length: (len(batch) + 1) * max(batch, default=length))


def equal(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of one length each, of at most `budget` tokens."""
    return [
        [same[index] for index in batch]
        for length in sorted(set(lengths), reverse=True)
        for same in [[index for index, each in enumerate(lengths) if each == length]]
        for batch in packed([length] * len(same), budget)
    ]


def single(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Each alone."""
    del budget
    return [[index] for index in range(len(lengths))]


def _filled(
    lengths: Sequence[int], budget: int, cost: Callable[[Sequence[int], int], int]
) -> list[list[int]]:
    """Fill batches one after another, the longest first; `cost` is what a batch has with one more in it."""
    batches: list[list[int]] = []
    sizes: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        length = lengths[index]
        if not batches or cost(sizes, length) > budget:
            batches.append([])
            sizes = []
        batches[-1].append(index)
        sizes.append(length)
    return batches
