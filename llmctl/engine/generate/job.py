"""What a way to generate is asked for: one sequence. Plain data, without torch."""

from dataclasses import dataclass

from llmctl.core.types import SamplingParams

BLOCK_LENGTH = 32
"""As in FastChat, which took it from the makers of the CLLM models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One sequence to generate."""

    prompt_ids: tuple[int, ...]
    """At least 1; what the encoder reads where there is one."""
    sampling: SamplingParams
    end_ids: frozenset[int]
    """Tokens that end the answer, the model's own and the request's."""
    max_new_tokens: int
    """At least 1; prompt and answer together fit into the context, or each into its own."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Sequences of tokens that the answer must not hold."""
    is_continuation: bool = False
    """Whether the answer goes on from the prompt's text instead of standing by itself."""
    priority: int = 0
    """Higher ones have their turn first."""
    block_length: int = BLOCK_LENGTH
    """Tokens of the answer that Jacobi decoding works on at a time, at least 1."""
