"""What a part of ebbflow says of itself, as OTLP: the numbers of /metrics, encoded for the topic otlp_metrics.

    counter   Sum, monotonic and cumulative since the start of the run, integers
    gauge     Gauge, double

Names are those of /metrics (docs/self_metrics.md), a counter's with its `_total`. An empty label is left out. The bytes
are MetricsData, wire-identical to ExportMetricsServiceRequest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID, uuid5

from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from prometheus_client import Metric
from prometheus_client.samples import Sample

from ebbflow import __version__
from ebbflow.identity import Host
from ebbflow.otlp import semconv

# The name space that the conventions give for service.instance.id: docs/registry/attributes/service.md.
_INSTANCES = UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")
_CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


def self_metrics(
    families: Iterable[Metric],
    *,
    host: Host,
    pid: int,
    start_unix_ns: int,
    now_unix_ns: int,
    service_name: str = "ebbflow",
) -> bytes:
    """Encode counters and gauges; other types are left out. Empty when there is nothing to tell.

    Args:
        families: as a registry's or a collector's `collect()` gives them.
        host: where.
        pid: of the process they are of.
        start_unix_ns: when its counters were 0.
        now_unix_ns: when they were read.
        service_name: of the resource; the instance is made of host, pid and start.
    """
    metrics = [encoded for family in families if (encoded := _metric(family, start_unix_ns, now_unix_ns)) is not None]
    if not metrics:
        return b""
    scope = metrics_pb2.ScopeMetrics(
        scope=common_pb2.InstrumentationScope(name="ebbflow", version=__version__), metrics=metrics
    )
    attributes = {
        semconv.SERVICE_NAME: service_name,
        semconv.SERVICE_INSTANCE_ID: str(uuid5(_INSTANCES, f"{host.host_id}/{start_unix_ns}/{pid}")),
        semconv.HOST_ID: host.host_id,
        semconv.HOST_NAME: host.host_name,
        semconv.TELEMETRY_SDK_NAME: "ebbflow",
        semconv.TELEMETRY_SDK_LANGUAGE: "python",
        semconv.TELEMETRY_SDK_VERSION: __version__,
    }
    resource = metrics_pb2.ResourceMetrics(scope_metrics=[scope], schema_url=semconv.SCHEMA_URL.decode())
    resource.resource.attributes.extend(_texts(attributes))
    number = common_pb2.AnyValue(int_value=pid)
    resource.resource.attributes.append(common_pb2.KeyValue(key=semconv.PROCESS_PID, value=number))
    return metrics_pb2.MetricsData(resource_metrics=[resource]).SerializeToString()


def _metric(family: Metric, start_unix_ns: int, now_unix_ns: int) -> metrics_pb2.Metric | None:
    if family.type == "counter":
        name = f"{family.name}_total"
        points = [_point(sample, now_unix_ns, start_unix_ns) for sample in family.samples if sample.name == name]
        data = metrics_pb2.Sum(data_points=points, aggregation_temporality=_CUMULATIVE, is_monotonic=True)
        return _described(family, metrics_pb2.Metric(name=name, sum=data)) if points else None
    if family.type == "gauge" and family.samples:
        points = [_point(sample, now_unix_ns) for sample in family.samples]
        return _described(family, metrics_pb2.Metric(name=family.name, gauge=metrics_pb2.Gauge(data_points=points)))
    return None


def _described(family: Metric, metric: metrics_pb2.Metric) -> metrics_pb2.Metric:
    metric.description = family.documentation
    metric.unit = "%" if family.name.endswith("_percent") else ""
    return metric


def _point(sample: Sample, now_unix_ns: int, start_unix_ns: int = 0) -> metrics_pb2.NumberDataPoint:
    """Of a counter when it has a start."""
    point = metrics_pb2.NumberDataPoint(
        attributes=_texts(sample.labels), start_time_unix_nano=start_unix_ns, time_unix_nano=now_unix_ns
    )
    if start_unix_ns:
        point.as_int = int(sample.value)
    else:
        point.as_double = float(sample.value)
    return point


def _texts(values: Mapping[str, str]) -> list[common_pb2.KeyValue]:
    return [
        common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=value))
        for key, value in values.items()
        if value
    ]
