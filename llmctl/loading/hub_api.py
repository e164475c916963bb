"""Asks the hub (huggingface.co or `HF_ENDPOINT`) about one repository, and words its refusals.

Tokens, offline mode and error classes are huggingface_hub's; its errors, httpx2's and the disk's become
llmctl's here, and only here.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmctl import __version__
from llmctl.core.errors import AccessError, DoesNotFitError, LlmctlError, NotFoundError, UnreachableError
from llmctl.loading.fetch import RemoteFile
from llmctl.loading.local_models import hub_folder

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOGIN = "set HF_TOKEN or run `hf auth login`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """One repository at a revision, on one server."""

    repo_id: str
    revision: str | None
    endpoint: str
    cache_root: Path
    timeout_s: float
    is_offline: bool
    headers: Mapping[str, str]
    """The token too, so they are never logged."""

    @classmethod
    def from_environ(cls, repo_id: str, *, revision: str | None) -> "Hub":
        """As huggingface_hub reads `HF_*`, but at this moment: it reads most of them when it is imported."""
        from huggingface_hub import constants, is_offline_mode
        from huggingface_hub.utils import get_token_to_send

        token = get_token_to_send(None)
        agent = {"User-Agent": f"llmctl/{__version__}"}
        return cls(
            repo_id=repo_id,
            revision=revision,
            endpoint=(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/"),
            cache_root=hub_folder(os.environ),
            timeout_s=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            is_offline=is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE,
            headers=agent | ({"Authorization": f"Bearer {token}"} if token else {}),
        )

    def list_files(self) -> tuple[str, dict[str, RemoteFile]]:
        """The commit of the revision, and its files by name."""
        from huggingface_hub import get_session, hf_raise_for_status

        url = f"{self.endpoint}/api/models/{self.repo_id}"
        if self.revision is not None:
            url += f"/revision/{quote(self.revision, safe='')}"
        with self.errors(hint="check the network and HF_ENDPOINT; a model in the cache runs without the hub"):
            # Through the bare session: HfApi's user agent costs a call to the hub of its own, up to 3 s.
            response = get_session().get(
                url, params={"blobs": "true"}, headers=dict(self.headers), timeout=self.timeout_s
            )
            hf_raise_for_status(response)
        try:
            return self._parse(response.json())
        except (ValueError, KeyError, TypeError) as error:
            raise UnreachableError(
                f"{self.endpoint} does not answer as a hub does: {_first_line(error)}",
                hint="check HF_ENDPOINT; a network's login page may also stand in between",
            ) from error

    @contextmanager
    def errors(self, *, hint: str) -> Iterator[None]:
        """Turn foreign errors into llmctl's; `hint` is the remedy when the network is at fault."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except HfHubHTTPError as error:
            raise self._http_error(error, hint) from error
        except (httpx2.RequestError, httpx2.InvalidURL, ConnectionError) as error:
            reason = _first_line(error)
            raise UnreachableError(f"cannot reach the hub at {self.endpoint}: {reason}", hint=hint) from error
        except OSError as error:
            raise self._disk_error(error) from error

    def _parse(self, answer: Mapping[str, Any]) -> tuple[str, dict[str, RemoteFile]]:
        commit = _matching(COMMIT, answer["sha"])
        files = [self._parse_file(sibling, commit) for sibling in answer["siblings"]]
        return commit, {file.name: file for file in files}

    def _parse_file(self, sibling: Mapping[str, Any], commit: str) -> RemoteFile:
        name = str(sibling["rfilename"])
        lfs = sibling.get("lfs")
        return RemoteFile(
            name=name,
            url=f"{self.endpoint}/{self.repo_id}/resolve/{commit}/{quote(name)}",
            num_bytes=int(lfs["size"] if lfs else sibling["size"]),
            digest=_matching(_DIGEST, lfs["sha256"] if lfs else sibling["blobId"]),
            is_lfs=bool(lfs),
        )

    def _http_error(self, error: "HfHubHTTPError", hint: str) -> LlmctlError:
        from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

        page = f"{self.endpoint}/{self.repo_id}"
        had_token = "Authorization" in self.headers
        status = error.response.status_code
        if isinstance(error, GatedRepoError):
            return AccessError(
                f"{self.repo_id} is gated: its makers ask every user to accept their terms",
                hint=f"accept them at {page}" + ("" if had_token else f", then {_LOGIN}"),
            )
        if isinstance(error, RevisionNotFoundError):
            return NotFoundError(
                f"{self.repo_id} has no revision {self.revision!r}", hint=f"see {page}/tree/main"
            )
        if status == 404 or (status == 401 and not had_token):
            return NotFoundError(
                f"no model {self.repo_id} on {self.endpoint}, or it is private",
                hint="check the spelling"
                + (" and the token's rights" if had_token else f"; for a private model {_LOGIN}"),
            )
        if status in (401, 403):
            return AccessError(
                f"{self.endpoint} refuses access to {self.repo_id} (HTTP {status})",
                hint=f"check the token and its rights: {_LOGIN}",
            )
        return UnreachableError(
            f"the hub at {self.endpoint} answers HTTP {status}", hint=f"try again later; {hint}"
        )

    def _disk_error(self, error: OSError) -> LlmctlError:
        if error.errno in _DISK_FULL:
            return DoesNotFitError(
                f"the disk of {self.cache_root} is full",
                hint="free some space and run the same command again, or set HF_HOME to a larger disk",
            )
        return AccessError(
            f"cannot write to the cache {error.filename or self.cache_root}: {error.strerror}",
            hint="set HF_HOME to a folder that you may write to",
        )


def _matching(pattern: re.Pattern[str], text: object) -> str:
    """`text`, which becomes part of a path, if it is the hash that the hub's API says it is."""
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"{text!r} is no hash")
    return text


def _first_line(error: Exception) -> str:
    line = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"^\[Errno -?\d+\] ", "", line)
