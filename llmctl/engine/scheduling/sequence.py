"""A sequence on its way through the engine: its tokens, how far they are computed, and where its blocks are.

Made by the engine for each sample of a request; from `Scheduler.add` on the scheduler alone changes it. Plain
Python.
"""

from dataclasses import dataclass, field
from enum import Enum


class State(Enum):
    """Where a sequence is."""

    NEW = "new"
    """Not yet added, or a sample whose prompt another sequence computes."""
    WAITING = "waiting"
    """For its first step, or for the next one after it was preempted: it holds no memory."""
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One sample of one request. Two of them are never equal, and each can be a key."""

    id: str
    """Unique among those that the scheduler has not yet ended."""
    ids: list[int]
    """Prompt and answer; not empty."""
    max_new_tokens: int | None = None
    """None: as many as context and memory hold. 0: none, only the prompt is computed."""
    priority: int = 0
    """A higher one is served earlier and preempted later."""
    salt: tuple[str | int, ...] = ()
    """What besides the tokens decides keys and values (an adapter, its generation), or whom they are for."""
    wants_prompt: bool = False
    """Whether the logits of all its prompt's rows are wanted: then no blocks of others stand for some."""
    siblings: list["Sequence"] = field(default_factory=list)
    """Further samples of the same prompt, not added themselves: they go on from its blocks when those are
    computed."""

    num_prompt_tokens: int = field(init=False)
    max_length: int = field(init=False, default=0)
    """Tokens at which the scheduler ends it."""
    num_computed: int = field(init=False, default=0)
    """Leading tokens whose keys and values (or state) are kept."""
    num_cached: int = field(init=False, default=0)
    """Tokens of the prompt that were found computed when it was first admitted."""
    state: State = field(init=False, default=State.NEW)
    arrival: int = field(init=False, default=0)
    """A number that grows with every sequence."""
    is_urgent: bool = field(init=False, default=False)
    """It was passed over or preempted too often: it goes before all that are not."""
    num_preemptions: int = field(init=False, default=0)
    state_slot: int | None = field(init=False, default=None)
    """Where a recurrent model keeps its state, while it runs."""
    tables: list[list[int]] = field(init=False, default_factory=list)
    """For each policy group the blocks of the sequence in order; -1 where it was freed."""
    num_freed: list[int] = field(init=False, default_factory=list)
    """For each group how many leading blocks are freed."""
    shares_tail: bool = field(init=False, default=False)
    """Whether its last block, partly filled, may be another sequence's too."""
    keys: list[bytes] = field(init=False, default_factory=list)
    """Names of its leading full blocks in the prefix cache, as far as they were asked for."""

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.ids)

    @property
    def num_pending(self) -> int:
        """Tokens that must be computed before the next one can be chosen."""
        return len(self.ids) - self.num_computed

    @property
    def num_new_tokens(self) -> int:
        """Length of the answer so far."""
        return len(self.ids) - self.num_prompt_tokens

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Smaller goes first: to be admitted, and to be given memory."""
        return (not self.is_urgent, -self.priority, self.arrival)

    @property
    def is_ended(self) -> bool:
        """Whether the scheduler has let go of it."""
        return self.state in (State.FINISHED, State.CANCELLED)
