"""Every failure as an HTTP answer in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

What nobody foresaw is logged, and told to the client as no more than "internal error".
"""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from llmctl.core.errors import BusyError, LlmctlError, NotFoundError, UsageError

log = logging.getLogger(__name__)

INTERNAL = "internal error"
STOPPING = "the server is shutting down"
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_CODES = {"context_overflow": "context_length_exceeded"}
"""Codes by which clients of OpenAI know what else to do, in the place of ours."""
_KNOWN_WORDS = {"context_overflow": "the prompt is too long: "}
"""Words by which langchain and litellm know the same, where they look at nothing but the message."""
_MAX_PATH_CHARACTERS = 200


class ParameterError(UsageError):
    """A field of a request has a value that is not taken; `param` names the field as the client wrote it."""

    code = "invalid_parameter"

    def __init__(self, message: str, *, param: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class ModelNotFoundError(NotFoundError):
    """No model of that name is served here."""

    code = "model_not_found"
    param = "model"


class TooLargeError(UsageError):
    """A request is larger than may be."""

    http_status = 413
    code = "too_large"


class MediaTypeError(UsageError):
    """A body is of a kind that is not read."""

    http_status = 415
    code = "unsupported_media_type"


class TooSlowError(UsageError):
    """A request does not come to its end."""

    http_status = 408
    code = "too_slow"


def status_of(error: BaseException) -> int:
    """The HTTP status that tells `error`."""
    return error.http_status if isinstance(error, LlmctlError) else 500


def error_body(
    message: str, *, status: int, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """The JSON object of an error; its type goes by `status`."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def body_of(error: BaseException) -> dict[str, Any]:
    """The JSON object that tells `error`, the same in an answer and in a stream."""
    if not isinstance(error, LlmctlError):
        return error_body(INTERNAL, status=500, code="internal_error")
    code = _CODES.get(error.code, error.code)
    param = getattr(error, "param", None)
    return error_body(_told(error), status=status_of(error), code=code, param=param)


def response_of(error: Exception) -> JSONResponse:
    """The answer that tells `error`; one that nobody foresaw is logged with its traceback."""
    if isinstance(error, HTTPException):
        return _of_http(error, error.headers)
    if not isinstance(error, LlmctlError):
        log.error("%s", INTERNAL, exc_info=error)
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, TooSlowError):
        # The rest of what did not come must not be taken for the next request.
        headers["Connection"] = "close"
    return JSONResponse(body_of(error), status_of(error), headers)


def handlers() -> dict[Any, Any]:
    """What Starlette is to call for the errors that it raises itself: 404, 405 and their like."""
    return {HTTPException: _answer}


async def _answer(request: Request, error: HTTPException) -> Response:
    path = request.scope["path"][:_MAX_PATH_CHARACTERS]
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = {"Allow": ", ".join(_allowed(request))}
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=allowed)
        told = f"{request.method} is not a method of {path}: {allowed['Allow']}"
        return _of_http(error, allowed, message=told)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return _of_http(error, error.headers, message=f"there is no {path} here")
    return _of_http(error, error.headers)


def _of_http(
    error: HTTPException, headers: Mapping[str, str] | None, *, message: str | None = None
) -> JSONResponse:
    """The answer to what Starlette or a route said by its status."""
    code = HTTPStatus(error.status_code).name.lower()
    body = error_body(message or error.detail, status=error.status_code, code=code)
    return JSONResponse(body, error.status_code, headers)


def _allowed(request: Request) -> list[str]:
    """The methods of all routes that lie at the path of `request`."""
    found = {"OPTIONS"}
    for route in request.scope["router"].routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found)


def _told(error: LlmctlError) -> str:
    text = error.message if error.hint is None else f"{error.message}: {error.hint}"
    return _KNOWN_WORDS.get(error.code, "") + " ".join(text.split())
