"""What a server publishes of itself."""

import json
from typing import Any

import pytest

from llmctl.services.openai import answers
from llmctl.services.openai.description import OPERATIONS, Operation, openapi


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return openapi("llmctl worker", "1.2.3", [*OPERATIONS, "/v1/models/{id:path}"])


def test_every_route_is_described(description: dict[str, Any]) -> None:
    assert description["openapi"] == "3.1.0"
    assert description["info"] == {"title": "llmctl worker", "version": "1.2.3"}
    assert description["paths"].keys() == OPERATIONS.keys()
    (parameter,) = description["paths"]["/v1/models/{id}"]["parameters"]
    assert (parameter["name"], parameter["in"], parameter["required"]) == ("id", "path", True)


def test_every_reference_leads_somewhere(description: dict[str, Any]) -> None:
    text = json.dumps(description)
    names = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert names
    assert names - description["components"]["schemas"].keys() == set()


def test_every_failure_is_described(description: dict[str, Any]) -> None:
    for path, operations in description["paths"].items():
        for method in ("get", "post"):
            if method not in operations:
                continue
            codes = set(operations[method]["responses"])
            assert codes >= {"200", "404", "405", "500", "503"}
            assert ({"400", "413", "415", "429", "507"} <= codes) is ("requestBody" in operations[method])
            assert ("401" in codes) is (path not in ("/health", "/ready"))
    chat = description["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert "Retry-After" in chat["429"]["headers"]
    assert chat["400"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")
    assert "text/event-stream" in chat["200"]["content"]


def test_bodies_tell_ranges_and_what_is_not_supported(description: dict[str, Any]) -> None:
    fields = description["components"]["schemas"]["ChatRequestBody"]["properties"]
    assert fields["top_p"]["anyOf"][0] == {"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0}
    assert fields["n"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 128}
    assert fields["tools"]["enum"] == [[], None]
    assert fields["tools"]["description"].startswith("Not supported: ")
    body = description["components"]["schemas"]["ChatRequestBody"]
    assert body["additionalProperties"] is False
    assert set(body["required"]) == {"model", "messages"}


def test_the_examples_are_taken() -> None:
    from llmctl.services.openai import reading
    from tests.services.openai.given import DEFAULT

    for path, read in {
        "/v1/chat/completions": lambda body: reading.chat_request(body, DEFAULT),
        "/v1/completions": lambda body: reading.completion_calls(body, DEFAULT),
        "/v1/embeddings": reading.embedding_call,
        "/tokenize": reading.tokenize_call,
        "/detokenize": reading.detokenize_call,
        "/api/v1/token_check": reading.token_checks,
    }.items():
        assert read(dict(OPERATIONS[path]["post"].example))


def test_routes_of_other_protocols_are_described_by_those_who_serve_them() -> None:
    own = {"/workers": {"get": Operation(summary="Who is there", answer=answers.Health)}}
    described = openapi("llmctl controller", "1", ["/workers", "/health"], more=own)
    assert described["paths"]["/workers"]["get"]["summary"] == "Who is there"
    with pytest.raises(KeyError, match="/nowhere"):
        openapi("llmctl controller", "1", ["/nowhere"])
