"""Finds how much of a sequence lies in blocks already: names of full blocks, and the longest prefix served.

A block's name is a hash over the name of the one before, its tokens and the sequence's salt, so equal names
mean equal keys and values. Plain Python.
"""

import hashlib
from array import array
from collections.abc import Sequence as SequenceOf

from llmctl.engine.scheduling.blocks import BlockPool
from llmctl.engine.scheduling.policy import LayerPolicy, first_needed
from llmctl.engine.scheduling.sequence import Sequence

# Long enough that nobody finds two texts with one name, even on purpose.
_KEY_BYTES = 24


class PrefixCache:
    """The blocks of a pool under their names."""

    def __init__(self, pool: BlockPool, policies: SequenceOf[LayerPolicy], block_size: int) -> None:
        """`policies` of the groups in their order."""
        self._pool, self._policies, self._block_size = pool, policies, block_size

    def register(self, sequence: Sequence, first: int, stop: int) -> None:
        """Let its blocks from column `first` to `stop`, all computed, serve later sequences."""
        for column in range(first, stop):
            key = self._key(sequence, column)
            for group, table in enumerate(sequence.tables):
                if table[column] >= 0:
                    self._pool.register(group, table[column], key)

    def num_served(self, sequence: Sequence) -> int:
        """Leading blocks that need not be computed: every group has what tokens behind them see.

        At least one token is left over, for its logits are wanted.
        """
        served = (len(sequence.ids) - 1) // self._block_size
        before = -1
        while served != before:
            before = served
            for group, policy in enumerate(self._policies):
                served = self._served_by(group, policy, sequence, served)
        return served

    def columns(self, group: int, num_served: int) -> range:
        """Of those leading blocks the ones that tokens behind them see in the layers of `group`."""
        first = first_needed(self._policies[group], num_served * self._block_size)
        return range(first // self._block_size, num_served)

    def block(self, group: int, sequence: Sequence, column: int) -> int | None:
        """The block that holds what the sequence has in that column."""
        return self._pool.find(group, self._key(sequence, column))

    def _served_by(self, group: int, policy: LayerPolicy, sequence: Sequence, served: int) -> int:
        """The most leading blocks, up to `served`, that this group allows."""
        if policy.kind == "full":
            # Upwards, for on the first miss nothing further needs a name.
            columns = (each for each in range(served) if self.block(group, sequence, each) is None)
            return next(columns, served)
        while served:
            columns = (
                each
                for each in reversed(self.columns(group, served))
                if self.block(group, sequence, each) is None
            )
            missing = next(columns, None)
            if missing is None:
                return served
            # A shorter prefix that still has the missing block needs it as well: it reaches as far back.
            served = missing
        return 0

    def _key(self, sequence: Sequence, column: int) -> bytes:
        keys, size = sequence.keys, self._block_size
        while len(keys) <= column:
            before = keys[-1] if keys else _hash(repr(sequence.salt).encode())
            start = len(keys) * size
            keys.append(_hash(before + array("q", sequence.ids[start : start + size]).tobytes()))
        return keys[column]


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_KEY_BYTES).digest()
