"""Where whatever a route raises becomes an answer: the outermost place that still knows the request."""

import asyncio
import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmctl.core.errors import LlmctlError, NoWorkerError
from llmctl.services.http.errors import STOPPING, response_of
from llmctl.services.http.guard import OPEN_PATHS
from llmctl.services.http.ids import id_of

log = logging.getLogger(__name__)


class Edge:
    """Tells errors to the client while it has heard nothing; later ones cut the connection.

    A server that ends answers 503 to new requests, and to those that it cancels when their time is over.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["app"].state.is_draining and scope["path"] not in OPEN_PATHS:
            await response_of(NoWorkerError(STOPPING))(scope, receive, send)
            return
        is_begun = False

        async def send_and_see(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        except ClientDisconnect:
            log.debug("request %s: the client left", id_of(scope))
        except asyncio.CancelledError:
            if not is_begun:
                await response_of(NoWorkerError(STOPPING))(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # the edge: whatever nobody foresaw is told to no client
            if is_begun:
                _log(error, scope)
            else:
                await response_of(error)(scope, receive, send)


def _log(error: Exception, scope: Scope) -> None:
    if isinstance(error, LlmctlError):
        log.warning("request %s broke off: %s", id_of(scope), error.message)
    else:
        log.error("request %s broke off", id_of(scope), exc_info=error)
