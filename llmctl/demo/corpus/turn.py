"""What a skill hands to the conversation builder: one user message and its answer in the plain voice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One exchange; `short` is the one-word answer ("" for none), `tool` a tool's reply before it."""

    user: str
    answer: str
    short: str = ""
    tool: str = ""
