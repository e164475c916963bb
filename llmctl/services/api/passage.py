"""The gateway's routes that workers answer."""

import logging
from contextlib import closing
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from llmctl.services.api import asking, checks
from llmctl.services.api.asking import Asked, Rule
from llmctl.services.api.faults import UpstreamError
from llmctl.services.api.forward import Forwarder, Reply
from llmctl.services.api.relay import relay, send_json
from llmctl.services.api.tally import Tally
from llmctl.services.fleet import FleetView
from llmctl.services.http.leaving import unless_left

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What all routes share."""

    fleet: FleetView
    forwarder: Forwarder
    tally: Tally
    token: str | None
    """Of the cluster; workers are shown it in the place of the client's key."""


class Passage:
    """An ASGI application for one path: passes a request on to a worker, and its answer back."""

    def __init__(self, gateway: Gateway, rule: Rule) -> None:
        self._gateway = gateway
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        request = Request(scope, receive)
        work = self._answer(await asking.read(request, token=self._gateway.token), send)
        try:
            await unless_left(request, work)
        except ClientDisconnect:
            self._gateway.tally.departures.inc()
            raise

    async def _answer(self, asked: Asked, send: Send) -> None:
        model = asking.model_of(asked.body, self._gateway.fleet)
        reply = await self._gateway.forwarder.open(asked.wanted(model, self._rule))
        # Many long prompts would be held for as long as their answers take.
        del asked
        await self._pass_back(reply, send)

    async def _pass_back(self, reply: Reply, send: Send) -> None:
        with closing(reply):
            try:
                error = await relay(reply.answer, reply.first, send)
            except UpstreamError as failure:
                # The head is out: the connection breaks, which says that the body is not whole.
                error = failure
        if error is not None:
            self._gateway.tally.broken.inc()
            self._gateway.forwarder.report(reply.worker, error)


class CheckPassage(Passage):
    """The same for `/api/v1/token_check`, whose prompts name the models."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway, checks.RULE)

    async def _answer(self, asked: Asked, send: Send) -> None:
        models = checks.by_model(asked.body)
        found = await checks.check(self._gateway.forwarder, asked, models)
        if isinstance(found, Reply):
            await self._pass_back(found, send)
        else:
            await send_json(send, found)
