"""The controller's OpenAPI description, written by hand: its few messages are no models of pydantic."""

from collections.abc import Mapping
from typing import Any

from llmctl import __version__
from llmctl.services.fields import MAX_COUNT, MAX_LINE_CHARACTERS, MAX_NAMES
from llmctl.services.wire import MAX_MODELS, MAX_TOKENS, MAX_WORKERS

Schema = dict[str, Any]

_LINE: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_LINE_CHARACTERS}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_COUNT}
_PLACES: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_COUNT}
_SECONDS: Schema = {"type": "number", "minimum": 0}
_FLAG: Schema = {"type": "boolean"}


def _object(required: str, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required.split()}


def _list(items: Schema, most: int) -> Schema:
    return {"type": "array", "items": items, "maxItems": most}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_MODEL = _object(
    "name",
    name=_LINE,
    aliases=_list(_LINE, MAX_NAMES),
    context_length={"type": ["integer", "null"], "minimum": 1, "maximum": MAX_TOKENS},
    capabilities=_list(_LINE, MAX_NAMES),
    created={"type": "integer", "minimum": 0},
    owned_by=_LINE,
    max_running=_PLACES,
    num_running=_COUNT,
    num_waiting=_COUNT,
)
_WORKER = _object(
    "url id models num_running num_waiting max_running",
    url={"type": "string", "description": "Scheme, host and port."},
    id={"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"},
    models=_list(_reference("Model"), MAX_MODELS),
    num_running=_COUNT,
    num_waiting=_COUNT,
    max_running=_PLACES,
    kv_used={"type": "number", "minimum": 0, "maximum": 1},
    tokens_per_s={"type": "number", "minimum": 0, "maximum": MAX_COUNT},
    is_draining=_FLAG,
    version={"type": "string"},
    started=_SECONDS,
)
_SCHEMAS: Mapping[str, Schema] = {
    "Model": _MODEL,
    "Worker": _WORKER,
    "Terms": _object("interval_s expires_s", interval_s=_SECONDS, expires_s=_SECONDS),
    "Table": _object(
        "workers dispatch version boot up_s expires_s",
        workers=_list({"allOf": [_reference("Worker"), _object("age_s", age_s=_SECONDS)]}, MAX_WORKERS),
        dispatch=_LINE,
        version={"type": "integer"},
        boot=_LINE,
        up_s=_SECONDS,
        expires_s=_SECONDS,
    ),
    "Left": _object("id left", id=_LINE, left=_FLAG),
    "Models": _object("object data", object={"const": "list"}, data={"type": "array"}),
    "Wanted": {**_object("model", model=_LINE, prefix={"type": "string"}), "additionalProperties": False},
    "Chosen": _object("url id", url={"type": "string"}, id=_LINE),
    "Status": _object("status", status=_LINE, reason=_LINE),
    "Version": _object("version", version=_LINE),
    "Error": _object(
        "error",
        error=_object(
            "message type param code",
            message={"type": "string"},
            type={"type": "string"},
            param={"type": ["string", "null"]},
            code={"type": ["string", "null"]},
        ),
    ),
}
_ERRORS: Mapping[int, str] = {
    400: "A field is missing or cannot be.",
    401: "The cluster token is missing or wrong.",
    403: "Without a cluster token only this machine is answered.",
    408: "The body did not come in time.",
    404: "There is no such worker or model.",
    409: "Another worker is at this URL.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    429: "The table is full.",
    503: "No worker serves the model now.",
}
_ALWAYS, _WITH_BODY = (401, 403), (400, 408, 413, 415)


def _operation(summary: str, answer: str, *errors: int, asks: str = "", **more: Any) -> Schema:
    answers = _failures(*_ALWAYS, *errors, *(_WITH_BODY if asks else ()))
    body = {"requestBody": {"required": True, "content": _content(asks)}} if asks else {}
    return {"summary": summary, "responses": {"200": _answer("Done", answer), **answers}, **body, **more}


def _failures(*statuses: int) -> Schema:
    return {str(status): _answer(_ERRORS[status], "Error") for status in sorted(statuses)}


def _answer(text: str, schema: str) -> Schema:
    return {"description": text, "content": _content(schema)}


def _content(schema: str) -> Schema:
    return {"application/json": {"schema": _reference(schema)}}


def _parameter(name: str, place: str, schema: Schema) -> Schema:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


_NEWS = [
    _parameter("since", "query", {"type": "integer", "minimum": 0}),
    _parameter("wait", "query", {"type": "number", "minimum": 0, "maximum": 30}),
]
_OPEN: Schema = {"security": []}
_TEXT: Schema = {"description": "Done", "content": {"text/plain": {"schema": {"type": "string"}}}}

DESCRIPTION: Mapping[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "llmctl controller", "version": __version__},
    "paths": {
        "/workers": {
            "get": _operation(
                "The table; with since, when its version is another", "Table", 400, parameters=_NEWS
            ),
            "post": _operation("Register, or tell the state again", "Terms", 409, 429, asks="Worker"),
        },
        "/workers/{id}": {
            "delete": _operation("Leave", "Left", 404, parameters=[_parameter("id", "path", _LINE)])
        },
        "/dispatch": {"post": _operation("Choose a worker", "Chosen", 404, 503, asks="Wanted")},
        "/v1/models": {"get": _operation("The models of all workers", "Models")},
        "/health": {
            "get": {
                "summary": "Is the process alive",
                "responses": {"200": _answer("Yes", "Status")},
                **_OPEN,
            }
        },
        "/ready": {
            "get": {
                "summary": "Can it serve",
                "responses": {"200": _answer("Yes", "Status"), **_failures(503)},
                **_OPEN,
            }
        },
        "/version": {"get": _operation("The version of llmctl", "Version")},
        "/metrics": {
            "get": {"summary": "For Prometheus", "responses": {"200": _TEXT, **_failures(*_ALWAYS)}}
        },
        "/openapi.json": {
            "get": {"summary": "This", "responses": {"200": {"description": "It"}, **_failures(*_ALWAYS)}}
        },
    },
    "components": {
        "schemas": dict(_SCHEMAS),
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
    "security": [{"token": []}],
}
