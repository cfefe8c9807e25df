from prometheus_client import CollectorRegistry, generate_latest

from ebbflow.store.metrics import StoreMetrics


def test_totals_have_every_counter_by_its_short_name():
    metrics = StoreMetrics(CollectorRegistry())
    metrics.stored.inc(3)
    metrics.deleted.labels("age").inc(2)
    assert metrics.totals() == {
        "received": 0,
        "stored": 3,
        "repeated": 0,
        "refused": 0,
        "failed": 0,
        "deleted_age": 2,
        "deleted_size": 0,
    }


def test_metrics_names_keep_to_the_scheme():
    text = generate_latest(StoreMetrics(CollectorRegistry()).registry).decode()
    assert "ebbflow_store_spans_received_total 0.0" in text
    assert all(line.startswith(("#", "ebbflow_store_")) for line in text.splitlines())
