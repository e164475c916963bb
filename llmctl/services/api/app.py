"""The gateway: OpenAI's protocol over all workers of a fleet. No torch, and no judgement of what is asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llmctl import __version__
from llmctl.services import wire
from llmctl.services.api import asking
from llmctl.services.api.asking import Rule
from llmctl.services.api.forward import Forwarder
from llmctl.services.api.passage import CheckPassage, Gateway, Passage
from llmctl.services.api.tally import Tally
from llmctl.services.api.upstream import Upstream
from llmctl.services.fleet import FleetView
from llmctl.services.http import base
from llmctl.services.http.guard import Keys
from llmctl.services.openai.description import openapi

TITLE = "llmctl gateway"
RULES = (
    Rule(path="/v1/chat/completions", needs="chat"),
    Rule(path="/v1/completions", needs="completions"),
    Rule(path="/v1/embeddings", needs="embeddings"),
    Rule(path="/tokenize"),
    Rule(path="/detokenize"),
)
_OWN = ("/health", "/ready", "/version", "/metrics", "/openapi.json")
_METHODS = ("GET", "POST")
_SWEEP_S = 30.0
_FIRST_TABLE_S = 1.0
"""How long the start waits for a controller: one that is up answers at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a gateway is run."""

    keys: Keys
    """Of clients; the cluster token is one of them."""
    token: str | None
    timeout_s: float
    """For each silence of a worker."""
    origins: tuple[str, ...] = ()
    """Of web pages that may ask; `*` is all."""


def build(fleet: FleetView, settings: Settings) -> Starlette:
    """The application; it opens `fleet` when it starts and closes it when it ends."""
    registry = CollectorRegistry()
    upstream, tally = Upstream(), Tally(registry)
    Gauge("llmctl_gateway_workers", "Workers that are known.", registry=registry).set_function(
        lambda: len(fleet.workers)
    )
    forwarder = Forwarder(fleet, upstream, timeout_s=settings.timeout_s, tally=tally)
    gateway = Gateway(fleet=fleet, forwarder=forwarder, tally=tally, token=settings.token)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with fleet:
            await fleet.wait_for_answer(_FIRST_TABLE_S)
            sweeping = asyncio.create_task(_sweep(upstream, fleet))
            yield
            sweeping.cancel()
        upstream.close()

    routes = _routes(gateway)
    app = base.build(
        routes,
        keys=settings.keys,
        registry=registry,
        why_not_ready=lambda: None if fleet.has_workers else "no worker is known",
        description=_described(tuple(route.path for route in routes)),
        lifespan=lifespan,
    )
    if settings.origins:
        # Outermost: a browser asks first, and shows no key then.
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=_METHODS, allow_headers=["*"]
        )
    return app


@cache
def _described(paths: tuple[str, ...]) -> dict[str, Any]:
    return openapi(TITLE, __version__, [*_OWN, *paths])


async def _sweep(upstream: Upstream, fleet: FleetView) -> None:
    """Close connections to workers that are gone."""
    while True:
        await asyncio.sleep(_SWEEP_S)
        upstream.keep_only([heard.state.url for heard in fleet.workers])


def _routes(gateway: Gateway) -> list[Route]:
    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": wire.model_cards(gateway.fleet.models())})

    async def model(request: Request) -> Response:
        return JSONResponse(asking.card_of(gateway.fleet, request.path_params["id"]))

    return [
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{id:path}", model, methods=["GET"]),
        *(Route(rule.path, Passage(gateway, rule), methods=["POST"]) for rule in RULES),
        Route("/api/v1/token_check", CheckPassage(gateway), methods=["POST"]),
    ]
