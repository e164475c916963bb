"""One figure of `bench engine`, and what it is compared with. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TOKENS_A_SECOND = "tokens/s"
_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured, by llmctl and by transformers."""

    what: str
    """decode, prefill, first token, mix, memory, or a long run."""
    dtype: str
    """Of our side; theirs is bfloat16."""
    batch: int
    """Sequences at a time, of our side; theirs is one."""
    unit: str
    """tokens/s, of which more is better, or s or bytes, of which less is."""
    ours: float
    theirs: float | None = None
    details: Mapping[str, float | int | str | None] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times as good ours is as theirs; None where theirs was not measured."""
        if not self.theirs or not self.ours:
            return None
        return self.ours / self.theirs if self.unit == TOKENS_A_SECOND else self.theirs / self.ours

    def as_dict(self) -> dict[str, Any]:
        """As `--json` has it."""
        return {
            "what": self.what,
            "batch": self.batch,
            "dtype": self.dtype,
            "unit": self.unit,
            "ours": _rounded(self.ours),
            "theirs": _rounded(self.theirs),
            "ratio": _rounded(self.ratio),
            **self.details,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
