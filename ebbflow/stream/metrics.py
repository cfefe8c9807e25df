"""What a stage counts about itself, for /metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ebbflow.stream.partition import Step

_PARTITION = ("processor", "topic", "partition")
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class StreamMetrics:
    """All stages of a process share one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"ebbflow_processor_{name}_total", text, ("processor", *labels), registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"ebbflow_processor_{name}", text, (*_PARTITION, *labels), registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"ebbflow_processor_{name}", text, ("processor",), registry=registry, buckets=_SECONDS)

        self.records = counter("records", "Records processed, bad ones included.")
        self.outputs = counter("outputs", "Records written, dead letters and ledger entries included.")
        self.dead_letters = counter("dead_letters", "Dead letters by error code.", "code")
        self.skipped = counter("skipped", "Records read again that the restored state already holds.")
        self.missing = counter("missing", "Records that were gone from Kafka before they were read.")
        self.rebuilt = counter("rebuilt", "Times a state was built again after an unexpected exception.")
        self.refused = counter("refused_outputs", "Outputs too large for Kafka.")
        self.checkpoint_failures = counter("checkpoint_failures", "Checkpoints not written or not usable.", "reason")
        self.process_seconds = histogram("process_seconds", "Time to process one record.")
        self.checkpoint_seconds = histogram("checkpoint_seconds", "Time of one round of checkpoints.")
        self.lag = gauge("lag_records", "Records in Kafka that are not processed yet.")
        self.checkpoint_bytes = gauge("checkpoint_bytes", "Size of the last checkpoint.")
        self.checkpoint_age = gauge("checkpoint_age_seconds", "How long records have waited for their commit.")
        self.state = gauge("state", "The processor's own sizes.", "name")

    def stepped(self, processor: str, step: Step) -> None:
        """One record is done."""
        self.records.labels(processor).inc()
        self.outputs.labels(processor).inc(len(step.outputs))
        for code in step.codes:
            self.dead_letters.labels(processor, code).inc()

    def forget(self, processor: str, topic: str, partition: int, state_names: Iterable[str]) -> None:
        """Somebody else has the partition now."""
        labels = (processor, topic, str(partition))
        for gauge in (self.lag, self.checkpoint_bytes, self.checkpoint_age):
            _remove(gauge, *labels)
        for name in state_names:
            _remove(self.state, *labels, name)


def _remove(gauge: Gauge, *labels: str) -> None:
    # `remove` complains about labels that were never set.
    gauge.labels(*labels)
    gauge.remove(*labels)
