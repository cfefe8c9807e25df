import os
import time

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ebbflow.producing import metrics as producer_metrics
from ebbflow.producing.metrics import ProducerMetrics, Share, losses, own_cpu_s
from ebbflow.testing.told_producer import ToldProducer

COUNTERS = {"captured": 1009, "lost": 7, "dropped": 3, "published": 990, "buffered": 9}
TOLD = {"feature": "told"}


class Other(ToldProducer):
    name = "other"


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test moves on: [now]."""
    now = [100.0]
    monkeypatch.setattr(producer_metrics.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def shown():
    registry = CollectorRegistry()
    return ProducerMetrics(registry), registry.get_sample_value


def test_metrics_are_the_latest_totals_of_each_feature(shown):
    metrics, value = shown
    metrics.update(ToldProducer(), COUNTERS | {"captured": 1000})
    metrics.update(Other(by_cpu={}, unseen={}, usage={}), dict.fromkeys(COUNTERS, 0))
    metrics.update(ToldProducer(), COUNTERS)
    assert value("ebpf_events_total", TOLD) == 1009
    assert value("ebpf_events_total", {"feature": "other"}) == 0
    assert value("ebbflow_producer_published_total", TOLD) == 990
    assert value("ebbflow_producer_buffered_events", TOLD) == 9
    assert value("ebpf_unseen_total", TOLD | {"cause": "map_lost"}) == 11
    assert value("ebpf_map_usage_percent", TOLD | {"map": "events"}) == 25


def test_metrics_losses_are_by_stage_and_cpu_and_add_up(shown):
    metrics, value = shown
    metrics.update(ToldProducer(), COUNTERS)
    by_place = {("ring", "1"): 5, ("kernel", ""): 2, ("buffer", ""): 3}
    for (stage, cpu), events in by_place.items():
        assert value("ebpf_events_lost_total", TOLD | {"stage": stage, "cpu": cpu}) == events
    # A CPU that lost nothing has no series: there may be hundreds of them.
    assert value("ebpf_events_lost_total", TOLD | {"stage": "ring", "cpu": "0"}) is None
    assert sum(by_place.values()) == COUNTERS["lost"] + COUNTERS["dropped"]


def test_losses_are_never_negative():
    assert losses({"lost": 1, "dropped": 0}, {("ring", 0): 2}) == {
        ("ring", 0): 2, ("kernel", -1): 0, ("buffer", -1): 0,
    }  # fmt: skip


def test_metrics_of_totals_are_counters_in_both_formats(shown):
    metrics, _ = shown
    registry = CollectorRegistry()
    registry.register(metrics)
    metrics.update(ToldProducer(), COUNTERS)
    text = generate_latest(registry).decode()
    assert "# TYPE ebpf_events_total counter" in text
    assert "# TYPE ebpf_map_usage_percent gauge" in text
    families = {family.name: family.type for family in text_string_to_metric_families(open_metrics(registry).decode())}
    assert families == {
        "ebpf_events": "counter",
        "ebpf_events_lost": "counter",
        "ebpf_map_usage_percent": "gauge",
        "ebpf_cpu_usage_percent": "gauge",
        "ebpf_unseen": "counter",
        "ebbflow_producer_published": "counter",
        "ebbflow_producer_buffered_events": "gauge",
        "ebbflow_producer_cpu_percent": "gauge",
    }


def test_metrics_cpu_usage_is_the_programs_share_since_the_last_update(shown, clock):
    metrics, value = shown
    told = ToldProducer(spent_ns=1_000_000_000)
    metrics.update(told, COUNTERS)
    assert value("ebpf_cpu_usage_percent", TOLD) is None
    clock[0] += 2
    told.spent_ns += 50_000_000
    metrics.update(told, COUNTERS)
    assert value("ebpf_cpu_usage_percent", TOLD) == pytest.approx(2.5)
    told.spent_ns = None
    metrics.update(told, COUNTERS)
    assert value("ebpf_cpu_usage_percent", TOLD) is None


def test_metrics_own_cpu_is_the_process_once_for_all_features(shown, clock, monkeypatch):
    metrics, value = shown
    spent = [3.0]
    monkeypatch.setattr(producer_metrics, "own_cpu_s", lambda: spent[0])
    metrics.update(ToldProducer(), COUNTERS)
    metrics.update(Other(), COUNTERS)
    assert value("ebbflow_producer_cpu_percent") == 0
    clock[0] += 4
    spent[0] += 1
    metrics.update(ToldProducer(), COUNTERS)
    metrics.update(Other(), COUNTERS)
    assert value("ebbflow_producer_cpu_percent") == 25


def test_share_of_a_time_that_fell_is_zero():
    share = Share()
    share.update(5.0, 1.0)
    share.update(1.0, 2.0)
    assert share.percent == 0


def test_own_cpu_s_reads_user_and_system_time_whatever_the_name(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("1 (a) b (c) R " + " ".join(map(str, range(4, 53))))
    assert own_cpu_s(stat) == pytest.approx((14 + 15) / os.sysconf("SC_CLK_TCK"))
    assert own_cpu_s() == pytest.approx(time.process_time(), abs=0.1)
