"""Failures as a client sees them."""

import json
import logging

import pytest

from llmctl.core.errors import LlmctlError, UsageError
from llmctl.services.http.errors import ParameterError, body_of, error_body, status_of
from tests.services.http.part import SECRET, ServedPart, Wire


@pytest.mark.parametrize(
    ("how", "status", "kind", "code", "param"),
    [
        ("access", 403, "permission_error", "access", None),
        ("busy", 429, "rate_limit_error", "busy", None),
        ("context", 400, "invalid_request_error", "context_length_exceeded", None),
        ("failure", 500, "server_error", "failure", None),
        ("model", 404, "not_found_error", "model_not_found", "model"),
        ("nobody", 503, "server_error", "no_worker", None),
        ("parameter", 400, "invalid_request_error", "invalid_parameter", "top_p"),
        ("status", 418, "invalid_request_error", "im_a_teapot", None),
        ("things", 404, "not_found_error", "not_found", None),
        ("unreachable", 502, "server_error", "unreachable", None),
        ("usage", 400, "invalid_request_error", "usage", None),
    ],
)
def test_a_failure_has_the_status_and_type_of_its_kind(
    wire: Wire, how: str, status: int, kind: str, code: str, param: str | None
) -> None:
    reply = wire.ask(f"GET /fail/{how}")
    assert (reply.status, reply.error["type"], reply.error["code"]) == (status, kind, code)
    assert reply.error["param"] == param
    assert reply.headers["content-type"] == "application/json"


def test_a_message_is_one_line_with_its_hint(wire: Wire) -> None:
    assert wire.ask("GET /fail/busy").error["message"] == "5 requests wait: try again later"
    assert wire.ask("GET /fail/failure").error["message"] == "it broke in two lines"


@pytest.mark.parametrize(("how", "seconds"), [("busy", "3"), ("nobody", "1"), ("usage", None)])
def test_what_passes_says_when_to_try_again(wire: Wire, how: str, seconds: str | None) -> None:
    assert wire.ask(f"GET /fail/{how}").headers.get("retry-after") == seconds


def test_a_defect_is_logged_and_tells_the_client_nothing(
    part: ServedPart, caplog: pytest.LogCaptureFixture
) -> None:
    with part.connect() as wire:
        reply = wire.ask("GET /fail/defect", X_Request_Id="who-1")
        assert (reply.status, reply.error["message"]) == (500, "internal error")
        assert reply.headers["x-request-id"] == "who-1"
        # The connection is as good as before.
        assert wire.ask("GET /health").status == 200
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) == 1
    assert logged[0].exc_info is not None
    assert SECRET in str(logged[0].exc_info[1])


@pytest.mark.parametrize(("how", "level"), [("defect", "ERROR"), ("failure", "WARNING")])
def test_an_answer_that_breaks_has_no_good_end(
    part: ServedPart, caplog: pytest.LogCaptureFixture, how: str, level: str
) -> None:
    with part.connect() as wire:
        reply = wire.ask(f"GET /torn?how={how}")
    assert (reply.status, reply.body, reply.is_whole) == (200, b"half", False)
    assert level in [record.levelname for record in caplog.records]


def test_a_path_that_is_not_there_is_told(wire: Wire) -> None:
    reply = wire.ask("GET /nothing")
    assert (reply.status, reply.error["code"]) == (404, "not_found")
    assert reply.error["message"] == "there is no /nothing here"
    assert wire.ask("GET /health/").status == 404
    assert len(wire.ask(f"GET /{'x' * 5000}").body) < 500


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/echo", "OPTIONS, POST"),
        ("POST", "/thing", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("PATCH", "/models/a/b", "GET, HEAD, OPTIONS"),
        ("TRACE", "/health", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_answered_with_all_right_ones(
    wire: Wire, method: str, path: str, allowed: str
) -> None:
    reply = wire.ask(f"{method} {path}", b"")
    assert (reply.status, reply.headers["allow"]) == (405, allowed)
    assert reply.error["code"] == "method_not_allowed"
    told = wire.ask(f"OPTIONS {path}")
    assert (told.status, told.headers["allow"], told.body) == (204, allowed, b"")


def test_head_is_get_without_a_body(wire: Wire) -> None:
    full = wire.ask("GET /health")
    bare = wire.ask("HEAD /health")
    assert (bare.status, bare.headers["content-length"]) == (200, str(len(full.body)))
    assert wire.ask("HEAD /echo").status == 405
    # Nothing of a body came: the next answer is read from its first byte.
    assert wire.ask("GET /health").json == {"status": "ok"}


def test_one_object_tells_a_failure_in_answers_and_streams() -> None:
    error = ParameterError("n must be 1", param="n", hint="leave it out")
    told = error_body("n must be 1: leave it out", status=400, code="invalid_parameter", param="n")
    assert body_of(error) == told
    assert status_of(error) == 400
    assert body_of(ZeroDivisionError(SECRET))["error"]["message"] == "internal error"
    assert isinstance(error, UsageError)
    assert isinstance(error, LlmctlError)
    json.dumps(told)
