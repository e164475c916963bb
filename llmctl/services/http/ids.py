"""Gives each request an id: in the answer, in the log, and for whoever it is passed on to."""

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class RequestIds:
    """Keeps the id that a client gives, or makes one: `scope["state"]["request_id"]` and `X-Request-Id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given(scope) or f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        status, started = 0, time.monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                others = [field for field in message.get("headers", ()) if field[0] != HEADER]
                message["headers"] = [*others, (HEADER, request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            took_s = time.monotonic() - started
            # As it was sent: what is unquoted could write lines of its own.
            path = scope["raw_path"].decode("ascii", "replace")
            told = (scope["method"], path, status or "no answer", took_s, request_id)
            log.info("%s %s: %s in %.3f s (%s)", *told)


def id_of(scope: Scope) -> str:
    """The id of the request; "" where none was given."""
    return str(scope.get("state", {}).get("request_id", ""))


def _given(scope: Scope) -> str | None:
    given = [value for name, value in scope["headers"] if name == HEADER]
    return given[0].decode() if len(given) == 1 and _SANE.fullmatch(given[0]) else None
