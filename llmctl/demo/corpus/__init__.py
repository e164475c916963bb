"""The text the demo model learns from, written by seeded generators: plain text and conversations."""

from __future__ import annotations

from llmctl.demo.corpus.mix import (
    AGAIN,
    CHAT,
    COPY,
    ECHO,
    FINISH,
    POLISH,
    TOUCH,
    Message,
    Mixture,
    conversation,
)
from llmctl.demo.corpus.plain import document, drill

__all__ = [
    "AGAIN",
    "CHAT",
    "COPY",
    "ECHO",
    "FINISH",
    "POLISH",
    "TOUCH",
    "Message",
    "Mixture",
    "conversation",
    "document",
    "drill",
]
