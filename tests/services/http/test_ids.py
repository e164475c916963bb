"""Ids of requests."""

import logging
import re

import pytest

from tests.services.http.part import ServedPart, Wire, head


@pytest.mark.parametrize("given", ["abc-1", "req_0123456789abcdef", "a/b:c.d+e=", "x" * 128])
def test_a_sane_id_is_kept(wire: Wire, given: str) -> None:
    reply = wire.ask("GET /thing", X_Request_Id=given)
    assert reply.headers["x-request-id"] == reply.json["request"] == given


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "x" * 129, "<script>", "a,b"])
def test_another_is_replaced(wire: Wire, given: str) -> None:
    reply = wire.ask("GET /thing", X_Request_Id=given)
    assert re.fullmatch("req_[0-9a-f]{24}", reply.headers["x-request-id"])
    assert reply.headers["x-request-id"] == reply.json["request"]


def test_of_two_ids_none_is_kept(wire: Wire) -> None:
    wire.send(head("GET /thing")[:-2] + b"X-Request-Id: a\r\nX-Request-Id: b\r\n\r\n")
    assert wire.reply().headers["x-request-id"].startswith("req_")


def test_each_request_has_its_own(wire: Wire) -> None:
    paths = ("/thing", "/thing", "/nothing", "/fail/usage", "/stream")
    ids = [wire.ask(f"GET {path}").headers["x-request-id"] for path in paths]
    assert len(set(ids)) == len(ids)


def test_the_log_names_the_request_by_it(part: ServedPart, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llmctl.services.http"):
        part.ask("GET /fail/usage?key=private", X_Request_Id="log-1")
        part.ask("GET /health")
    lines = [record.getMessage() for record in caplog.records if "log-1" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("GET /fail/usage: 400 in 0.")
    # What stands in a query may be nobody's business.
    assert "private" not in lines[0]


def test_a_path_cannot_write_lines_into_the_log(part: ServedPart, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llmctl.services.http"):
        assert part.ask("GET /a%0Aforged%1B[31m", X_Request_Id="log-2").status == 404
        part.ask("GET /health")
    (line,) = [record.getMessage() for record in caplog.records if "log-2" in record.getMessage()]
    assert line.startswith("GET /a%0Aforged%1B[31m: 404 in ")
