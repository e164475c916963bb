"""Reads the files that hold API keys and the cluster token. No message holds any part of one."""

import hashlib
import re
from collections.abc import Sequence

from llmctl.core.errors import BadFileError
from llmctl.core.places import expanded
from llmctl.services.keys import read_secrets

_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")


def digest(key: str | bytes) -> bytes:
    """What is kept and compared in the place of a key."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def read_token(file: str) -> str:
    """The cluster token that is the one line of `file`.

    Raises `NotFoundError`, `AccessError` or `BadFileError` where there is none.
    """
    lines = read_secrets(expanded(file), file, flag="--token-file")
    if len(lines) != 1:
        what = f"{len(lines)} lines" if lines else "nothing"
        raise BadFileError(
            f"the token file {file} holds {what}", hint="write the token into it, as its one line"
        )
    return lines[0]


def read_digests(files: Sequence[str]) -> list[bytes]:
    """The digests of all keys in `files`, one a line, plain or as `sha256:HEX`.

    Raises `NotFoundError`, `AccessError`, and `BadFileError` for a line that is no key and for a file
    without any.
    """
    return [found for file in files for found in _digests(file)]


def _digests(file: str) -> list[bytes]:
    lines = read_secrets(expanded(file), file)
    if not lines:
        raise BadFileError(f"the key file {file} holds nothing", hint="write a key into it, or leave it out")
    return [_digest_of(line, file) for line in lines]


def _digest_of(line: str, file: str) -> bytes:
    match = _DIGEST.fullmatch(line)
    if match is None and line.startswith("sha256:"):
        raise BadFileError(
            f"the key file {file} holds a sha256: that is not followed by 64 hexadecimal digits",
            hint="printf %s KEY | sha256sum",
        )
    return bytes.fromhex(match[1]) if match else digest(line)
