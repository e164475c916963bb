"""The stand-in hub of `tests.hub` that can be written to as well, by whoever has the right token.

    with WritableHub() as hub:
        llmctl("models", "push", folder, "owner/name")     # HF_ENDPOINT=hub.url, HF_TOKEN=hf_right
        assert hub.repo("owner/name").files["config.json"] == b"{}"

It answers what huggingface_hub 2.4 asks when it makes a repository and a commit: which files are large, where
to put those (LFS, basic transfer), and the commit with the small ones in it.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.hub import RIGHT_TOKEN, Repo, StandInHub, _Exchange
from tests.hub_repo import LFS_SUFFIXES

_REPO = r"(?P<id>[^/]+/[^/]+)"
_PREUPLOAD = re.compile(rf"/api/models/{_REPO}/preupload/(?P<revision>[^/]+)")
_COMMIT = re.compile(rf"/api/models/{_REPO}/commit/(?P<revision>[^/]+)")
_BATCH = re.compile(rf"/{_REPO}\.git/info/lfs/objects/batch")
_OBJECT = re.compile(r"/lfs/(?P<oid>[0-9a-f]{64})")


class WritableHub(StandInHub):
    """As its parent, and takes repositories and commits."""

    objects: dict[str, bytes]
    """Large files that have arrived, by their SHA-256."""

    def __init__(self, *args: Any) -> None:
        self.objects = {}
        super().__init__(*args)

    def environ(self, home: Path) -> dict[str, str]:
        """As its parent's; large files come by LFS, since Xet is no protocol that could be stood in for."""
        return {**super().environ(home), "HF_HUB_DISABLE_XET": "1"}

    async def _answer(self, request: Request, exchange: _Exchange) -> Response:
        path = request.scope["raw_path"].decode()
        if request.method not in ("POST", "PUT"):
            return await super()._answer(request, exchange)
        if path == "/api/validate-yaml":
            return self._validated(await request.json())
        if match := _OBJECT.fullmatch(path):
            return self._put(match["oid"], await request.body())
        if request.headers.get("authorization") != f"Bearer {RIGHT_TOKEN}":
            return _refusal(401 if "authorization" not in request.headers else 403)
        if path == "/api/repos/create":
            return self._create(await request.json())
        for pattern, answer in (
            (_PREUPLOAD, self._preupload),
            (_COMMIT, self._commit),
            (_BATCH, self._batch),
        ):
            if match := pattern.fullmatch(path):
                return answer(unquote(match["id"]), await request.body())
        return await super()._answer(request, exchange)

    def _validated(self, asked: dict[str, Any]) -> Response:
        wrong = "license: nonsense" in asked["content"]
        errors = [{"message": '"license" must be one of apache-2.0, mit'}] if wrong else []
        return JSONResponse({"errors": errors, "warnings": []}, status_code=400 if wrong else 200)

    def _create(self, asked: dict[str, Any]) -> Response:
        repo_id = f"{asked['organization']}/{asked['name']}"
        body = {"url": f"{self.url}/{repo_id}", "name": repo_id}
        if repo_id in self._repos:
            return JSONResponse({**body, "error": "You already created this model repo"}, status_code=409)
        is_private = asked.get("private") or asked.get("visibility") == "private"
        self.add(repo_id, Repo(files={}, access="private" if is_private else "public"))
        return JSONResponse(body)

    def _preupload(self, repo_id: str, body: bytes) -> Response:
        asked = [file["path"] for file in json.loads(body)["files"]]
        files = [
            {
                "path": name,
                "uploadMode": "lfs" if name.endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
            }
            for name in asked
        ]
        return JSONResponse({"files": files})

    def _batch(self, repo_id: str, body: bytes) -> Response:
        objects = []
        for each in json.loads(body)["objects"]:
            actions = {"upload": {"href": f"{self.url}/lfs/{each['oid']}"}}
            # What is here already needs no upload.
            objects.append({**each, **({} if each["oid"] in self.objects else {"actions": actions})})
        return JSONResponse({"transfer": "basic", "objects": objects})

    def _put(self, oid: str, body: bytes) -> Response:
        if hashlib.sha256(body).hexdigest() != oid:
            return _refusal(400)
        self.objects[oid] = body
        return Response()

    def _commit(self, repo_id: str, body: bytes) -> Response:
        repo = self.repo(repo_id)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo.files[value["path"]] = self.objects[value["oid"]]
        commit = self.commit(repo_id)
        return JSONResponse(
            {"commitUrl": f"{self.url}/{repo_id}/commit/{commit}", "commitOid": commit, "success": True}
        )


def _refusal(status: int) -> Response:
    return JSONResponse({"error": "You are not allowed to do this"}, status_code=status)
