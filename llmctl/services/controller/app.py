"""The controller over HTTP: workers tell their state, gateways and users ask for the table."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llmctl.core.errors import NotFoundError
from llmctl.services import wire
from llmctl.services.controller.admission import check_peer, check_worker
from llmctl.services.controller.changes import Changes
from llmctl.services.controller.description import DESCRIPTION
from llmctl.services.controller.numbers import TableNumbers
from llmctl.services.controller.table import MISSED_HEARTBEATS, WorkerTable
from llmctl.services.dispatch import MAX_PREFIX_CHARACTERS, Method
from llmctl.services.fields import Fields, shown
from llmctl.services.http import base
from llmctl.services.http.bodies import read_json
from llmctl.services.http.errors import ModelNotFoundError, ParameterError
from llmctl.services.http.guard import Keys
from llmctl.services.http.leaving import unless_left
from llmctl.services.wire import Terms

MAX_WAIT_S = 30.0
"""How long a request for news may wait."""
_MAX_STATE_BYTES = 4 * 1024 * 1024
_MAX_DISPATCH_BYTES = 64 * 1024
_MAX_DIGITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a controller is run."""

    keys: Keys
    """The cluster token, or nothing: then only this machine is answered."""
    method: Method = "least-wait"
    interval_s: float = 2.0
    """Between two heartbeats of a worker."""

    @property
    def expires_s(self) -> float:
        """Silence after which a worker is taken out."""
        return self.interval_s * MISSED_HEARTBEATS


def build(settings: Settings) -> Starlette:
    """The application; its table is empty until workers tell."""
    changes = Changes()
    table = WorkerTable(method=settings.method, expires_s=settings.expires_s, on_change=changes.ring)
    registry = CollectorRegistry()
    registry.register(TableNumbers(table))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(table, settings.interval_s))
        yield
        sweeping.cancel()

    async def drain() -> None:
        changes.close()

    app = base.build(
        _Controller(settings, table, changes).routes,
        keys=settings.keys,
        registry=registry,
        why_not_ready=lambda: None,
        description=DESCRIPTION,
        lifespan=lifespan,
    )
    app.state.drain = drain
    return app


async def _sweep(table: WorkerTable, interval_s: float) -> None:
    """Take silent workers out when it is time, so that those who wait for news hear of it."""
    while True:
        await asyncio.sleep(min(interval_s / 2, 1.0))
        table.expire()


class _Controller:
    """The routes; none of them calls anybody."""

    def __init__(self, settings: Settings, table: WorkerTable, changes: Changes) -> None:
        self._settings, self._table, self._changes = settings, table, changes

    @property
    def routes(self) -> list[Route]:
        """What is served beside the routes of every part."""
        return [
            Route("/workers", self._tell, methods=["POST"]),
            Route("/workers", self._list, methods=["GET"]),
            Route("/workers/{id}", self._leave, methods=["DELETE"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/dispatch", self._dispatch, methods=["POST"]),
        ]

    async def _tell(self, request: Request) -> Response:
        self._admit(request)
        state = wire.from_json(await read_json(request, max_bytes=_MAX_STATE_BYTES))
        if self._settings.keys.is_open:
            check_worker(state.url)
        self._table.tell(state)
        terms = Terms(interval_s=self._settings.interval_s, expires_s=self._settings.expires_s)
        return JSONResponse(wire.terms_to_json(terms))

    async def _leave(self, request: Request) -> Response:
        self._admit(request)
        worker_id = request.path_params["id"]
        if not self._table.leave(worker_id):
            raise NotFoundError(f"no worker has the id {worker_id!r}")
        return JSONResponse({"id": worker_id, "left": True})

    async def _list(self, request: Request) -> Response:
        self._admit(request)
        since, wait_s = _since(request), _wait_s(request)
        if since is not None:
            await unless_left(request, self._wait_for_news(since, wait_s))
        return JSONResponse(wire.listing_to_json(self._table.listing()))

    async def _models(self, request: Request) -> Response:
        self._admit(request)
        return JSONResponse({"object": "list", "data": wire.model_cards(self._table.models())})

    async def _dispatch(self, request: Request) -> Response:
        self._admit(request)
        body = Fields(await read_json(request, max_bytes=_MAX_DISPATCH_BYTES), "")
        body.refuse_others("model", "prefix")
        prefix = body.characters("prefix", "")[:MAX_PREFIX_CHARACTERS]
        try:
            chosen = self._table.choose(body.text("model"), prefix=prefix.encode("utf-8", "surrogatepass"))
        except NotFoundError as error:
            raise ModelNotFoundError(error.message, hint=error.hint) from error
        return JSONResponse({"url": chosen.url, "id": chosen.id})

    def _admit(self, request: Request) -> None:
        if self._settings.keys.is_open:
            check_peer(request)

    async def _wait_for_news(self, since: int, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while self._table.version == since and not self._changes.is_over:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            await self._changes.wait(left_s)


def _since(request: Request) -> int | None:
    text = request.query_params.get("since")
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise ParameterError(f"since must be the version of a table, not {shown(text)}", param="since")
    return int(text)


def _wait_s(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= MAX_WAIT_S:
        raise ParameterError(f"wait must be from 0 to {MAX_WAIT_S:g} s, not {shown(text)}", param="wait")
    return wait_s
