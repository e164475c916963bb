"""What the scheduler may do in a step and in all. Plain Python."""

from dataclasses import dataclass

from llmctl.core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that hold in every step. Raises `UsageError` where one cannot be kept."""

    max_length: int
    """Tokens of a sequence, prompt and answer: the context of the model."""
    max_step_tokens: int = 512
    """Tokens of a step, over all sequences. With `whole_prefill` a longer prompt has a step of its own."""
    max_running: int = 64
    """Sequences of a step; each of them can always decode, so no more than `max_step_tokens`."""
    max_waiting: int | None = None
    """Sequences that may wait; None: any number."""
    block_size: int = 32
    """Tokens of a block of keys and values, a power of two."""
    caches_prefixes: bool = True
    """Whether blocks serve later sequences that begin alike; never with `has_states`: no block holds one."""
    has_states: bool = False
    """Whether sequences have a recurrent state, and so a slot of `max_running` while they run."""
    whole_prefill: bool = False
    """Whether several tokens of a sequence can only be computed from its beginning on, in one step."""

    def __post_init__(self) -> None:
        for name in ("max_length", "max_step_tokens", "max_running", "block_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="give at least 1")
        if self.max_waiting is not None and self.max_waiting < 0:
            raise UsageError(f"max_waiting is {self.max_waiting}", hint="give at least 0")
        if self.block_size & (self.block_size - 1):
            raise UsageError(
                f"block_size is {self.block_size}, no power of two", hint="take 16, 32, 64, 128 or 256"
            )
        if self.max_running > self.max_step_tokens:
            raise UsageError(
                f"{self.max_running} sequences cannot decode in a step of {self.max_step_tokens} tokens",
                hint="allow more tokens in a step, or fewer sequences",
            )

    @property
    def shares_prefixes(self) -> bool:
        """Whether there is a prefix cache."""
        return self.caches_prefixes and not self.has_states
