"""Lets in who shows an API key or the cluster token; and keeps a part without either on this machine."""

import hmac
from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_address

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from llmctl.core.errors import UsageError
from llmctl.services.http.errors import error_body
from llmctl.services.http.key_files import digest, read_digests, read_token
from llmctl.services.parts import is_loopback

OPEN_PATHS = frozenset({"/health", "/ready"})
"""What supervisors and load balancers ask without a key."""


class Keys:
    """The keys and tokens that are good; only their SHA-256 digests are kept."""

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._digests = tuple(dict.fromkeys(digests))

    @classmethod
    def of(cls, keys: Iterable[str]) -> "Keys":
        """The keys themselves."""
        return cls(map(digest, keys))

    @classmethod
    def read(cls, files: Sequence[str], token_file: str | None) -> "Keys":
        """The API keys of `files` and the token of `token_file`.

        Raises `NotFoundError` or `BadFileError` for a file that holds none: it must not leave a server open.
        """
        tokens = [] if token_file is None else [digest(read_token(token_file))]
        return cls([*read_digests(files), *tokens])

    @property
    def is_open(self) -> bool:
        """Whether nothing needs to be shown."""
        return not self._digests

    def accept(self, key: str | bytes) -> bool:
        """Whether `key` is good. How long that takes says nothing of the keys."""
        shown = digest(key)
        return sum(hmac.compare_digest(shown, known) for known in self._digests) > 0


class Guard:
    """Answers 401 to all that show no good key, but at the open paths."""

    def __init__(self, app: ASGIApp, keys: Keys, open_paths: Collection[str] = OPEN_PATHS) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan" or scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        if self._keys.is_open:
            is_foreign = scope["type"] == "http" and any(map(_is_domain, _hosts(scope)))
            await (_NO_DOMAIN if is_foreign else self._app)(scope, receive, send)
            return
        # All of them, so that the time tells nothing.
        accepted = [self._keys.accept(key) for key in _shown(scope)]
        if any(accepted):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _refusal(is_shown=bool(accepted))(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


def _hosts(scope: Scope) -> Iterable[str]:
    return (value.decode("latin-1") for name, value in scope["headers"] if name == b"host")


def _is_domain(host: str) -> bool:
    """Whether a `Host` field holds a name of the internet's.

    A page of the web can let its own name lead to this machine, and would then be served without a key.
    """
    name = host.strip().partition(":")[0].rstrip(".").lower()
    if host.startswith("[") or "." not in name or name.endswith(".localhost"):
        return False
    try:
        ip_address(name)
    except ValueError:
        return True
    return False


def check_bind(host: str, *, is_guarded: bool, flag: str) -> None:
    """Raise `UsageError` where `host` lets other machines in and nothing has to be shown; `flag` mends it."""
    if not is_guarded and not is_loopback(host):
        raise UsageError(
            f"--host {host} lets other machines in, and anybody there could use this server",
            hint=f"give {flag} FILE, or stay on this machine: --host 127.0.0.1",
        )


def _shown(scope: Scope) -> Iterable[bytes]:
    """The keys that a request shows; of several `Authorization` fields nobody knows which is meant."""
    tokens = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(tokens) == 1:
        scheme, _, key = tokens[0].partition(b" ")
        if scheme.lower() == b"bearer":
            yield key.strip()
    yield from (value.strip() for name, value in scope["headers"] if name == b"x-api-key")


_NO_DOMAIN = JSONResponse(
    error_body(
        "a server without keys answers to localhost and addresses, not to the name of a domain: give it "
        "--api-key-file",
        status=403,
        code="access",
    ),
    403,
)


def _refusal(*, is_shown: bool) -> JSONResponse:
    what = "the API key is not one of this server's" if is_shown else "an API key is needed"
    message = f"{what}: send it as Authorization: Bearer KEY"
    body = error_body(message, status=401, code="invalid_api_key")
    return JSONResponse(body, 401, {"WWW-Authenticate": "Bearer"})
