"""Reads what decides where a request goes. All else is the worker's to judge: the body goes on as it came."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from llmctl.services import dispatch, wire
from llmctl.services.api.connection import Headers
from llmctl.services.api.forward import Wanted
from llmctl.services.api.upstream import Call
from llmctl.services.fleet import FleetView
from llmctl.services.http import bodies
from llmctl.services.http.errors import ModelNotFoundError, ParameterError

_PASSED_ON = re.compile(rb"content-type|accept|user-agent|traceparent|tracestate")
"""Headers of a client that a worker gets to see. All others are the gateway's business, or nobody's."""
_SANE = re.compile(rb"[\x20-\x7e]{1,500}")
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How requests to a path are read."""

    path: str
    needs: str | None = None
    """A capability of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came."""

    body: Mapping[str, Any]
    raw: bytes
    headers: Headers
    """For the worker."""

    def wanted(self, model: str, rule: Rule, raw: bytes | None = None) -> Wanted:
        """What to ask of whom; `raw` is another body than the client's."""
        call = Call(rule.path, self.headers, self.raw if raw is None else raw)
        return Wanted(model=model, call=call, needs=rule.needs, prefix=dispatch.prefix_of(self.body))


async def read(request: Request, *, token: str | None) -> Asked:
    """The request, whose body is a JSON object. Raises `UsageError`, `TooLargeError`."""
    raw = await bodies.read_bytes(request)
    return Asked(body=bodies.parse_object(raw), raw=raw, headers=_headers(request, token))


def model_of(body: Mapping[str, Any], fleet: FleetView) -> str:
    """The model that a body names; where it names none, the only one that is served.

    Raises `ParameterError`.
    """
    model = body.get("model")
    if isinstance(model, str) and model:
        return model
    if model is not None:
        raise ParameterError("model must be the name of one, as text", param="model")
    served = [each.name for each in fleet.models()]
    if len(served) == 1:
        return served[0]
    told = f"there is {', '.join(served)}" if served else "ask /v1/models for the names"
    raise ParameterError("model is missing", param="model", hint=told)


def card_of(fleet: FleetView, name: str) -> dict[str, Any]:
    """The entry of `/v1/models` for a name or alias. Raises `ModelNotFoundError`."""
    cards = wire.model_cards(fleet.models())
    for card in cards:
        if card["id"] == name:
            return card
    told = ", ".join(str(card["id"]) for card in cards) or "none now"
    raise ModelNotFoundError(f"no worker serves a model {name!r}", hint=f"there is {told}")


def _headers(request: Request, token: str | None) -> Headers:
    given = {
        name: value
        for name, value in request.scope["headers"]
        if _PASSED_ON.fullmatch(name) and _SANE.fullmatch(value)
    }
    headers = [*(dict([_JSON]) | given).items()]
    headers.append((b"x-request-id", request.scope["state"]["request_id"].encode()))
    if token is not None:
        headers.append((b"authorization", b"Bearer " + token.encode()))
    return headers
