"""The OpenAPI description of what a part serves, made from the types of requests and answers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from llmctl.services.openai import answers, requests

_REF = "#/components/schemas/{model}"
_ERRORS: Mapping[int, str] = {
    400: "The request is wrong; `param` names the field.",
    401: "No key was given, or a wrong one.",
    403: "The key is not for this.",
    404: "There is no such model or route.",
    405: "The route does not take this method; `Allow` names those that it takes.",
    408: "The body did not come in time.",
    409: "Several answers fit.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    422: "A file of the model is damaged.",
    429: "As many wait as may: `Retry-After` says when to try again.",
    500: "The server failed.",
    502: "A server behind this one failed.",
    503: "Nobody serves the model now: `Retry-After` says when to try again.",
    504: "A server behind this one was silent for too long.",
    507: "There is not enough memory.",
}
_ALWAYS, _WITH_BODY, _COMPUTING = (404, 405, 500, 502, 503, 504), (400, 408, 413, 415), (409, 422, 429, 507)
_GUARDED = (401, 403)
_HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    405: {"Allow": "The methods that the route takes"},
    429: {"Retry-After": "Seconds"},
    503: {"Retry-After": "Seconds"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a method of a route does."""

    summary: str
    answer: type[BaseModel] | None = None
    """None: text, or JSON of any form."""
    media_type: str = "application/json"
    """Of the answer."""
    asks: type[BaseModel] | None = None
    """The body, if there is one."""
    streams: type[BaseModel] | None = None
    """An event, where an answer may come piece by piece."""
    is_open: bool = False
    """Whether it asks for no key."""
    computes: bool = False
    """Whether a model works on it."""
    example: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """A body."""


Operations = Mapping[str, Mapping[str, Operation]]
"""By path and method in small letters."""

_ASKED = [{"role": "user", "content": "What is the capital of France?"}]
OPERATIONS: Operations = {
    "/health": {"get": Operation(summary="Whether the process lives", answer=answers.Health, is_open=True)},
    "/ready": {"get": Operation(summary="Whether requests are taken", answer=answers.Health, is_open=True)},
    "/version": {"get": Operation(summary="The program's version", answer=answers.Version)},
    "/metrics": {"get": Operation(summary="Counts for Prometheus", media_type="text/plain")},
    "/openapi.json": {"get": Operation(summary="This description")},
    "/v1/models": {"get": Operation(summary="The models that are served", answer=answers.Models)},
    "/v1/models/{id}": {"get": Operation(summary="One of them", answer=answers.Model)},
    "/v1/chat/completions": {
        "post": Operation(
            summary="Answer a conversation",
            asks=requests.ChatRequestBody,
            answer=answers.ChatCompletion,
            streams=answers.ChatCompletionChunk,
            computes=True,
            example={"model": "demo", "messages": _ASKED, "max_tokens": 16},
        )
    },
    "/v1/completions": {
        "post": Operation(
            summary="Continue a text",
            asks=requests.CompletionBody,
            answer=answers.Completion,
            streams=answers.Completion,
            computes=True,
            example={"model": "demo", "prompt": "Once upon a time", "max_tokens": 16},
        )
    },
    "/v1/embeddings": {
        "post": Operation(
            summary="Vectors of texts",
            asks=requests.EmbeddingBody,
            answer=answers.Embeddings,
            computes=True,
            example={"model": "demo", "input": ["one text", "another"]},
        )
    },
    "/tokenize": {
        "post": Operation(
            summary="The tokens of a text or of a conversation",
            asks=requests.TokenizeBody,
            answer=answers.Tokens,
            computes=True,
            example={"model": "demo", "prompt": "Hello there"},
        )
    },
    "/detokenize": {
        "post": Operation(
            summary="The text of tokens",
            asks=requests.DetokenizeBody,
            answer=answers.Detokenized,
            computes=True,
            example={"model": "demo", "tokens": [1, 2, 3]},
        )
    },
    "/api/v1/token_check": {
        "post": Operation(
            summary="Whether texts and answers fit into the context",
            asks=requests.TokenCheckBody,
            answer=answers.TokensChecked,
            computes=True,
            example={"prompts": [{"model": "demo", "prompt": "Hello there", "max_tokens": 16}]},
        )
    },
}


def openapi(
    title: str, version: str, paths: Iterable[str], *, more: Operations | None = None
) -> dict[str, Any]:
    """The description, in OpenAPI 3.1, of the routes at `paths`, as Starlette writes them.

    `more` describes routes that are not of this protocol. Raises `KeyError` for one that nobody describes.
    """
    known = {**OPERATIONS, **(more or {})}
    served = {plain: known[plain] for path in paths if (plain := re.sub(r":\w+}", "}", path))}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": {path: _path(path, operations) for path, operations in served.items()},
        "components": {
            "schemas": _schemas(served),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        # A server without keys asks for none.
        "security": [{"key": []}, {}],
    }


def _path(path: str, operations: Mapping[str, Operation]) -> dict[str, Any]:
    described: dict[str, Any] = {method: _operation(each) for method, each in operations.items()}
    if names := re.findall(r"{(\w+)}", path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return described


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {"200": _success(operation), **_errors(operation)},
    }
    if operation.is_open:
        described["security"] = []
    if operation.asks is not None:
        content = {"schema": _reference(operation.asks), "example": dict(operation.example)}
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
    return described


def _success(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {operation.media_type: {"schema": _reference(operation.answer)}}
    if operation.media_type.startswith("text/"):
        content[operation.media_type]["schema"] = {"type": "string"}
    if operation.streams is not None:
        told = f"Server-sent events: {operation.streams.__name__} in each, [DONE] in the last"
        # Without a type: some read it as that of the body, others as that of an event.
        content["text/event-stream"] = {"schema": {"description": told}}
    return {"description": "What was asked for.", "content": content}


def _errors(operation: Operation) -> dict[str, Any]:
    codes = {
        *_ALWAYS,
        *(() if operation.is_open else _GUARDED),
        *(_WITH_BODY if operation.asks is not None else ()),
        *(_COMPUTING if operation.computes else ()),
    }
    return {str(code): _error(code) for code in sorted(codes)}


def _error(code: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": _ERRORS[code],
        "content": {"application/json": {"schema": _reference(answers.Error)}},
    }
    if headers := _HEADERS.get(code):
        described["headers"] = {
            name: {"description": told, "schema": {"type": "string"}} for name, told in headers.items()
        }
    return described


def _reference(model: type[BaseModel] | None) -> dict[str, Any]:
    return {} if model is None else {"$ref": _REF.format(model=model.__name__)}


def _schemas(served: Operations) -> dict[str, Any]:
    used: dict[type[BaseModel], None] = {answers.Error: None}
    for operations in served.values():
        for each in operations.values():
            used.update(dict.fromkeys(model for model in (each.asks, each.answer, each.streams) if model))
    _, schema = models_json_schema([(model, "validation") for model in used], ref_template=_REF)
    schemas: dict[str, Any] = schema["$defs"]
    return schemas
