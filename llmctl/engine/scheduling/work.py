"""What the scheduler asks of a step. Plain Python; `Step` is the same as tensors."""

from dataclasses import dataclass, field

from llmctl.engine.scheduling.sequence import Sequence
from llmctl.engine.scheduling.tables import Copy


@dataclass(frozen=True, slots=True)
class Share:
    """What one sequence computes in a step."""

    sequence: Sequence
    start: int
    """Position of the first token."""
    count: int
    """At least 1."""

    @property
    def stop(self) -> int:
        """Position behind the last token."""
        return self.start + self.count

    @property
    def is_wanted(self) -> bool:
        """Whether it ends with the last token so far: somebody asks for that one's logits."""
        return self.stop == len(self.sequence.ids)

    @property
    def ids(self) -> list[int]:
        """The tokens."""
        return self.sequence.ids[self.start : self.stop]

    def wanted_rows(self, first: int) -> range:
        """Rows of a step whose logits are wanted, if that of the first token is `first`."""
        if self.sequence.wants_prompt and self.start < self.sequence.num_prompt_tokens:
            return range(first, first + self.count)
        return range(first + self.count - self.is_wanted, first + self.count)

    @property
    def samples(self) -> list[Sequence]:
        """Those whose next token the last row decides: the sequence, and siblings that waited for it."""
        if not self.is_wanted:
            return []
        own = (self.sequence, *self.sequence.siblings)
        return [each for each in own if each.max_new_tokens != 0 and not each.is_ended]


@dataclass(slots=True)
class Work:
    """One step: make `state_copies` and `copies`, in their order, then give up `discarded`, then compute."""

    spans: list[Share] = field(default_factory=list)
    """By rank; no sequence twice."""
    copies: list[Copy] = field(default_factory=list)
    state_copies: list[tuple[int, int]] = field(default_factory=list)
    """(from, to) state slots."""
    discarded: list[tuple[int, int]] = field(default_factory=list)
    """See `BlockPool.take_discarded`."""
    preempted: list[Sequence] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Rows of the step."""
        return sum(span.count for span in self.spans)
