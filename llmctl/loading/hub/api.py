"""Asks the hub (huggingface.co or `HF_ENDPOINT`) about one repository, and words its refusals.

Tokens, offline mode and error classes are huggingface_hub's.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmctl import __version__
from llmctl.core.errors import AccessError, LlmctlError, NotFoundError
from llmctl.loading.hub.fetch import RemoteFile
from llmctl.loading.hub.local_models import hub_folder
from llmctl.loading.hub.site import Site, matching

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
_LOGIN = "set HF_TOKEN or run `hf auth login`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub(Site):
    """One repository at a revision, on one server."""

    name = "the hub"
    kind = "a hub"
    default_revision = "main"
    endpoint_variable = "HF_ENDPOINT"
    cache_variable = "HF_HOME"

    @classmethod
    def from_environ(cls, repo_id: str, *, revision: str | None) -> "Hub":
        """As huggingface_hub reads `HF_*`, but at this moment: it reads most of them when it is imported."""
        from huggingface_hub import constants
        from huggingface_hub.utils import get_token_to_send

        token = get_token_to_send(None)
        agent = {"User-Agent": f"llmctl/{__version__}"}
        return cls(
            repo_id=repo_id,
            revision=revision,
            endpoint=(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/"),
            cache_root=hub_folder(os.environ),
            timeout_s=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            is_offline=is_offline(),
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
            raise self.not_understood(error) from error

    def _parse(self, answer: Mapping[str, Any]) -> tuple[str, dict[str, RemoteFile]]:
        commit = matching(COMMIT, answer["sha"])
        files = [self._parse_file(sibling, commit) for sibling in answer["siblings"]]
        return commit, {file.name: file for file in files}

    def _parse_file(self, sibling: Mapping[str, Any], commit: str) -> RemoteFile:
        name = str(sibling["rfilename"])
        lfs = sibling.get("lfs")
        return RemoteFile(
            name=name,
            url=f"{self.endpoint}/{self.repo_id}/resolve/{commit}/{quote(name)}",
            num_bytes=int(lfs["size"] if lfs else sibling["size"]),
            digest=matching(_DIGEST, lfs["sha256"] if lfs else sibling["blobId"]),
            is_lfs=bool(lfs),
        )

    def http_error(self, error: "HfHubHTTPError", hint: str) -> LlmctlError:
        """See `Site`."""
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
        return self.busy(status, hint)


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids to ask any hub."""
    from huggingface_hub import is_offline_mode

    return is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE
