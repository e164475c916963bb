"""Puts an app together from its routes: ids, metrics, errors, guard, and the routes that every part has."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from llmctl import __version__
from llmctl.core.errors import NoWorkerError
from llmctl.services.http import metrics
from llmctl.services.http.edge import Edge
from llmctl.services.http.errors import STOPPING, handlers, response_of
from llmctl.services.http.guard import OPEN_PATHS, Guard, Keys
from llmctl.services.http.ids import RequestIds

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


class NotReadyError(NoWorkerError):
    """The part does not serve now."""

    code = "not_ready"


@asynccontextmanager
async def _no_lifespan(_: Starlette) -> AsyncIterator[None]:
    yield


def build(
    routes: Sequence[BaseRoute],
    *,
    keys: Keys,
    registry: CollectorRegistry,
    why_not_ready: Callable[[], str | None],
    description: Mapping[str, Any] | None = None,
    lifespan: Lifespan = _no_lifespan,
) -> Starlette:
    """The app of a part, for `serving.serve`.

    `why_not_ready` gives a reason while the part cannot serve; `description` is its OpenAPI. A coroutine
    function `app.state.drain`, which whoever calls this may set, is awaited when the app is told to end;
    `app.state.is_draining` is true from then on.
    """

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        reason = STOPPING if request.app.state.is_draining else why_not_ready()
        return JSONResponse({"status": "ready"}) if reason is None else response_of(NotReadyError(reason))

    async def version(_: Request) -> Response:
        return JSONResponse({"version": __version__})

    async def measured(_: Request) -> Response:
        return metrics.page(registry)

    async def described(_: Request) -> Response:
        return JSONResponse(description)

    own = {"/health": health, "/ready": ready, "/version": version, "/metrics": measured}
    if description is not None:
        own["/openapi.json"] = described
    app = Starlette(
        routes=[*(Route(path, endpoint) for path, endpoint in own.items()), *routes],
        middleware=[
            Middleware(RequestIds),
            Middleware(metrics.HttpMetrics, registry=registry),
            Middleware(Edge),
            Middleware(Guard, keys=keys, open_paths=OPEN_PATHS),
        ],
        exception_handlers=handlers(),
        lifespan=lifespan,
    )
    # A redirect would be made of the Host field, which anybody writes, and lose the body of a POST.
    app.router.redirect_slashes = False
    app.state.is_draining = False
    return app
