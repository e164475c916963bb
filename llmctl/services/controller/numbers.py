"""The table's numbers for Prometheus, counted when they are asked for."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llmctl.services.controller.table import WorkerTable


class TableNumbers(Collector):
    """Workers, and the load of each model over all of them."""

    def __init__(self, table: WorkerTable) -> None:
        self._table = table

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        num_draining = sum(state.is_draining for state in self._table.states())
        workers = GaugeMetricFamily("llmctl_controller_workers", "Workers in the table.", labels=["state"])
        workers.add_metric(["serving"], len(self._table.states()) - num_draining)
        workers.add_metric(["draining"], num_draining)
        running = GaugeMetricFamily(
            "llmctl_controller_requests_running", "Requests that workers compute.", labels=["model_name"]
        )
        waiting = GaugeMetricFamily(
            "llmctl_controller_requests_waiting", "Requests that wait at workers.", labels=["model_name"]
        )
        for model in self._table.models():
            running.add_metric([model.name], model.num_running)
            waiting.add_metric([model.name], model.num_waiting)
        yield from (workers, running, waiting)

    def describe(self) -> Iterator[Metric]:
        """Nothing is counted before somebody asks."""
        yield from ()
