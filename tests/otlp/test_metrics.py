from uuid import UUID

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, MetricsData
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from ebbflow.identity import Host
from ebbflow.otlp.metrics import self_metrics

HOST = Host("0123456789abcdef0123456789abcdef", "shop", bytes(16))
START_NS, NOW_NS = 1_700_000_000_000_000_000, 1_700_000_010_000_000_000


def families():
    lost = CounterMetricFamily("ebpf_events_lost", "Events lost", labels=["feature", "stage", "cpu"])
    lost.add_metric(["tcp", "ring", "1"], 5)
    lost.add_metric(["tcp", "buffer", ""], (1 << 53) - 1)
    usage = GaugeMetricFamily("ebpf_map_usage_percent", "Fill", labels=["feature", "map"])
    usage.add_metric(["tcp", "events"], 12.5)
    return [lost, usage]


def encoded(given, **options):
    return self_metrics(given, host=HOST, pid=4242, start_unix_ns=START_NS, now_unix_ns=NOW_NS, **options)


def attributes(given):
    return {one.key: one.value.string_value or one.value.int_value for one in given}


def test_self_metrics_counters_are_cumulative_sums_since_the_start():
    (resource,) = MetricsData.FromString(encoded(families())).resource_metrics
    lost, usage = resource.scope_metrics[0].metrics
    assert (lost.name, lost.description, lost.unit) == ("ebpf_events_lost_total", "Events lost", "")
    assert (lost.sum.is_monotonic, lost.sum.aggregation_temporality) == (True, AGGREGATION_TEMPORALITY_CUMULATIVE)
    assert [
        (attributes(point.attributes), point.as_int, point.start_time_unix_nano, point.time_unix_nano)
        for point in lost.sum.data_points
    ] == [
        ({"feature": "tcp", "stage": "ring", "cpu": "1"}, 5, START_NS, NOW_NS),
        ({"feature": "tcp", "stage": "buffer"}, (1 << 53) - 1, START_NS, NOW_NS),
    ]
    assert (usage.name, usage.unit) == ("ebpf_map_usage_percent", "%")
    (point,) = usage.gauge.data_points
    assert (point.as_double, point.time_unix_nano, point.start_time_unix_nano) == (12.5, NOW_NS, 0)


def test_self_metrics_say_who_they_are_of():
    (resource,) = MetricsData.FromString(encoded(families(), service_name="ebbflow-producer")).resource_metrics
    said = attributes(resource.resource.attributes)
    assert {name: said[name] for name in ("service.name", "host.id", "host.name", "process.pid")} == {
        "service.name": "ebbflow-producer", "host.id": HOST.host_id, "host.name": "shop", "process.pid": 4242,
    }  # fmt: skip
    assert UUID(said["service.instance.id"]).version == 5
    assert resource.schema_url.endswith("/1.44.0")


def test_self_metrics_instance_is_of_the_run():
    def instance(**other):
        arguments = {"host": HOST, "pid": 4242, "start_unix_ns": START_NS, "now_unix_ns": NOW_NS} | other
        (resource,) = MetricsData.FromString(self_metrics(families(), **arguments)).resource_metrics
        return attributes(resource.resource.attributes)["service.instance.id"]

    assert instance() == instance(now_unix_ns=NOW_NS + 1)
    assert len({instance(), instance(pid=1), instance(start_unix_ns=1), instance(host=Host("b", "b", bytes(16)))}) == 4


def test_self_metrics_is_an_export_request():
    value = encoded(families())
    request = ExportMetricsServiceRequest.FromString(value)
    assert request.SerializeToString() == value
    assert len(request.resource_metrics) == 1


def test_self_metrics_of_a_registry_leave_out_what_is_neither_counter_nor_gauge():
    registry = CollectorRegistry()
    Counter("ebbflow_rounds", "Rounds", registry=registry).inc(23)
    Histogram("ebbflow_pause_seconds", "Pauses", registry=registry).observe(1)
    (resource,) = MetricsData.FromString(encoded(registry.collect())).resource_metrics
    (rounds,) = resource.scope_metrics[0].metrics
    assert (rounds.name, rounds.sum.data_points[0].as_int) == ("ebbflow_rounds_total", 23)


@pytest.mark.parametrize(
    "nothing", [[], [GaugeMetricFamily("empty", "", labels=["x"]), CounterMetricFamily("none", "", labels=["x"])]]
)
def test_self_metrics_of_nothing_are_no_envelope(nothing):
    assert encoded(nothing) == b""
