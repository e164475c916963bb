"""Asks ModelScope (modelscope.cn or `MODELSCOPE_ENDPOINT`) about one repository, and words its refusals.

Its interface is that of the `modelscope` package, which is not needed; only `MODELSCOPE_API_TOKEN` is read of
its credentials, as the file that its login leaves is a pickle.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmctl import __version__
from llmctl.core.errors import AccessError, LlmctlError, NotFoundError
from llmctl.loading.hub.api import is_offline
from llmctl.loading.hub.fetch import RemoteFile
from llmctl.loading.hub.local_models import modelscope_folder
from llmctl.loading.hub.site import Site, matching

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_ENDPOINT = "https://modelscope.cn"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOGIN = "set MODELSCOPE_API_TOKEN to a token of your account"
_OK = (200, "200", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScope(Site):
    """One repository at a revision, on one server."""

    name = kind = "ModelScope"
    default_revision = "master"
    endpoint_variable = "MODELSCOPE_ENDPOINT"
    cache_variable = "LLMCTL_CACHE_HOME"

    @classmethod
    def from_environ(cls, repo_id: str, *, revision: str | None) -> "ModelScope":
        """As the `modelscope` package reads its variables; waiting and offline mode are the hub's."""
        from huggingface_hub import constants

        token = os.environ.get("MODELSCOPE_API_TOKEN", "").strip()
        # Older servers look for the cookie, newer ones for the other.
        access = {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}
        return cls(
            repo_id=repo_id,
            revision=revision,
            endpoint=_endpoint(os.environ),
            cache_root=modelscope_folder(os.environ),
            timeout_s=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            is_offline=is_offline(),
            headers={"User-Agent": f"llmctl/{__version__}", **access},
        )

    def list_files(self) -> tuple[str, dict[str, RemoteFile]]:
        """A digest of the listing in the place of a commit, which ModelScope does not tell, and the files."""
        from huggingface_hub import get_session, hf_raise_for_status

        hint = "check the network and MODELSCOPE_ENDPOINT; a model in the cache runs without ModelScope"
        with self.errors(hint=hint):
            response = get_session().get(
                f"{self._api}/repo/files",
                params={"Revision": self.asked_revision, "Recursive": "True"},
                headers=dict(self.headers),
                timeout=self.timeout_s,
            )
            hf_raise_for_status(response)
        try:
            return self._parse(response.json())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self.not_understood(error) from error

    def http_error(self, error: "HfHubHTTPError", hint: str) -> LlmctlError:
        """See `Site`."""
        status = error.response.status_code
        if status == 404:
            return self._not_found()
        if status in (401, 403):
            return AccessError(
                f"{self.endpoint} refuses access to {self.repo_id} (HTTP {status})",
                hint=f"it is private, or the token is wrong: {_LOGIN}",
            )
        return self.busy(status, hint)

    @property
    def _api(self) -> str:
        return f"{self.endpoint}/api/v1/models/{self.repo_id}"

    def _parse(self, answer: Mapping[str, Any]) -> tuple[str, dict[str, RemoteFile]]:
        # Some refusals come with HTTP 200.
        if answer.get("Code") not in _OK or answer.get("Success") is False:
            raise self._not_found(str(answer.get("Message") or answer.get("Code")))
        entries = [entry for entry in answer["Data"]["Files"] if entry.get("Type") != "tree"]
        files = {file.name: file for file in map(self._parse_file, entries)}
        listing = json.dumps(sorted((file.name, file.digest) for file in files.values()))
        return hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest(), files

    def _parse_file(self, entry: Mapping[str, Any]) -> RemoteFile:
        name = str(entry["Path"])
        revision, path = quote(self.asked_revision, safe=""), quote(name, safe="")
        return RemoteFile(
            name=name,
            url=f"{self._api}/repo?Revision={revision}&FilePath={path}",
            num_bytes=int(entry["Size"]),
            digest=matching(_SHA256, entry["Sha256"]),
            is_lfs=True,
        )

    def _not_found(self, reason: str = "") -> NotFoundError:
        told = f" ({reason})" if reason else ""
        revision = f" at the revision {self.revision!r}" if self.revision else ""
        return NotFoundError(
            f"no model {self.repo_id}{revision} on {self.endpoint}, or it is private{told}",
            hint="check the spelling: names there often differ from those of the hub; "
            f"for a private model {_LOGIN}",
        )


def _endpoint(environ: Mapping[str, str]) -> str:
    """`MODELSCOPE_ENDPOINT`, else `MODELSCOPE_DOMAIN`; either may leave out the https."""
    told = environ.get("MODELSCOPE_ENDPOINT", "").strip() or environ.get("MODELSCOPE_DOMAIN", "").strip()
    if not told:
        return _ENDPOINT
    return (told if told.lower().startswith(("http://", "https://")) else f"https://{told}").rstrip("/")
