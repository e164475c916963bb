"""Which blocks of keys and values are free, in use or kept for later sequences. Plain Python.

All groups have one budget in bytes. A block that nobody refers to any more stays where it is while it has a
key, and goes when memory is needed, least recently used first. What lies in the blocks is the business of
`storage`, whose they are that of `tables`.
"""

import itertools
from collections.abc import Iterator, Sequence


class BlockPool:
    """Blocks of all policy groups, each group with its own numbers from 0 on. All operations are O(groups).

    Memory counts as taken from the first use of a number on, until `take_discarded` names it.
    """

    def __init__(
        self, block_bytes: Sequence[int], budget_bytes: int, max_blocks: Sequence[int] | None = None
    ) -> None:
        """`block_bytes` of one block in all layers of each group; `max_blocks` where numbers end sooner."""
        limits = max_blocks or [budget_bytes // max(1, each) for each in block_bytes]
        self.budget_bytes = budget_bytes
        self._spaces = [_Space(size, limit) for size, limit in zip(block_bytes, limits, strict=True)]
        self._ticks = itertools.count()
        self._taken_bytes = 0
        self._used_bytes = 0
        self._discarded: dict[tuple[int, int], None] = {}

    @property
    def max_blocks(self) -> list[int]:
        """For how many blocks of each group there must be room: no number is higher."""
        return [space.limit for space in self._spaces]

    @property
    def block_bytes(self) -> list[int]:
        """Of one block of each group."""
        return [space.block_bytes for space in self._spaces]

    @property
    def used_bytes(self) -> int:
        """Of blocks that somebody refers to."""
        return self._used_bytes

    @property
    def taken_bytes(self) -> int:
        """Of all numbers in use, kept, or free but used before."""
        return self._taken_bytes

    def num_used(self, group: int) -> int:
        """Blocks of the group that somebody refers to."""
        return self._spaces[group].num_used

    def num_kept(self, group: int) -> int:
        """Blocks of the group that only the prefix cache holds."""
        return len(self._spaces[group].kept)

    def num_references(self, group: int, block: int) -> int:
        """How many sequences have the block in their tables."""
        return self._spaces[group].references[block]

    def size_of(self, counts: Sequence[int]) -> int:
        """Bytes of so many blocks of each group."""
        return sum(count * space.block_bytes for count, space in zip(counts, self._spaces, strict=True))

    def can_hold(self, counts: Sequence[int]) -> bool:
        """Whether so many blocks of each group fit when there are no others."""
        return self.size_of(counts) <= self.budget_bytes and all(
            count <= space.limit for count, space in zip(counts, self._spaces, strict=True)
        )

    def can_allocate(self, counts: Sequence[int]) -> bool:
        """Whether so many blocks of each group can be had, kept ones given up."""
        return self._used_bytes + self.size_of(counts) <= self.budget_bytes and all(
            count + space.num_used <= space.limit for count, space in zip(counts, self._spaces, strict=True)
        )

    def allocate(self, group: int) -> int:
        """A block with one reference, which may hold anything. Only after `can_allocate`."""
        space = self._spaces[group]
        while not space.free and not self._can_grow(space):
            self._reclaim(space)
        if space.free:
            block = space.free.pop()
        else:
            block = space.grow()
            self._taken_bytes += space.block_bytes
            self._discarded.pop((group, block), None)
        self._use(space, block)
        return block

    def share(self, group: int, block: int) -> None:
        """Add a reference to a block that is in use or kept."""
        space = self._spaces[group]
        if space.references[block]:
            space.references[block] += 1
        else:
            del space.kept[block]
            self._use(space, block)

    def release(self, group: int, block: int) -> None:
        """Take a reference away; without any the block is kept if it has a key, else free."""
        space = self._spaces[group]
        assert space.references[block] > 0, f"block {block} of group {group} is released twice"
        space.references[block] -= 1
        if space.references[block]:
            return
        space.num_used -= 1
        self._used_bytes -= space.block_bytes
        if block in space.keys:
            space.kept[block] = next(self._ticks)
        else:
            space.free.append(block)

    def register(self, group: int, block: int, key: bytes) -> None:
        """Let a full block in use be found by `key`, unless another one is."""
        space = self._spaces[group]
        if key not in space.blocks:
            space.blocks[key] = block
            space.keys[block] = key

    def find(self, group: int, key: bytes) -> int | None:
        """The block registered under `key`, in use or kept."""
        return self._spaces[group].blocks.get(key)

    def take_discarded(self) -> list[tuple[int, int]]:
        """(group, block) whose memory now counts for other groups; asked again, only what came since.

        Storage that grows as it is written must give that memory back, after copies are made and before
        anything else is written. Where room for `max_blocks` fits the budget nothing is ever discarded.
        """
        found = list(self._discarded)
        self._discarded.clear()
        return found

    def _use(self, space: "_Space", block: int) -> None:
        space.references[block] = 1
        space.num_used += 1
        self._used_bytes += space.block_bytes

    def _can_grow(self, space: "_Space") -> bool:
        return space.has_numbers and self._taken_bytes + space.block_bytes <= self.budget_bytes

    def _reclaim(self, wanting: "_Space") -> None:
        """Go one step towards a block for `wanting`: memory that is free elsewhere, else what is kept."""
        if wanting.has_numbers:
            found = next(self._spaces_with_free(), None)
            if found is not None:
                group, space = found
                block = space.discard()
                self._taken_bytes -= space.block_bytes
                self._discarded[group, block] = None
                return
            space = min((each for each in self._spaces if each.kept), key=_Space.oldest_tick)
            space.evict()
        else:
            wanting.evict()

    def _spaces_with_free(self) -> Iterator[tuple[int, "_Space"]]:
        return ((group, space) for group, space in enumerate(self._spaces) if space.free)


class _Space:
    """The numbers of one group. Each is unused, in use, kept, or free."""

    def __init__(self, block_bytes: int, limit: int) -> None:
        self.block_bytes = block_bytes
        self.limit = limit
        self.num_used = 0
        self.references: list[int] = []
        """Of every number that was ever used."""
        self.free: list[int] = []
        """Used before; the last one released is the first to go, for it may still be in a CPU's cache."""
        self.unused: list[int] = []
        """Discarded ones; all numbers from `len(references)` on are unused too."""
        self.kept: dict[int, int] = {}
        """Without references but with a key: when each was last used, in that order."""
        self.keys: dict[int, bytes] = {}
        self.blocks: dict[bytes, int] = {}

    @property
    def has_numbers(self) -> bool:
        return bool(self.unused) or len(self.references) < self.limit

    def oldest_tick(self) -> int:
        return next(iter(self.kept.values()))

    def grow(self) -> int:
        if self.unused:
            return self.unused.pop()
        self.references.append(0)
        return len(self.references) - 1

    def discard(self) -> int:
        block = self.free.pop()
        self.unused.append(block)
        return block

    def evict(self) -> None:
        block = next(iter(self.kept))
        del self.kept[block]
        del self.blocks[self.keys.pop(block)]
        self.free.append(block)
