"""What a hub of models must offer to be downloaded from, and how its failures are worded.

Foreign errors (httpx2's, huggingface_hub's, the disk's) become llmctl's here and in the hubs' own files.
"""

import errno
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llmctl.core.errors import AccessError, DoesNotFitError, LlmctlError, UnreachableError
from llmctl.loading.hub.fetch import RemoteFile

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site(ABC):
    """One repository at a revision, on one server."""

    name: ClassVar[str]
    """Of the hub, for sentences."""
    kind: ClassVar[str]
    """What a server like it is."""
    default_revision: ClassVar[str]
    endpoint_variable: ClassVar[str]
    cache_variable: ClassVar[str]
    """Which variable moves the cache to another disk."""

    repo_id: str
    revision: str | None
    endpoint: str
    cache_root: Path
    timeout_s: float
    is_offline: bool
    headers: Mapping[str, str]
    """The token too, so they are never logged."""

    @abstractmethod
    def list_files(self) -> tuple[str, dict[str, RemoteFile]]:
        """The commit of the revision, 40 digits, and its files by name."""

    @abstractmethod
    def http_error(self, error: "HfHubHTTPError", hint: str) -> LlmctlError:
        """What a refusal of the server means."""

    @property
    def asked_revision(self) -> str:
        """The revision, named or not."""
        return self.revision or self.default_revision

    @contextmanager
    def errors(self, *, hint: str) -> Iterator[None]:
        """Turn foreign errors into llmctl's; `hint` is the remedy when the network is at fault."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except HfHubHTTPError as error:
            raise self.http_error(error, hint) from error
        except (httpx2.RequestError, httpx2.InvalidURL, ConnectionError) as error:
            reason = first_line(error)
            raise UnreachableError(
                f"cannot reach {self.name} at {self.endpoint}: {reason}", hint=hint
            ) from error
        except OSError as error:
            raise self._disk_error(error) from error

    def not_understood(self, error: Exception) -> UnreachableError:
        """For an answer that is not as this kind of hub gives it."""
        return UnreachableError(
            f"{self.endpoint} does not answer as {self.kind} does: {first_line(error)}",
            hint=f"check {self.endpoint_variable}; a network's login page may also stand in between",
        )

    def busy(self, status: int, hint: str) -> UnreachableError:
        """For a status that says nothing of the model."""
        return UnreachableError(
            f"{self.name} at {self.endpoint} answers HTTP {status}", hint=f"try again later; {hint}"
        )

    def _disk_error(self, error: OSError) -> LlmctlError:
        if error.errno in _DISK_FULL:
            return DoesNotFitError(
                f"the disk of {self.cache_root} is full",
                hint="free some space and run the same command again, "
                f"or set {self.cache_variable} to a larger disk",
            )
        if error.errno == errno.EFBIG:
            return DoesNotFitError(
                f"the files of {self.repo_id} are larger than {self.cache_root} may hold: {error.strerror}",
                hint=f"raise the limit (ulimit -f), or set {self.cache_variable} to another disk",
            )
        return AccessError(
            f"cannot write to the cache {error.filename or self.cache_root}: {error.strerror}",
            hint=f"set {self.cache_variable} to a folder that you may write to",
        )


def matching(pattern: re.Pattern[str], text: object) -> str:
    """`text`, which becomes part of a path, if it is the hash that the hub's API says it is."""
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"{text!r} is no hash")
    return text


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"^\[Errno -?\d+\] ", "", line)
