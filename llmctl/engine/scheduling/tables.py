"""Keeps the block tables of sequences: longer before a step, freed behind windows and chunks after it.

Who may have blocks, and when, is the business of `scheduler`. Plain Python.
"""

from collections.abc import Sequence as SequenceOf
from typing import NamedTuple

from llmctl.engine.scheduling.blocks import BlockPool
from llmctl.engine.scheduling.limits import Limits
from llmctl.engine.scheduling.policy import LayerPolicy, first_needed, most_blocks
from llmctl.engine.scheduling.prefix import PrefixCache
from llmctl.engine.scheduling.sequence import Sequence


class Copy(NamedTuple):
    """A block whose keys and values must be in another one before a step writes."""

    group: int
    source: int
    target: int


class Tables:
    """Block tables over one pool. The tables of a sequence all have one length in blocks.

    Costs grow with the tokens that are new, not with those that a sequence has.
    """

    def __init__(self, pool: BlockPool, policies: SequenceOf[LayerPolicy], limits: Limits) -> None:
        """`policies` of the pool's groups in their order."""
        self.pool = pool
        self._policies, self._limits = policies, limits
        self._block_size = limits.block_size
        has_prefixes = limits.shares_prefixes and len(policies) > 0
        self._prefixes = PrefixCache(pool, policies, limits.block_size) if has_prefixes else None

    def most_blocks(self, num_tokens: int) -> list[int]:
        """Blocks of each group that a sequence holds at most until it has so many tokens computed."""
        step = num_tokens if self._limits.whole_prefill else self._limits.max_step_tokens
        return [most_blocks(policy, num_tokens, step, self._block_size) for policy in self._policies]

    def num_held(self, sequence: Sequence) -> list[int]:
        """Blocks of each group in the tables of the sequence."""
        pairs = zip(sequence.tables, sequence.num_freed, strict=True)
        return [len(table) - freed for table, freed in pairs]

    def num_missing(self, sequence: Sequence, stop: int) -> list[int] | None:
        """Blocks of each group to allocate before tokens up to `stop` are computed; None: none at all."""
        num_blocks = -(-stop // self._block_size)
        # The first group speaks for all; without groups nothing is ever missing.
        missing = num_blocks - len(sequence.tables[0]) if sequence.tables else 0
        if not sequence.shares_tail:
            return [missing] * len(self._policies) if missing > 0 else None
        shared = [self._is_tail_shared(sequence, group) for group in range(len(self._policies))]
        return [missing + each for each in shared]

    def extend(self, sequence: Sequence, stop: int) -> list[Copy]:
        """Make room for tokens up to `stop`; a shared block that they would be written to is copied.

        Only after `can_allocate` of what `num_missing` says.
        """
        copies = self._unshare_tail(sequence) if sequence.shares_tail else []
        num_blocks = -(-stop // self._block_size)
        for group, table in enumerate(sequence.tables):
            while len(table) < num_blocks:
                table.append(self.pool.allocate(group))
        return copies

    def advance(self, sequence: Sequence, stop: int) -> None:
        """Tokens up to `stop` are computed: name the blocks that are now full, free those no longer seen."""
        first, sequence.num_computed = sequence.num_computed // self._block_size, stop
        if self._prefixes is not None:
            self._prefixes.register(sequence, first, stop // self._block_size)
        for group, policy in enumerate(self._policies):
            if policy.kind != "full":
                self._free_before(sequence, group, first_needed(policy, stop) // self._block_size)

    def start(self, sequence: Sequence) -> None:
        """Give a sequence without blocks those that hold its beginning already."""
        served = self.num_served(sequence)
        sequence.tables, sequence.num_freed = [], []
        for group in range(len(self._policies)):
            columns = range(0) if self._prefixes is None else self._prefixes.columns(group, served)
            table = [-1] * served
            for column in columns:
                table[column] = self._found(sequence, group, column)
                self.pool.share(group, table[column])
            sequence.tables.append(table)
            sequence.num_freed.append(served - len(columns))
        sequence.num_computed = served * self._block_size

    def num_served(self, sequence: Sequence) -> int:
        """Leading blocks of the sequence that `start` would not leave to compute."""
        if self._prefixes is None or sequence.wants_prompt:
            return 0
        return self._prefixes.num_served(sequence)

    def used_by_others(self, sequence: Sequence) -> list[int]:
        """Blocks of each group that `start` would share with sequences that use them now."""
        counts = [0] * len(self._policies)
        if self._prefixes is not None and (served := self.num_served(sequence)):
            for group in range(len(counts)):
                for column in self._prefixes.columns(group, served):
                    block = self._found(sequence, group, column)
                    counts[group] += self.pool.num_references(group, block) > 0
        return counts

    def fork(self, source: Sequence, target: Sequence) -> None:
        """Let `target`, with the same tokens and no blocks, go on from where `source` is."""
        target.tables = [list(table) for table in source.tables]
        target.num_freed = list(source.num_freed)
        target.num_computed = source.num_computed
        target.keys = list(source.keys)
        for group, table in enumerate(target.tables):
            for block in table[target.num_freed[group] :]:
                self.pool.share(group, block)
        source.shares_tail = target.shares_tail = source.num_computed % self._block_size > 0

    def release(self, sequence: Sequence) -> None:
        """Take all blocks from the sequence; the last ones are the first to be given to others."""
        for group, table in enumerate(sequence.tables):
            for block in reversed(table[sequence.num_freed[group] :]):
                self.pool.release(group, block)
        sequence.tables, sequence.num_freed = [], []
        sequence.num_computed, sequence.shares_tail = 0, False

    def _found(self, sequence: Sequence, group: int, column: int) -> int:
        assert self._prefixes is not None
        block = self._prefixes.block(group, sequence, column)
        assert block is not None
        return block

    def _free_before(self, sequence: Sequence, group: int, column: int) -> None:
        table = sequence.tables[group]
        for each in range(sequence.num_freed[group], column):
            self.pool.release(group, table[each])
            table[each] = -1
        sequence.num_freed[group] = max(column, sequence.num_freed[group])

    def _is_tail_shared(self, sequence: Sequence, group: int) -> bool:
        return self.pool.num_references(group, sequence.tables[group][-1]) > 1

    def _unshare_tail(self, sequence: Sequence) -> list[Copy]:
        sequence.shares_tail = False
        copies = []
        for group, table in enumerate(sequence.tables):
            if self._is_tail_shared(sequence, group):
                copy = Copy(group, table[-1], self.pool.allocate(group))
                self.pool.release(group, copy.source)
                table[-1] = copy.target
                copies.append(copy)
        return copies
