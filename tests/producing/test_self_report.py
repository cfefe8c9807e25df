from types import SimpleNamespace

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from prometheus_client.core import CounterMetricFamily

from ebbflow.identity import Host
from ebbflow.producing.self_report import SelfReport
from ebbflow.topics import OTLP_METRICS


@pytest.fixture
def clock():
    return SimpleNamespace(now=100.0)


def make(clock, *, every_s=10.0, families=True):
    family = CounterMetricFamily("ebpf_events", "Events", labels=["feature"])
    family.add_metric(["tcp"], 23)
    items = []
    publisher = SimpleNamespace(publish=items.append)
    host = Host("a" * 32, "here", b"b" * 16)
    collect = lambda: [family] if families else []  # noqa: E731
    return SelfReport(collect, host, 77, publisher, every_s=every_s, now_s=lambda: clock.now), items


def test_publish_when_due_tells_the_numbers_every_so_often(clock):
    report, items = make(clock)
    for now in (105.0, 110.0, 111.0, 119.0, 120.5):
        clock.now = now
        report.publish_when_due()
    assert [(item.topic, item.key, item.events) for item in items] == [(OTLP_METRICS, b"a" * 32, 0)] * 2
    (metric,) = MetricsData.FromString(items[0].value).resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.sum.data_points
    assert (metric.name, point.as_int, point.start_time_unix_nano) == ("ebpf_events_total", 23, 77)


def test_publish_when_due_never_when_that_is_asked_for(clock):
    report, items = make(clock, every_s=0)
    clock.now = 1e6
    report.publish_when_due()
    assert items == []


def test_publish_nothing_to_tell_writes_nothing(clock):
    report, items = make(clock, families=False)
    report.publish()
    assert items == []
