"""A small stand-in for the hub's HTTP interface, for tests in this process or (by `HF_ENDPOINT`) in another.

    with StandInHub({"owner/name": {"config.json": b"{}", "model.safetensors": Path(...)}}) as hub:
        subprocess.run(..., env=os.environ | hub.environ(cache))
        hub.repo("owner/name").faults["model.safetensors"] = Fault(cut_at=1000, times=1)
        assert hub.gets("model.safetensors")[-1].range == "bytes=1000-"

It answers what huggingface_hub 2.4 (and through it transformers and `hf`) asks of models: a repository's
info with and without `blobs`, its tree, and HEAD and GET of `/resolve/`, with ranges. As on the real hub,
weights (`*.safetensors`, `*.bin`, ...) are LFS files: their ETag is a SHA-256, and `/resolve/` sends one on
to another host (here: another name of this one). The rest have git's blob SHA-1. What is missing or
forbidden gets the status and the `X-Error-Code` by which huggingface_hub tells the cases apart. A
repository may be changed while the server runs; each answer is made from its present state.
"""

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tests.hub_repo import (
    LFS_SUFFIXES,
    Body,
    Fault,
    Repo,
    commit_of,
    declared_size,
    digest_of,
    read,
    sibling,
    tiny_model,
    tiny_safetensors,
    tree_entry,
)

__all__ = [
    "RIGHT_TOKEN",
    "STRANGERS_TOKEN",
    "Fault",
    "Repo",
    "Seen",
    "StandInHub",
    "tiny_model",
    "tiny_safetensors",
]

