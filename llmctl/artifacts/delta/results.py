"""What is asked of making a delta, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.artifacts.delta import manifest
from llmctl.artifacts.stream.writer import MAX_SHARD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for."""

    out: Path
    exclude: tuple[str, ...] = ()
    """Regular expressions over names of tensors that are to be taken as they are in the base."""
    max_shard_bytes: int = MAX_SHARD_BYTES
    """Of the target's bytes that one file of the delta is made of."""
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A delta that was made, or (`seconds` is None) would be."""

    out: Path
    kind: manifest.Kind
    base: str
    target: str
    fates: Mapping[str, int]
    """How many tensors of each fate; what is only looked at counts by its shape."""
    target_bytes: int
    delta_bytes: int | None
    """Of its weights."""
    carried: tuple[str, ...]
    notices: tuple[str, ...]
    seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "out": str(self.out),
            "format": self.kind,
            "base": self.base,
            "target": self.target,
            "tensors": dict(self.fates),
            "target_bytes": self.target_bytes,
            "delta_bytes": self.delta_bytes,
            "carried": list(self.carried),
            "notices": list(self.notices),
            "seconds": round(self.seconds, 1) if self.seconds is not None else None,
        }
