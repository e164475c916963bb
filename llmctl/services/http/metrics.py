"""What Prometheus is told: of HTTP under our own names, of models under vLLM's where the meaning is the same.

Each app has a registry of its own. Paths are told as the routes' templates: no client can make a label.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmctl.core.backend import Load

_Family = TypeVar("_Family", GaugeMetricFamily, CounterMetricFamily)

UNROUTED = "other"
"""The path of what no route answered, and the method of what is none."""
CLIENT_LEFT = 499
"""The status, as nginx writes it, of a client that did not wait for an answer."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MODEL = "model_name"
_REQUEST_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_FIRST_S = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0)


def page(registry: CollectorRegistry) -> Response:
    """All metrics as Prometheus reads them."""
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")


class HttpMetrics:
    """Counts requests by route, method and status, and how long they took; ASGI middleware."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "llmctl_http_requests", "Requests that are over.", ["path", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "llmctl_http_request_seconds",
            "From the head of a request to the end of its answer.",
            ["path", "method"],
            buckets=_REQUEST_S,
            registry=registry,
        )
        self._open = Gauge("llmctl_http_requests_open", "Requests that are not over.", registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begin = CLIENT_LEFT, time.monotonic()

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self._open.track_inprogress():
                await self._app(scope, receive, send_and_see)
        finally:
            path, method = route_path(scope), scope["method"]
            method = method if method in _METHODS else UNROUTED
            self._requests.labels(path, method, status).inc()
            self._seconds.labels(path, method).observe(time.monotonic() - begin)


def route_path(scope: Scope) -> str:
    """The template of the route that answered."""
    route = scope.get("route")
    return route.path if isinstance(route, Route) else UNROUTED


class ModelMetrics:
    """What a part that runs models tells of them, each under the name it is served by."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._loads: dict[str, Callable[[], Load]] = {}
        registry.register(_Loads(self._loads))

        def histogram(name: str, told: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"vllm:{name}_seconds", told, [_MODEL], buckets=buckets, registry=registry)

        self._first = histogram("time_to_first_token", "From a request to its first token.", _FIRST_S)
        self._between = histogram("inter_token_latency", "Between tokens of one choice.", _TOKEN_S)
        self._whole = histogram("e2e_request_latency", "From a request to its last token.", _REQUEST_S)
        self._finished = Counter(
            "vllm:request_success",
            "Choices that came to their end.",
            [_MODEL, "finished_reason"],
            registry=registry,
        )

    def watch(self, model: str, load: Callable[[], Load]) -> None:
        """Ask `load` how busy `model` is whenever the metrics are read."""
        self._loads[model] = load

    def choice(self, model: str) -> "ChoiceMetrics":
        """What is to be told of one choice of a request to `model` that begins now."""
        # Labels are looked up here, and not for each token.
        return ChoiceMetrics(
            first=self._first.labels(model),
            between=self._between.labels(model),
            whole=self._whole.labels(model),
            finished=lambda reason: self._finished.labels(model, reason).inc(),
        )


class ChoiceMetrics:
    """One choice as it comes."""

    def __init__(
        self, *, first: Histogram, between: Histogram, whole: Histogram, finished: Callable[[str], None]
    ) -> None:
        self._first = first
        self._between = between
        self._whole = whole
        self._finished = finished
        self._begin = time.monotonic()
        self._last: float | None = None

    def token(self, count: int = 1) -> None:
        """So many tokens came together."""
        now = time.monotonic()
        if self._last is None:
            self._first.observe(now - self._begin)
        else:
            for _ in range(count):
                self._between.observe((now - self._last) / count)
        self._last = now

    def finish(self, reason: str) -> None:
        """It is over, for a `reason` like `stop` or `length`."""
        self._whole.observe(time.monotonic() - self._begin)
        self._finished(reason)


class _Told(NamedTuple):
    """What a figure of `Load` is called."""

    name: str
    text: str
    value: Callable[[Load], float]


_GAUGES = (
    _Told("vllm:num_requests_running", "Requests that are computed.", lambda load: load.num_running),
    _Told("vllm:num_requests_waiting", "Requests that wait.", lambda load: load.num_waiting),
    _Told("vllm:kv_cache_usage_perc", "Used share of the KV cache; 1 is all.", lambda load: load.kv_used),
    _Told("llmctl_tokens_per_second", "Generated over the last seconds.", lambda load: load.tokens_per_s),
    _Told("llmctl_max_requests_running", "As many run together.", lambda load: load.max_running),
)
_COUNTERS = (
    _Told("vllm:prompt_tokens", "Tokens of prompts computed.", lambda load: load.num_prompt_tokens),
    _Told("vllm:generation_tokens", "Tokens generated.", lambda load: load.num_generated_tokens),
    _Told("vllm:num_preemptions", "Requests put back to wait.", lambda load: load.num_preemptions),
    _Told("vllm:prefix_cache_queries", "Tokens looked up there.", lambda load: load.num_prefix_queries),
    _Told("vllm:prefix_cache_hits", "Tokens found there.", lambda load: load.num_prefix_hits),
)


class _Loads(Collector):
    """Asks each model for its load when the metrics are read."""

    def __init__(self, loads: dict[str, Callable[[], Load]]) -> None:
        self._loads = loads

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """All figures of all models."""
        loads = {model: load() for model, load in self._loads.items()}
        for told in _GAUGES:
            yield _filled(GaugeMetricFamily(told.name, told.text, labels=[_MODEL]), loads, told)
        for told in _COUNTERS:
            yield _filled(CounterMetricFamily(told.name, told.text, labels=[_MODEL]), loads, told)


def _filled(family: _Family, loads: dict[str, Load], told: _Told) -> _Family:
    for model, load in loads.items():
        family.add_metric([model], told.value(load))
    return family