RIGHT_TOKEN = "hf_right"
"""May see private and gated repositories."""
STRANGERS_TOKEN = "hf_stranger"
"""A valid token without rights."""
_PIECE = 16 * 1024
_ID = r"(?P<id>[^/]+(?:/[^/]+)?)"
_INFO = re.compile(
    rf"/api/models/{_ID}/revision/(?P<revision>[^/]+)|/api/models/(?P<id_only>[^/]+(?:/[^/]+)?)"
)
_TREE = re.compile(rf"/api/models/{_ID}/tree/(?P<revision>[^/]+)(?:/.*)?")
_RESOLVE = re.compile(rf"/{_ID}/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_CDN = re.compile(rf"/cdn/{_ID}/(?P<revision>[0-9a-f]{{40}})/(?P<name>.+)")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request that was answered, or is being answered."""

    method: str
    path: str
    range: str | None
    has_token: bool
    status: int
    num_bytes: int
    """Of the body, as far as it was sent."""


class StandInHub:
    """Serves `repos` on a free port of 127.0.0.1 from `__enter__` to `__exit__`."""

    def __init__(self, repos: Mapping[str, "Repo | Mapping[str, Body]"] | None = None) -> None:
        self._repos: dict[str, Repo] = {}
        self._exchanges: list[_Exchange] = []
        self.reset(repos)
        # Only for sockets that call themselves TCP asyncio turns Nagle's algorithm off, 40 ms an answer.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
        )
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> "StandInHub":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> "StandInHub":
        """Serve from now on; requests that come before the server is ready wait."""
        self._socket.listen()
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving: from now on connections are refused. May be called twice."""
        self._server.should_exit = True
        self._thread.join(timeout=10)
        assert not self._thread.is_alive(), "the stand-in hub does not stop"
        self._socket.close()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._server.should_exit

    @property
    def url(self) -> str:
        """For `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[Seen]:
        """All requests so far, in order of arrival."""
        return [exchange.seen() for exchange in list(self._exchanges)]

    def environ(self, home: Path) -> dict[str, str]:
        """Variables for a process that is to know no other hub, with its cache in `home`."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}

    def reset(self, repos: Mapping[str, "Repo | Mapping[str, Body]"] | None = None) -> None:
        """Offer `repos` instead of what there was, and forget the requests."""
        self._repos.clear()
        self._exchanges.clear()
        for repo_id, repo in (repos or {}).items():
            self.add(repo_id, repo)

    def add(self, repo_id: str, repo: "Repo | Mapping[str, Body]") -> Repo:
        """Offer one more repository, or replace it."""
        self._repos[repo_id] = repo if isinstance(repo, Repo) else Repo(files=dict(repo))
        return self._repos[repo_id]

    def repo(self, repo_id: str) -> Repo:
        """The repository, to be changed at will."""
        return self._repos[repo_id]

    def commit(self, repo_id: str, revision: str = "main") -> str:
        """The commit to which a branch or tag points now."""
        return commit_of(repo_id, self._branches(repo_id)[revision])

    def gets(self, name: str) -> list[Seen]:
        """The GETs that got an answer about the bytes of the file `name` (redirects are left out)."""
        return [
            seen
            for seen in self.requests
            if seen.method == "GET" and seen.path.endswith(f"/{name}") and seen.status not in (302, 307)
        ]

    def _branches(self, repo_id: str) -> dict[str, dict[str, Body]]:
        repo = self._repos[repo_id]
        return {"main": repo.files, **repo.revisions}

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        exchange = _Exchange(request)
        self._exchanges.append(exchange)
        response = await self._answer(request, exchange)
        exchange.status = response.status_code
        await response(scope, receive, exchange.counting(send))

    async def _answer(self, request: Request, exchange: "_Exchange") -> Response:
        path = request.scope["raw_path"].decode()
        for pattern, answer in (
            (_TREE, self._tree),
            (_INFO, self._info),
            (_CDN, self._bytes),
            (_RESOLVE, self._resolve),
        ):
            match = pattern.fullmatch(path)
            if match is not None:
                groups = {name: unquote(text) for name, text in match.groupdict().items() if text is not None}
                return await answer(request, groups)
        return _error(404, "", "Sorry, we can't find the page you are looking for.")

    async def _info(self, request: Request, groups: dict[str, str]) -> Response:
        repo_id = groups.get("id_only") or groups["id"]
        found = self._find(request, repo_id, groups.get("revision", "main"), is_file=False)
        if isinstance(found, Response):
            return found
        repo, files = found
        spoilt = await self._spoil(repo, "api")
        if isinstance(spoilt, Response):
            return spoilt
        if spoilt.body is not None:
            return Response(spoilt.body)
        has_blobs = request.query_params.get("blobs", "").lower() in ("true", "1")
        siblings = [sibling(repo, name, body, has_blobs) for name, body in files.items()]
        return JSONResponse(
            {
                "_id": "0" * 24,
                "id": repo_id,
                "modelId": repo_id,
                "sha": commit_of(repo_id, files),
                "private": repo.access == "private",
                "gated": "manual" if repo.access == "gated" else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": siblings,
            }
        )

    async def _tree(self, request: Request, groups: dict[str, str]) -> Response:
        found = self._find(request, groups["id"], groups["revision"], is_file=False)
        if isinstance(found, Response):
            return found
        repo, files = found
        return JSONResponse([tree_entry(repo, name, body) for name, body in files.items()])

    async def _resolve(self, request: Request, groups: dict[str, str]) -> Response:
        """Small files at once; for LFS files the way to the other host."""
        name = groups["name"]
        found = self._find(request, groups["id"], groups["revision"], is_file=True)
        if isinstance(found, Response):
            return found
        repo, files = found
        if name not in files:
            return _error(404, "EntryNotFound", "Entry not found")
        if not name.endswith(LFS_SUFFIXES):
            return await self._bytes(request, groups)
        commit, body = commit_of(groups["id"], files), read(files[name])
        headers = {
            "Location": f"http://localhost:{self._port}/cdn/{groups['id']}/{commit}/{name}",
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(declared_size(repo, name, body)),
            "X-Linked-ETag": f'"{digest_of(name, body)}"',
        }
        return Response(status_code=302, headers=headers)

    async def _bytes(self, request: Request, groups: dict[str, str]) -> Response:
        repo_id, name = groups["id"], groups["name"]
        files = self._files_at(repo_id, groups["revision"])
        if files is None or name not in files:
            return _error(404, "EntryNotFound", "Entry not found")
        true_body = read(files[name])
        headers = {"ETag": f'"{digest_of(name, true_body)}"', "X-Repo-Commit": commit_of(repo_id, files)}
        if request.method == "HEAD":
            return Response(
                headers=headers | {"Content-Length": str(len(true_body)), "Accept-Ranges": "bytes"}
            )
        spoilt = await self._spoil(self._repos[repo_id], name)
        if isinstance(spoilt, Response):
            return spoilt
        body = true_body if spoilt.body is None else spoilt.body
        return self._ranged(request, body, headers, spoilt)

    def _ranged(self, request: Request, body: bytes, headers: dict[str, str], fault: Fault) -> Response:
        start, status = 0, 200
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        end = len(body)
        if match and not fault.ignores_range:
            start, status = int(match[1]), 206
            end = min(int(match[2]) + 1, len(body)) if match[2] else len(body)
            if start >= len(body):
                return Response(status_code=416, headers={"Content-Range": f"bytes */{len(body)}"})
            headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(body)}"}
        headers = headers | {"Content-Length": str(end - start), "Accept-Ranges": "bytes"}
        pieces = self._pieces(body[start:end], start, fault)
        return StreamingResponse(pieces, status_code=status, headers=headers)

    async def _pieces(self, body: bytes, start: int, fault: Fault) -> AsyncIterator[bytes]:
        end = len(body) if fault.cut_at is None else max(0, min(len(body), fault.cut_at - start))
        size = _PIECE if fault.bytes_per_s is None else max(1, min(_PIECE, int(fault.bytes_per_s / 20)))
        for offset in range(0, end, size):
            piece = body[offset : min(offset + size, end)]
            yield piece
            if fault.bytes_per_s is not None:
                await asyncio.sleep(len(piece) / fault.bytes_per_s)
        # Ending short of Content-Length makes uvicorn break the connection, as a dying server would.

    async def _spoil(self, repo: Repo, name: str) -> Fault | Response:
        """Use up one of the fault's times. The answer to give instead, or what is to befall the body."""
        fault = repo.faults.get(name, Fault())
        if fault.times == 0:
            return Fault()
        if fault.times is not None:
            fault.times -= 1
        while fault.is_silent and not self._server.should_exit:
            await asyncio.sleep(0.02)
        if fault.status is not None:
            wait = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
            return Response(status_code=fault.status, headers=wait)
        return fault

    def _find(
        self, request: Request, repo_id: str, revision: str, *, is_file: bool
    ) -> "Response | tuple[Repo, dict[str, Body]]":
        """The repository and its files at `revision`, or the refusal that the real hub gives."""
        repo = self._repos.get(repo_id)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in ("", RIGHT_TOKEN, STRANGERS_TOKEN):
            return _error(401, "", "Invalid credentials in Authorization header")
        if repo is None or (repo.access == "private" and token != RIGHT_TOKEN):
            # Whether a private repository exists is told to nobody.
            return _error(404 if token else 401, "RepoNotFound", "Repository not found")
        if is_file and repo.access == "gated" and token != RIGHT_TOKEN:
            return _error(403 if token else 401, "GatedRepo", f"Access to model {repo_id} is restricted.")
        files = self._files_at(repo_id, revision)
        if files is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, files

    def _files_at(self, repo_id: str, revision: str) -> "dict[str, Body] | None":
        if repo_id not in self._repos:
            return None
        branches = self._branches(repo_id)
        by_commit = {commit_of(repo_id, files): files for files in branches.values()}
        return branches.get(revision) or by_commit.get(revision)


class _Exchange:
    """A request with its answer as far as it got."""

    def __init__(self, request: Request) -> None:
        self.status = 0
        self._num_bytes = 0
        self._request = request

    def counting(self, send: Send) -> Send:
        """`send` that counts the bytes of the body."""

        async def counted(message: "dict[str, object]") -> None:
            body = message.get("body", b"")
            assert isinstance(body, bytes)
            await send(message)
            self._num_bytes += len(body)

        return counted  # type: ignore[return-value]

    def seen(self) -> Seen:
        headers = self._request.headers
        return Seen(
            method=self._request.method,
            path=self._request.url.path,
            range=headers.get("range"),
            has_token="authorization" in headers,
            status=self.status,
            num_bytes=self._num_bytes,
        )


def _error(status: int, code: str, message: str) -> Response:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return JSONResponse({"error": message}, status_code=status, headers=headers)
