"""What all objects and chunks of an answer say alike: id, time, model, counts of tokens."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any

from llmctl import __version__
from llmctl.core.types import FinishReason, Usage

FINGERPRINT = f"llmctl-{__version__}"
"""Tells which program answered."""
FINISH_REASONS: Mapping[FinishReason, str] = {"stop": "stop", "length": "length", "cancelled": "length"}
"""In the words of the protocol, which knows none for an answer that somebody stopped: it is not whole."""

quoted = encode_basestring_ascii
"""A string as JSON. In ASCII: some clients take U+2028 and others for ends of lines, which part events."""
encoded = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""Anything as short JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Who answers, and when."""

    model: str
    id: str
    created: int
    """Seconds since 1970."""

    @classmethod
    def new(cls, model: str, *, prefix: str) -> "Head":
        """Of an answer that begins now; `prefix` is `chatcmpl` or `cmpl`."""
        return cls(model=model, id=f"{prefix}-{uuid.uuid4().hex}", created=int(time.time()))

    def as_dict(self, kind: str) -> dict[str, Any]:
        """The first fields of an object of this kind."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }


@dataclass(slots=True)
class Tally:
    """The tokens of an answer, whose prompts count once, however many choices they have."""

    prompts: dict[int, int] = field(default_factory=dict)
    """Tokens of a prompt by its number."""
    num_completion: int = 0
    is_known: bool = True
    """False when a server has not told."""

    def add(self, usage: Usage | None, *, prompt: int) -> None:
        """Count a choice that ended."""
        if usage is None:
            self.is_known = False
            return
        self.prompts[prompt] = usage.prompt_tokens
        self.num_completion += usage.completion_tokens

    def as_dict(self) -> dict[str, int] | None:
        """None when it is not known."""
        if not self.is_known or not self.prompts:
            return None
        return counts(sum(self.prompts.values()), self.num_completion)


def counts(num_prompt: int, num_completion: int) -> dict[str, int]:
    """The object `usage`."""
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_completion,
        "total_tokens": num_prompt + num_completion,
    }
