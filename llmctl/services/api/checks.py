"""FastChat's `/api/v1/token_check`: each prompt names its own model, so several workers may be needed."""

import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from llmctl.services.api.asking import Asked, Rule
from llmctl.services.api.faults import GarbledError
from llmctl.services.api.forward import Forwarder, Reply
from llmctl.services.http.errors import ParameterError

RULE = Rule(path="/api/v1/token_check")
MAX_MODELS = 32


def by_model(body: Mapping[str, Any]) -> dict[str, list[int]]:
    """The models that are named, each with the numbers of its prompts. Raises `ParameterError`."""
    prompts = body.get("prompts")
    if not isinstance(prompts, list) or not prompts:
        raise ParameterError("prompts must be a list of at least one prompt", param="prompts")
    found: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        model = prompt.get("model") if isinstance(prompt, dict) else None
        if not isinstance(model, str) or not model:
            param = f"prompts[{number}].model"
            raise ParameterError(f"{param} must be the name of a model", param=param)
        found.setdefault(model, []).append(number)
    if len(found) > MAX_MODELS:
        raise ParameterError(f"prompts name {len(found)} models: at most {MAX_MODELS}", param="prompts")
    return found


async def check(
    forwarder: Forwarder, asked: Asked, models: Mapping[str, list[int]]
) -> dict[str, Any] | Reply:
    """The answers of all models in the order of the prompts; or the first that is none, to be closed."""
    prompts = asked.body["prompts"]
    found: dict[int, Any] = {}
    for model, numbers in models.items():
        raw = json.dumps({"prompts": [prompts[number] for number in numbers]}).encode()
        reply = await forwarder.open(asked.wanted(model, RULE, raw))
        if reply.answer.status != 200:
            return reply
        with closing(reply):
            found.update(zip(numbers, await _checked(reply, len(numbers)), strict=True))
    return {"prompts": [found[number] for number in range(len(prompts))]}


async def _checked(reply: Reply, count: int) -> list[Any]:
    pieces = [reply.first]
    while piece := await reply.answer.read():
        pieces.append(piece)
    try:
        checked = json.loads(b"".join(pieces))["prompts"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GarbledError from error
    if not isinstance(checked, list) or len(checked) != count:
        raise GarbledError
    return checked
