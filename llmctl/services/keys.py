"""Finds the API key that a server is shown: in a file or in the environment, never on the command line."""

import logging
import stat
from collections.abc import Mapping
from pathlib import Path

from llmctl.core.errors import AccessError, BadFileError, LlmctlError, NotFoundError, UsageError
from llmctl.core.places import expanded

log = logging.getLogger(__name__)

VARIABLES = ("LLMCTL_API_KEY", "OPENAI_API_KEY")
"""Where a key is looked for, the first that is set wins."""
_MAX_FILE_BYTES = 64 * 1024


def find_api_key(environ: Mapping[str, str], file: str | None) -> str | None:
    """The key of `file` when one is named, else that of the first variable that is set and not empty.

    Raises `NotFoundError`, `AccessError` or `BadFileError` for a file that holds no key of one line, and
    `UsageError` for a variable's value that cannot be sent. No message holds any part of a key.
    """
    if file is not None:
        return _from_file(expanded(file), file)
    for name in VARIABLES:
        if key := environ.get(name, "").strip():
            if not _can_be_sent(key):
                raise UsageError(
                    f"{name} holds characters that no API key has: spaces, or others than ASCII",
                    hint="copy the key again",
                )
            return key
    return None


def read_secrets(path: Path, name: str, *, flag: str = "--api-key-file") -> list[str]:
    """The lines of a file of keys, empty ones left out; errors call it `name`, and hold no part of a key.

    `flag` is what named it.

    Raises `NotFoundError`, `AccessError` or `BadFileError` for a file that cannot be read or holds what is
    no key.
    """
    lines = [line.strip() for line in _read(path, name, flag).split("\n") if line.strip()]
    if not all(map(_can_be_sent, lines)):
        raise BadFileError(
            f"the key file {name} holds characters that no API key has: spaces, or others than ASCII",
            hint="write each key as one line",
        )
    return lines


def _from_file(path: Path, name: str) -> str:
    lines = read_secrets(path, name)
    if len(lines) != 1:
        what = f"{len(lines)} lines" if lines else "nothing"
        raise BadFileError(f"the key file {name} holds {what}", hint="write the key into it, as its one line")
    return lines[0]


def _read(path: Path, name: str, flag: str) -> str:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_FILE_BYTES)
            mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise NotFoundError(f"no such key file: {name}", hint=f"check {flag}") from error
    except OSError as error:
        raise _unreadable(name, error, flag) from error
    # A pipe, as from a password manager, belongs to this process alone.
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("the key file %s can be read by other users: chmod 600 %s", name, name)
    # What is not text is not ASCII either, and refused as that.
    return raw.decode(errors="replace")


def _unreadable(name: str, error: OSError, flag: str) -> LlmctlError:
    kind = AccessError if isinstance(error, PermissionError) else BadFileError
    return kind(f"cannot read the key file {name}: {error.strerror}", hint=f"check {flag}")


def _can_be_sent(key: str) -> bool:
    return key.isascii() and key.isprintable() and " " not in key
