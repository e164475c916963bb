"""What `llmctl compress` is asked for and what it tells in the end. No torch."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.artifacts.compress.methods import METHODS, check_group_size, method_of
from llmctl.artifacts.stream.writer import MAX_SHARD_BYTES
from llmctl.core.errors import BadFileError, NotFoundError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressRequest:
    """One checkpoint to be compressed."""

    model: str
    target: Path
    method: str
    """A key of `methods.METHODS`."""
    group_size: int | None = None
    """None: the best that divides all rows."""
    skip: tuple[str, ...] = ()
    """Regular expressions; a module whose name one of them finds stays dense."""
    calibration: Path | None = None
    """Text that shows the model's layers what they will meet."""
    evaluates: bool = True
    evaluation: Path | None = None
    """Text to be judged on; None: one that llmctl brings."""
    max_shard_bytes: int = MAX_SHARD_BYTES
    revision: str | None = None
    overwrite: bool = False
    is_dry: bool = False

    def check(self) -> None:
        """Raise `UsageError` and `NotFoundError` over what can be seen without the model."""
        method = method_of(self.method)
        check_group_size(self.method, self.group_size)
        for pattern in self.skip:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UsageError(f"--skip {pattern!r} is no regular expression: {error}") from error
        if self.calibration is not None and not method.takes_calibration:
            takers = ", ".join(name for name, row in METHODS.items() if row.takes_calibration)
            raise UsageError(
                f"--calibration does not go with {self.method}, which rounds each number by itself",
                hint=f"leave it out, or take one of {takers}",
            )
        if self.evaluation is not None and not self.evaluates:
            raise UsageError("--eval and --no-eval do not go together", hint="give one")
        for flag, path in (("--calibration", self.calibration), ("--eval", self.evaluation)):
            if path is not None:
                read_text(path, flag=flag)

    def options(self) -> dict[str, Any]:
        """All that decides what the weights become, for the identity of the job."""
        text = self.calibration.read_bytes() if self.calibration is not None else None
        return {
            "method": self.method,
            "group_size": self.group_size,
            "skip": list(self.skip),
            "calibration": hashlib.sha256(text).hexdigest() if text is not None else None,
            "max_shard_bytes": self.max_shard_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """What became of it, or would."""

    name: str
    """Of the model."""
    target: Path
    method: str
    group_size: int | None
    bytes_before: int
    """Of all weights."""
    bytes_after: int
    num_compressed: int
    """Weights that were compressed."""
    dense: Mapping[str, str]
    """Modules that stay as they are, each with the reason, as words after "because"."""
    carried: tuple[str, ...]
    """Files that are no weights."""
    notices: tuple[str, ...] = ()
    """Sentences that a user should read."""
    seconds: float | None = None
    """For reading, rounding and writing; None where nothing was done."""
    evaluation: Mapping[str, Any] | None = None
    """`evaluate.Comparison.as_dict`."""
    not_evaluated: str | None = None
    """Why not, as words after "because"."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "out": str(self.target),
            "method": self.method,
            "group_size": self.group_size,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "compressed_weights": self.num_compressed,
            "dense_modules": dict(self.dense),
            "carried": list(self.carried),
            "notices": list(self.notices),
            "seconds": self.seconds,
            "evaluation": dict(self.evaluation) if self.evaluation is not None else None,
            "not_evaluated": self.not_evaluated,
        }


def read_text(path: Path, *, flag: str) -> str:
    """A file of text. Raises `NotFoundError` and `BadFileError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(f"{flag}: no such file: {path}") from error
    except UnicodeDecodeError as error:
        raise BadFileError(f"{flag}: {path} is not text in UTF-8", hint="give plain text") from error
    except OSError as error:
        raise BadFileError(f"{flag}: cannot read {path}: {error.strerror}") from error
    if "\0" in text:
        raise BadFileError(f"{flag}: {path} is not text: it holds zero bytes", hint="give plain text")
    if not text.strip():
        raise BadFileError(f"{flag}: {path} holds no text", hint="give some pages of plain text")
    return text
