"""Fetches one file over HTTP: goes on where an earlier try broke off, and checks the hash of every byte.

huggingface_hub 2.4 does neither (it deletes what a failed download left, and trusts the size).
"""

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.errors import BadFileError

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

# Waits between tries that brought no new byte; one that did starts the row anew.
RETRY_WAITS_S: tuple[float, ...] = (1.0, 2.0, 4.0)
_MAX_RETRY_AFTER_S = 60.0
_RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL_CONTENT = 206
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_HASHED_AT_ONCE = 1 << 20


class BrokenOffError(ConnectionError):
    """A body ended early and no error of the connection says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file that a server offers, with what it must be when it has arrived."""

    name: str
    url: str
    num_bytes: int
    digest: str
    """SHA-256 for large files (`is_lfs`), git's blob SHA-1 for the others; lower-case hex."""
    is_lfs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What all fetches of one download share."""

    headers: Mapping[str, str]
    timeout_s: float
    """For connecting and for each wait for more bytes."""
    on_bytes: Callable[[int], None]
    """Told of bytes that are now there; adds up to the file's size exactly, whatever had to be repeated."""
    stop: threading.Event
    """Once set, fetches end with `CancelledError` at the next piece of data."""


def fetch(file: RemoteFile, target: Path, session: Session) -> None:
    """Bring `file` to `target`; till it is whole it lies beside that as `*.incomplete`, also after errors.

    Raises `BadFileError` when the bytes are not those of `file.digest` (they are deleted then), and the
    errors of httpx2, huggingface_hub and the file system as they are.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    transfer = _Transfer(file, partial_path(target), session)
    transfer.run()
    transfer.partial.replace(target)


def partial_path(target: Path) -> Path:
    """Where an unfinished fetch of `target` keeps its bytes."""
    return target.with_name(f"{target.name}.incomplete")


class _Transfer:
    """One file on its way: `_offset` bytes of it lie in `partial`, and `_hash` has seen them."""

    def __init__(self, file: RemoteFile, partial: Path, session: Session) -> None:
        self.partial = partial
        self._file = file
        self._session = session
        self._reported = 0
        self._rewind()

    def run(self) -> None:
        """Request until the file is whole, then check it."""
        self._take_up_partial()
        num_failures = 0
        while self._offset < self._file.num_bytes:
            reported = self._reported
            error = self._request_or_error()
            if error is None:
                continue
            num_failures = 1 if self._reported > reported else num_failures + 1
            if num_failures > len(RETRY_WAITS_S):
                raise error
            self._wait(max(RETRY_WAITS_S[num_failures - 1], _retry_after_s(error)), error)
        self.partial.touch()
        if self._hash.hexdigest() != self._file.digest:
            raise self._refused("its hash differs from the one that the hub lists")

    def _request_or_error(self) -> Exception | None:
        """One request; what broke it off, when that may pass."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        try:
            self._request()
        except (httpx2.TransportError, BrokenOffError) as error:
            caught: Exception = error
        except HfHubHTTPError as error:
            if error.response.status_code not in _RETRIED_STATUSES:
                raise
            caught = error
        else:
            return None
        return caught

    def _wait(self, wait_s: float, error: Exception) -> None:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        log.info(
            "%s broke off at byte %d (%s), next try in %g s", self._file.name, self._offset, reason, wait_s
        )
        if self._session.stop.wait(wait_s):
            raise CancelledError

    def _request(self) -> None:
        from huggingface_hub import get_session, hf_raise_for_status

        headers = {**self._session.headers, "Accept-Encoding": "identity"}
        if self._offset:
            headers["Range"] = f"bytes={self._offset}-"
        timeout_s = self._session.timeout_s
        with get_session().stream("GET", self._file.url, headers=headers, timeout=timeout_s) as response:
            if response.status_code == _RANGE_NOT_SATISFIABLE:
                raise self._refused(f"it ends before byte {self._offset + 1} of {self._file.num_bytes}")
            hf_raise_for_status(response)
            self._begin_body(response)
            with self.partial.open("ab") as out:
                self._receive(response, out.write)
        if self._offset < self._file.num_bytes:
            raise BrokenOffError(f"the body ended at byte {self._offset} of {self._file.num_bytes}")

    def _begin_body(self, response: "httpx2.Response") -> None:
        """Check that the body is what was asked for; a server that ignores the range starts from 0."""
        total = response.headers.get("Content-Length")
        if response.status_code == _PARTIAL_CONTENT:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != self._offset:
                raise self._refused("the hub answers with another part of the file than the one asked for")
            total = match[2]
        elif self._offset:
            self.partial.unlink()
            self._rewind()
        if (
            "Content-Encoding" not in response.headers
            and total is not None
            and int(total) != self._file.num_bytes
        ):
            raise self._refused(f"the hub lists {self._file.num_bytes} bytes and sends {total}")

    def _receive(self, response: "httpx2.Response", write: Callable[[bytes], object]) -> None:
        for piece in response.iter_bytes():
            if self._session.stop.is_set():
                raise CancelledError
            write(piece)
            self._count(piece)
            if self._offset > self._file.num_bytes:
                raise self._refused(f"the hub lists {self._file.num_bytes} bytes and sends more")

    def _take_up_partial(self) -> None:
        """Go on from what an earlier try left, hashing it again."""
        num_kept = self.partial.stat().st_size if self.partial.exists() else 0
        if num_kept > self._file.num_bytes:
            self.partial.unlink()
        if not 0 < num_kept <= self._file.num_bytes:
            return
        with self.partial.open("rb") as file:
            while self._offset < num_kept:
                self._count(file.read(min(_HASHED_AT_ONCE, num_kept - self._offset)))
        log.info("%s: %d bytes are here from an earlier try", self._file.name, self._offset)

    def _count(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._offset += len(piece)
        if self._offset > self._reported:
            self._session.on_bytes(self._offset - self._reported)
            self._reported = self._offset

    def _rewind(self) -> None:
        self._offset = 0
        if self._file.is_lfs:
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(f"blob {self._file.num_bytes}\0".encode(), usedforsecurity=False)

    def _refused(self, why: str) -> BadFileError:
        self.partial.unlink(missing_ok=True)
        return BadFileError(
            f"{self._file.name} from {self._file.url} is not what the hub promises: {why}",
            hint="it was deleted; run the same command again, and if this repeats, ask the model's makers",
        )


def _retry_after_s(error: Exception) -> float:
    """What an overloaded server asks for; 0 when nothing."""
    response: httpx2.Response | None = getattr(error, "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isdigit() else 0.0
