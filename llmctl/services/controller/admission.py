"""Whom a controller without a cluster token believes: programs of this machine, about workers on it.

With a token the guard in front asks for it, and nothing here does.
"""

from starlette.requests import Request

from llmctl.core.errors import AccessError, UsageError
from llmctl.services.parts import is_loopback, is_loopback_url, part_url

_HINT = "give the controller and its workers one --token-file"
_PASSED_ON = ("origin", "forwarded", "x-forwarded-for", "via")
"""Fields of a request that a browser made for a page, or a proxy for somebody elsewhere."""


def check_peer(request: Request) -> None:
    """Raise `AccessError` for a request from elsewhere, or one made here for somebody elsewhere."""
    peer = "" if request.client is None else request.client.host
    if not is_loopback(peer):
        raise AccessError("a controller without a cluster token answers only its own machine", hint=_HINT)
    # A page can send here what it likes, and give any name the address of this machine.
    is_passed_on = any(name in request.headers for name in _PASSED_ON)
    if is_passed_on or not _is_here(request.headers.get("host", "")):
        raise AccessError("a controller without a cluster token answers no browser and no proxy", hint=_HINT)


def check_worker(url: str) -> None:
    """Raise `AccessError` for a worker of another machine: whoever is asked next would be sent there."""
    if not is_loopback_url(url):
        raise AccessError(
            f"a controller without a cluster token takes only workers of its own machine, not {url}",
            hint=_HINT,
        )


def _is_here(host: str) -> bool:
    try:
        return is_loopback_url(part_url(host, what="Host"))
    except UsageError:
        return False
