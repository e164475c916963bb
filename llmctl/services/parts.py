"""Where the parts of a fleet are, and which of them may talk to each other without a cluster token."""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from llmctl.core.errors import UsageError
from llmctl.services import fields

CONTROLLER_PORT, WORKER_PORT, API_PORT = 21001, 21002, 8000
DEFAULT_CONTROLLER = f"http://127.0.0.1:{CONTROLLER_PORT}"
_URL = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?)"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE | re.ASCII,
)


def controller_urls(texts: Sequence[str], *, has_token: bool) -> tuple[str, ...]:
    """The controllers that a worker, a gateway or a user names, each once.

    Raises `UsageError` for what is no URL of one, and for another machine's where no token is shown to it.
    """
    urls = tuple(dict.fromkeys(part_url(text, what="the controller") for text in texts))
    for url in () if has_token else urls:
        if not is_loopback_url(url):
            raise UsageError(
                f"the controller {url} is on another machine: it takes no one without the cluster token",
                hint="give it: --token-file FILE or LLMCTL_CLUSTER_TOKEN_FILE",
            )
    return urls


def part_url(text: str, *, what: str) -> str:
    """The URL of a controller or worker, written in one way; without a scheme it is http.

    Raises `UsageError` for what is more or less than scheme, host and port; `what` names it.
    """
    match = _URL.fullmatch(text)
    if match is None or not _is_host(match["host"]) or not 0 < int(match["port"] or 1) < 2**16:
        told = fields.shown(re.sub("//.*@", "//***@", text))
        raise UsageError(f"{what} {told} is not scheme, host and port", hint=f"like {DEFAULT_CONTROLLER}")
    port = f":{match['port']}" if match["port"] else ""
    return f"{(match['scheme'] or 'http').lower()}://{match['host'].lower()}{port}"


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine and no other can be meant."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def is_loopback_url(url: str) -> bool:
    """Whether a URL names this machine."""
    return is_loopback(urlsplit(url).hostname or "")


def _is_host(text: str) -> bool:
    """Whether what could be a host's name is one, or an address."""
    try:
        return not text.startswith("[") or bool(ip_address(text[1:-1]))
    except ValueError:
        return False
