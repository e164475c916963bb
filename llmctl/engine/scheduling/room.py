"""Whether memory has room for a sequence: at all, when it is added, and now, beside those who run.

Plain Python.
"""

from bisect import bisect_left
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from llmctl.core.errors import ContextOverflowError, DoesNotFitError
from llmctl.engine.scheduling.blocks import BlockPool
from llmctl.engine.scheduling.limits import Limits
from llmctl.engine.scheduling.sequence import Sequence
from llmctl.engine.scheduling.tables import Tables

_CREDIT_STEPS = 64
"""For how long a waiting prompt counts on what it could share: looking that up costs time in its length."""
_MIB = 1 << 20


@dataclass(slots=True)
class _Credit:
    """Blocks that the sequence would share with others, as of a step."""

    sequence: Sequence | None = None
    counts: list[int] = field(default_factory=list)
    step: int = 0


class Room:
    """Estimates over the pool of `tables`. They are on the safe side, but for what others may yet append."""

    def __init__(self, pool: BlockPool, tables: Tables, limits: Limits) -> None:
        self._pool, self._tables, self._limits = pool, tables, limits
        self._credit = _Credit()
        self.most_tokens = self._most_tokens()
        """The longest sequence that memory holds by itself, up to the context."""

    def max_length(self, sequence: Sequence) -> int:
        """Tokens at which a new sequence must end. Raises as `Scheduler.add` does."""
        num_prompt, context = len(sequence.ids), self._limits.max_length
        asked = sequence.max_new_tokens
        # The last token of an answer is never computed, but a prompt must leave room for one.
        if num_prompt + (asked != 0) > context:
            raise ContextOverflowError(
                f"the prompt has {num_prompt} tokens, and the context is {context}",
                hint="shorten the prompt, or take a model with a longer context",
                prompt_tokens=num_prompt,
                context_length=context,
            )
        self._refuse_over(num_prompt, "the prompt has")
        if asked == 0:
            return num_prompt
        if asked is None:
            return min(context, self.most_tokens + 1)
        length = min(context, num_prompt + asked)
        self._refuse_over(length - 1, "prompt and answer may have")
        return length

    def fits(self, sequence: Sequence, running: SequenceOf[Sequence], step: int) -> bool:
        """Whether all tokens of a waiting sequence have room beside what those who run are about to need."""
        if not running:
            return True
        counts = [most + len(running) for most in self._tables.most_blocks(len(sequence.ids))]
        for other in running:
            if other.num_pending > 1:
                most, held = self._tables.most_blocks(len(other.ids)), self._tables.num_held(other)
                counts = [count + a - b for count, a, b in zip(counts, most, held, strict=True)]
        if self._pool.can_allocate(counts):
            return True
        if self._credit.sequence is not sequence or step - self._credit.step >= _CREDIT_STEPS:
            self._credit = _Credit(sequence, self._tables.used_by_others(sequence), step)
        credit = self._credit.counts or [0] * len(counts)
        return self._pool.can_allocate([a - b for a, b in zip(counts, credit, strict=True)])

    def deny_credit(self, sequence: Sequence, step: int) -> None:
        """What the sequence was to share turned out to be gone."""
        self._credit = _Credit(sequence, [], step)

    def _most_tokens(self) -> int:
        lengths = range(self._limits.max_length + 1)
        return bisect_left(lengths, True, key=lambda length: not self._holds(length)) - 1

    def _holds(self, num_tokens: int) -> bool:
        return self._pool.can_hold(self._tables.most_blocks(num_tokens))

    def _refuse_over(self, num_tokens: int, who: str) -> None:
        if num_tokens > self.most_tokens:
            budget = self._pool.budget_bytes // _MIB
            raise DoesNotFitError(
                f"{who} {num_tokens} tokens, and {budget} MiB for keys and values hold {self.most_tokens}",
                hint="shorten the prompt or the answer, or free memory",
            )
