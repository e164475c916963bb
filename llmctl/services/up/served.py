"""Whether a fleet can be used as a whole: its gateway knows what its workers serve."""

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from llmctl.core.errors import UsageError
from llmctl.services import wire

_TIMEOUT_S = 3.0
_MAX_BYTES = 1 << 22
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # where to ask one that is everywhere


def near_url(url: str) -> str:
    """`url` as it can be used on this machine: that of a server that listens everywhere is none."""
    split = urlsplit(url)
    near = _ANYWHERE.get(split.hostname or "")
    return url if near is None else f"{split.scheme}://{near}:{split.port}"


def served_models(controller: str, gateway: str, *, token: str, num_workers: int) -> tuple[str, ...] | None:
    """The names of all models, once `num_workers` have told the controller, and the gateway knows of it.

    None before that.
    """
    told = _asked(f"{controller}/workers", token)
    cards = _asked(f"{near_url(gateway)}/v1/models", token)
    if told is None or cards is None:
        return None
    try:
        listing = wire.listing_from_json(told)
        known = {card["id"] for card in cards["data"]}
    except (UsageError, KeyError, TypeError):
        return None
    workers = [heard.state for heard in listing.workers if heard.state.models]
    names = dict.fromkeys(model.name for state in workers for model in state.models)
    return tuple(names) if len(workers) >= num_workers and known.issuperset(names) else None


def _asked(url: str, token: str) -> Any:
    """What a part answers, as JSON; None where that is nothing of use."""
    split = urlsplit(url)
    assert split.hostname is not None
    headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection(split.hostname, split.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", split.path, headers=headers)
        response = connection.getresponse()
        body = response.read(_MAX_BYTES)
        return json.loads(body) if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
