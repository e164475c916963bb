"""A small stand-in for ModelScope's HTTP interface, for tests in this process or in another.

    with StandInModelScope({"owner/name": tiny_model()}) as site:
        subprocess.run(..., env=os.environ | site.environ(cache))

It answers what the `modelscope` package asks of models: the list of files of a revision with their SHA-256,
and the files, of which the large ones lie on another host (here: another name of this one). Faults are those
of `tests.hub`.
"""

import hashlib
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.hub import RIGHT_TOKEN, StandInHub, _Exchange
from tests.hub_repo import LFS_SUFFIXES, Body, Repo, commit_of, declared_size, read

_FILES = re.compile(r"/api/v1/models/(?P<id>[^/]+/[^/]+)/repo/files")
_FILE = re.compile(r"/api/v1/models/(?P<id>[^/]+/[^/]+)/repo")
_CDN = re.compile(r"/cdn/(?P<id>[^/]+/[^/]+)/(?P<revision>[0-9a-f]{40})/(?P<name>.+)")


class StandInModelScope(StandInHub):
    """Serves `repos` on a free port of 127.0.0.1; their `files` are the branch `master`."""

    says_refusals_with_200 = False
    """Whether a refusal is told in the body alone."""
    cdn_got_secrets = False

    def environ(self, home: Path) -> dict[str, str]:
        """Variables for a process that is to know this server alone, with its cache in `home`."""
        return {
            "LLMCTL_HUB": "modelscope",
            "MODELSCOPE_ENDPOINT": self.url,
            "LLMCTL_CACHE_HOME": str(home),
        }

    def _branches(self, repo_id: str) -> dict[str, dict[str, Body]]:
        repo = self._repos[repo_id]
        return {"master": repo.files, **repo.revisions}

    async def _answer(self, request: Request, exchange: _Exchange) -> Response:
        path = request.url.path
        if match := _CDN.fullmatch(path):
            self.cdn_got_secrets |= bool({"authorization", "cookie"} & set(request.headers.keys()))
            return await self._bytes(request, match.groupdict())
        if match := _FILES.fullmatch(path):
            return await self._list(request, match["id"])
        if match := _FILE.fullmatch(path):
            return await self._file(request, match["id"])
        return self._refusal(404, "page not found")

    async def _list(self, request: Request, repo_id: str) -> Response:
        found = self._looked_up(request, repo_id)
        if isinstance(found, Response):
            return found
        repo, files = found
        spoilt = await self._spoil(repo, "api")
        if isinstance(spoilt, Response):
            return spoilt
        if spoilt.body is not None:
            return Response(spoilt.body)
        assert request.query_params["Recursive"] == "True"
        entries = [_entry(repo, name, body) for name, body in files.items()]
        folder = {"Name": "sub", "Path": "sub", "Type": "tree", "Size": 0, "Sha256": "", "IsLFS": False}
        return JSONResponse({"Code": 200, "Success": True, "Data": {"Files": [folder, *entries]}})

    async def _file(self, request: Request, repo_id: str) -> Response:
        found = self._looked_up(request, repo_id)
        if isinstance(found, Response):
            return found
        _, files = found
        name = request.query_params["FilePath"]
        if name not in files:
            return self._refusal(404, "file not found")
        commit = commit_of(repo_id, files)
        if name.endswith(LFS_SUFFIXES):
            host = self.url.replace("127.0.0.1", "localhost")
            return Response(status_code=302, headers={"Location": f"{host}/cdn/{repo_id}/{commit}/{name}"})
        return await self._bytes(request, {"id": repo_id, "revision": commit, "name": name})

    def _looked_up(self, request: Request, repo_id: str) -> Response | tuple[Repo, dict[str, Body]]:
        repo = self._repos.get(repo_id)
        tokens = {request.headers.get("authorization"), request.cookies.get("m_session_id")}
        if repo is None or (repo.access != "public" and tokens != {f"Bearer {RIGHT_TOKEN}", RIGHT_TOKEN}):
            return self._refusal(404, "record not found")
        files = self._files_at(repo_id, request.query_params["Revision"])
        return self._refusal(404, "revision not found") if files is None else (repo, files)

    def _refusal(self, status: int, message: str) -> Response:
        body = {"Code": 10010205001, "Message": message, "Success": False, "Data": None}
        return JSONResponse(body, status_code=200 if self.says_refusals_with_200 else status)


def _entry(repo: Repo, name: str, body: Body) -> dict[str, object]:
    data = read(body)
    return {
        "Name": name.rpartition("/")[2],
        "Path": name,
        "Type": "blob",
        "Size": declared_size(repo, name, data),
        "Sha256": hashlib.sha256(data).hexdigest(),
        "IsLFS": name.endswith(LFS_SUFFIXES),
        "Revision": "0" * 40,
    }
