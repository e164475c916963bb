"""What Prometheus reads."""

import time

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from llmctl.core.backend import Load
from llmctl.services.http.metrics import ModelMetrics, page
from tests.services.http.part import ServedPart, head, metric, until


def told(part: ServedPart) -> str:
    reply = part.ask("GET /metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return reply.body.decode()


def count(part: ServedPart, path: str, method: str, status: int) -> float | None:
    labels = f'method="{method}",path="{path}",status="{status}"'
    return metric(told(part), f"llmctl_http_requests_total{{{labels}}}")


def test_requests_are_counted_by_route_method_and_status() -> None:
    with ServedPart() as part:
        for name in ("a", "a/b", "c"):
            part.ask(f"GET /models/{name}")
        part.ask("GET /fail/usage")
        part.ask("PATCH /thing")
        assert count(part, "/models/{id:path}", "GET", 200) == 3
        assert count(part, "/fail/{how}", "GET", 400) == 1
        assert count(part, "/thing", "PATCH", 405) == 1
        seconds = 'llmctl_http_request_seconds_count{method="GET",path="/models/{id:path}"}'
        assert metric(told(part), seconds) == 3


def test_no_client_can_make_a_label(part: ServedPart) -> None:
    part.ask("GET /invented/path")
    part.ask("PROPFIND /thing")
    text = told(part)
    assert count(part, "other", "GET", 404)
    assert count(part, "/thing", "other", 405)
    assert "invented" not in text
    assert "PROPFIND" not in text


def test_clients_that_leave_are_counted_as_such(part: ServedPart) -> None:
    before = count(part, "/long", "GET", 499) or 0
    with part.connect() as wire:
        wire.send(head("GET /long"))
        time.sleep(0.05)
        assert metric(told(part), "llmctl_http_requests_open") == 2
    until(lambda: count(part, "/long", "GET", 499) == before + 1, within_s=5)
    assert metric(told(part), "llmctl_http_requests_open") == 1


def test_a_stream_is_counted_with_its_length(part: ServedPart) -> None:
    part.ask("GET /stream?n=3&pause=0.1")
    total = metric(told(part), 'llmctl_http_request_seconds_sum{method="GET",path="/stream"}')
    assert total is not None
    assert total >= 0.3


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_a_model_tells_its_load_by_the_names_of_vllm(registry: CollectorRegistry) -> None:
    metrics = ModelMetrics(registry)
    load = Load(
        num_running=3,
        num_waiting=4,
        kv_used=0.25,
        tokens_per_s=12.5,
        num_prompt_tokens=100,
        num_generated_tokens=50,
        num_preemptions=2,
        num_prefix_queries=90,
        num_prefix_hits=30,
    )
    loads = [Load(), load]
    metrics.watch('a "quoted"/model', lambda: loads[-1])
    metrics.watch("other", Load)
    text = bytes(page(registry).body).decode()
    expected = {
        "vllm:num_requests_running": 3,
        "vllm:num_requests_waiting": 4,
        "vllm:kv_cache_usage_perc": 0.25,
        "vllm:prompt_tokens_total": 100,
        "vllm:generation_tokens_total": 50,
        "vllm:num_preemptions_total": 2,
        "vllm:prefix_cache_queries_total": 90,
        "vllm:prefix_cache_hits_total": 30,
        "llmctl_tokens_per_second": 12.5,
    }
    found = {name: metric(text, f'{name}{{model_name="a \\"quoted\\"/model"}}') for name in expected}
    assert found == expected
    assert metric(text, 'vllm:num_requests_running{model_name="other"}') == 0
    loads.append(Load(num_running=7))
    text = bytes(page(registry).body).decode()
    assert metric(text, 'vllm:num_requests_running{model_name="a \\"quoted\\"/model"}') == 7


def test_a_choice_tells_its_latencies(registry: CollectorRegistry) -> None:
    choice = ModelMetrics(registry).choice("m")
    choice.token()
    choice.token()
    choice.token(3)
    choice.finish("stop")
    text = bytes(page(registry).body).decode()
    assert metric(text, 'vllm:time_to_first_token_seconds_count{model_name="m"}') == 1
    # Several that come together came at even distances, as far as anybody can tell.
    assert metric(text, 'vllm:inter_token_latency_seconds_count{model_name="m"}') == 4
    assert metric(text, 'vllm:e2e_request_latency_seconds_count{model_name="m"}') == 1
    assert metric(text, 'vllm:request_success_total{finished_reason="stop",model_name="m"}') == 1


def test_the_page_is_in_prometheus_s_format(part: ServedPart) -> None:
    names = {family.name for family in text_string_to_metric_families(told(part))}
    assert {"llmctl_http_requests", "llmctl_http_request_seconds", "llmctl_http_requests_open"} <= names
