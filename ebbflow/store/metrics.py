"""What the store counts about itself: every span that arrives ends in one of these numbers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class StoreMetrics:
    """received = stored + repeated + refused + failed, once nothing waits."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.received = _counter(registry, "spans_received", "Spans in requests that could be read")
        self.stored = _counter(registry, "spans_stored", "Spans added to the database")
        self.repeated = _counter(registry, "spans_repeated", "Spans that were there already")
        self.refused = _counter(registry, "spans_refused", "Spans without valid ids, told to the sender")
        self.failed = _counter(registry, "spans_failed", "Spans not written, the sender was told to try again or not")
        self.deleted = Counter(
            "ebbflow_store_spans_deleted", "Spans deleted by retention", ["reason"], registry=registry
        )
        self.answers = Counter("ebbflow_store_answers", "Answers to OTLP requests", ["status"], registry=registry)
        self.commits = Histogram("ebbflow_store_commit_seconds", "Time of one transaction", registry=registry)
        self.waiting = Gauge("ebbflow_store_waiting_bytes", "Requests that wait for the database", registry=registry)
        self.file = Gauge("ebbflow_store_file_bytes", "Database file and its log", registry=registry)

    def totals(self) -> dict[str, int]:
        """Counters since the start of this store, for people."""
        deleted = {reason: self._value("spans_deleted", reason=reason) for reason in ("age", "size")}
        names = ("received", "stored", "repeated", "refused", "failed")
        totals = {name: self._value(f"spans_{name}") for name in names}
        return {**totals, **{f"deleted_{reason}": count for reason, count in deleted.items()}}

    def _value(self, name: str, **labels: str) -> int:
        return int(self.registry.get_sample_value(f"ebbflow_store_{name}_total", labels) or 0)


def _counter(registry: CollectorRegistry, name: str, description: str) -> Counter:
    return Counter(f"ebbflow_store_{name}", description, registry=registry)
