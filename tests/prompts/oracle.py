"""What FastChat answers, and the conversations that it was asked about."""

import functools
import json
from pathlib import Path
from typing import Any

from llmctl.core.types import Message
from tests.conftest import SHARED

ONE_TURN = (Message(role="user", content="Hello!"),)
TWO_TURNS = (
    *ONE_TURN,
    Message(role="assistant", content="Hi there! How can I help you today?"),
    Message(role="user", content="What's the weather?"),
)
PIRATE = Message(role="system", content="You are a pirate.")
CONVERSATIONS = {
    "prompt_2turn": TWO_TURNS,
    "prompt_1turn": ONE_TURN,
    "prompt_1turn_custom_system": (PIRATE, *ONE_TURN),
}
DEVIATIONS = {
    "deepseek-coder": (
        "prompt_1turn_custom_system",
        "FastChat writes the template's own system message over the one that is given",
    ),
}
"""Templates that are right here and wrong there: (the prompt that differs, why)."""


@functools.cache
def templates(folder: Path = SHARED) -> dict[str, Any]:
    """FastChat's templates by name, those that it can render; none where the oracle is absent."""
    file = folder / "oracle" / "fastchat_oracle.json"
    if not file.is_file():
        return {}
    rows: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["templates"]
    return {name: row for name, row in rows.items() if "prompt_error" not in row}
