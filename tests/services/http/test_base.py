"""The routes that every part has."""

from llmctl import __version__
from tests.services.http.part import ServedPart, Wire


def test_a_part_is_alive_while_it_answers(wire: Wire) -> None:
    reply = wire.ask("GET /health")
    assert (reply.status, reply.json) == (200, {"status": "ok"})


def test_a_part_says_why_it_is_not_ready(part: ServedPart, wire: Wire) -> None:
    assert (wire.ask("GET /ready").status, wire.ask("GET /ready").json) == (200, {"status": "ready"})
    part.seen.why = "the model is loading"
    try:
        reply = wire.ask("GET /ready")
        assert (reply.status, reply.error["code"]) == (503, "not_ready")
        assert reply.error["message"] == "the model is loading"
        assert int(reply.headers["retry-after"]) >= 1
        assert wire.ask("GET /health").status == 200
    finally:
        part.seen.why = None


def test_a_part_tells_its_version_and_description(wire: Wire) -> None:
    assert wire.ask("GET /version").json == {"version": __version__}
    assert wire.ask("GET /openapi.json").json == {"openapi": "3.1.0"}


def test_ids_of_routes_may_hold_slashes(wire: Wire) -> None:
    assert wire.ask("GET /models/org/name").json["id"] == "org/name"
    assert wire.ask("GET /models/org%2Fname").json["id"] == "org/name"


def test_a_path_is_never_redirected(wire: Wire) -> None:
    assert wire.ask("GET /thing/").status == 404
    assert wire.ask("POST /echo/", b"{}").status == 404
