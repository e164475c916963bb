"""Makes the base URL of a server out of what users write: `host:port`, with or without `/v1`, an endpoint."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from llmctl.core.errors import UsageError

_CREDENTIALS = re.compile(r"(?:^|(?<=//)).*@")
_ENDPOINTS = ("/chat/completions", "/completions", "/models")
_EXAMPLE = "give it like http://localhost:8000/v1"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is."""

    base_url: str
    """With its path and without a slash at the end; holds no secret."""
    host: str

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine, as far as the name tells."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            ip = ip_address(self.host)
        except ValueError:
            return False
        return ip.is_loopback or ip.is_unspecified

    @property
    def is_secret(self) -> bool:
        """Whether nobody on the way can read what is sent there."""
        return self.is_loopback or self.is_encrypted

    @property
    def is_encrypted(self) -> bool:
        """Whether it is https."""
        return self.base_url.startswith("https://")


def parse(text: str) -> Address:
    """The address that `text` means; without a path it is `/v1`, without a scheme http.

    Raises `UsageError` for what is no address of a server, or holds a password or a query.
    """
    text = text.strip()
    split = _split(text if "://" in text else f"http://{text}", shown=without_credentials(text))
    if "@" in split.netloc:
        raise UsageError(
            f"the address of {split.hostname} holds a user name or password",
            hint="give the key in a file or in LLMCTL_API_KEY",
        )
    if split.query or split.fragment:
        shown = re.split("[?#]", text)[0]
        raise UsageError(f"{shown!r} is followed by a query or a fragment: neither is sent", hint=_EXAMPLE)
    return Address(f"{split.scheme}://{split.netloc}{_base_path(split.path)}", split.hostname or "")


def without_credentials(text: str) -> str:
    """`text` with the user name and password of a URL taken out."""
    return _CREDENTIALS.sub("***@", text)


def _split(text: str, *, shown: str) -> SplitResult:
    try:
        split = urlsplit(text)
        # Name look-up encodes it the same way, and fails with an error that nobody expects.
        is_host = bool((split.hostname or "").encode("idna"))
        is_host = is_host and not split.netloc.endswith(":") and split.port != 0
    except ValueError:
        is_host = False
    if not is_host or not text.isprintable() or " " in text:
        raise UsageError(f"{shown!r} is not the address of a server", hint=_EXAMPLE)
    if split.scheme not in ("http", "https"):
        raise UsageError(f"{shown!r} is neither http nor https", hint=_EXAMPLE)
    return split


def _base_path(path: str) -> str:
    path = path.rstrip("/")
    for endpoint in _ENDPOINTS:
        if path.endswith(endpoint):
            return path.removesuffix(endpoint)
    return path or "/v1"
