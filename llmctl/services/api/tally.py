"""What a gateway counts beside the requests themselves."""

from prometheus_client import CollectorRegistry, Counter

from llmctl.services.api.faults import SilentError, UpstreamError

_CODES = (UpstreamError.code, SilentError.code)
"""Shown from the start: a rate over a counter that appears late misses its first step."""


class Tally:
    """Counters in a registry of their own application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.retries = Counter(
            "llmctl_gateway_retries", "Requests that were tried again on another worker.", registry=registry
        )
        self.failures = Counter(
            "llmctl_gateway_worker_failures",
            "Answers that a worker did not give, or broke off.",
            labelnames=("code",),
            registry=registry,
        )
        for code in _CODES:
            self.failures.labels(code=code)
        self.broken = Counter(
            "llmctl_gateway_broken_answers", "Answers that a client did not get whole.", registry=registry
        )
        self.departures = Counter(
            "llmctl_gateway_departures", "Clients that left before their answer was over.", registry=registry
        )
