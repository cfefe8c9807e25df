"""A sink's metrics."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

_HELP = {
    "received": "Items read from Kafka, without those of unusable records",
    "exported": "Items the backend took",
    "rejected": "Items the backend refused for good",
    "invalid": "Records that could not be used",
    "dead_letters": "Records written to ebbflow.dlq",
    "retries": "Attempts that failed and are repeated",
    "refusals": "Requests the backend refused for good",
}


class SinkMetrics:
    """`ebbflow_sink_<what>_total`, labelled with the sink's name."""

    def __init__(self, registry: CollectorRegistry, sink: str) -> None:
        self._counters = {
            name: Counter(f"ebbflow_sink_{name}", text, ["sink"], registry=registry).labels(sink)
            for name, text in _HELP.items()
        }
        self.lanes = Gauge(
            "ebbflow_sink_partitions", "Partitions this process has", ["sink"], registry=registry
        ).labels(sink)

    def count(self, counters: Mapping[str, int]) -> None:
        """Add a delivery's counters; those nobody described here are the sink's own affair."""
        for name, number in counters.items():
            if name in self._counters:
                self._counters[name].inc(number)
