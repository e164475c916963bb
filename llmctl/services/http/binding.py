"""Takes the address that a server is to listen at."""

import errno
import os
import socket

from llmctl.core.errors import AccessError, LlmctlError, UsageError

BACKLOG = 2048
_MAX_PORT = 65535


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens from now on; port 0 is any that is free.

    Raises `UsageError` where the port is taken or the host is not this machine, `AccessError` where it may
    not be had.
    """
    if not 0 <= port <= _MAX_PORT:
        raise UsageError(f"--port {port} is no port", hint=f"0 to {_MAX_PORT}")
    family, address = _resolved(host, port)
    # Named, or asyncio would not know that it is TCP, and leave Nagle's 40 ms in each answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            # Elsewhere it would let two listen at one port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _not_bound(host, port, error) from error
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a socket listens."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The first IPv4 address of `host`, or the first of another kind."""
    try:
        if not host:
            raise OSError(errno.EINVAL, "it is empty")
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or "it is no name"
        raise UsageError(f"--host {host} cannot be found: {told}", hint=_HOST_HINT) from error
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address  # type: ignore[return-value]  # (host, port), and more for IPv6


_HOST_HINT = "give a name or address of this machine, like 127.0.0.1"


def _not_bound(host: str, port: int, error: OSError) -> LlmctlError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} of {host} is taken: another program listens there",
            hint="give another --port, 0 for any that is free, or end that program",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessError(
            f"port {port} of {host} is not for this user: {error.strerror}", hint="give a --port above 1023"
        )
    return UsageError(f"--host {host} cannot be listened at: {error.strerror}", hint=_HOST_HINT)
