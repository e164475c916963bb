"""What users say about a checkpoint that says everything itself: it may agree, and no more."""

from collections.abc import Mapping
from typing import Any

from llmctl.core.errors import UsageError

_ALIASES = {"wbits": "bits", "groupsize": "group_size"}


def check_overrides(overrides: Mapping[str, Any], facts: Mapping[str, Any], title: str) -> None:
    """Raise `UsageError` over an override that is not among the facts, or is another value than there."""
    for key, value in overrides.items():
        fact = facts.get(_ALIASES.get(key, key))
        if value is not None and fact is None:
            raise UsageError(f"{key} says nothing about {title} weights", hint=f"leave {key} out")
        if value is not None and value != fact:
            raise UsageError(
                f"{key} is given as {value}, but the checkpoint is {title} with {key} {fact}",
                hint=f"leave {key} out",
            )
