"""Self metrics on their topic, read by an unmodified Collector's kafka receiver."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import orjson
import pytest

from ebbflow.config import KafkaConfig
from ebbflow.identity import Host
from ebbflow.kafka import create_topics, make_producer
from ebbflow.otlp.metrics import self_metrics
from ebbflow.producing.metrics import ProducerMetrics
from ebbflow.testing.told_producer import ToldProducer
from ebbflow.topics import OTLP_METRICS, topic

pytestmark = [pytest.mark.tools, pytest.mark.kafka]

# The receiver's defaults, but for where to begin: topic by name, encoding otlp_proto.
CONFIG = """
receivers:
  kafka: {{brokers: ["{bootstrap}"], group_id: {name}, initial_offset: earliest, metrics: {{topics: ["{name}"]}}}}
exporters:
  file: {{path: "{file}", flush_interval: 100ms}}
service:
  pipelines:
    metrics: {{receivers: [kafka], exporters: [file]}}
"""
START_NS, NOW_NS = 1_700_000_000_000_000_000, 1_700_000_010_000_000_000


def read_metrics(file):
    """Metrics by name, each with its resource's attributes, as the file exporter has written them."""
    if not file.exists():
        return {}
    return {
        metric["name"]: (metric, {one["key"]: one["value"] for one in resource["resource"]["attributes"]})
        for line in file.read_text("utf-8").splitlines(keepends=True)
        if line.endswith("\n")
        for resource in orjson.loads(line)["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    }


def points(data):
    return {
        tuple((one["key"], one["value"]["stringValue"]) for one in point.get("attributes", [])): point
        for point in data["dataPoints"]
    }


async def test_self_metrics_are_read_by_the_collectors_own_kafka_receiver(kafka, tmp_path, collector):
    own = f"metrics.{uuid4().hex[:8]}"
    config = KafkaConfig(bootstrap=kafka)
    await create_topics(config, [replace(topic(OTLP_METRICS), name=own)])
    metrics = ProducerMetrics(None)
    metrics.update(ToldProducer(), {"captured": 1009, "lost": 7, "dropped": 3, "published": 990, "buffered": 9})
    host = Host("0123456789abcdef0123456789abcdef", "shop", bytes(16))
    value = self_metrics(metrics.collect(), host=host, pid=4242, start_unix_ns=START_NS, now_unix_ns=NOW_NS)
    producer = make_producer(config)
    await producer.start()
    await producer.send_and_wait(own, value, key=host.host_id.encode())
    await producer.stop()
    file = tmp_path / "metrics.jsonl"
    collector(CONFIG.format(bootstrap=kafka, name=own, file=file))
    async with asyncio.timeout(30):
        while not (found := read_metrics(file)):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
    events, resource = found["ebpf_events_total"]
    assert (events["sum"]["aggregationTemporality"], events["sum"]["isMonotonic"]) == (2, True)
    point = points(events["sum"])[(("feature", "told"),)]
    assert (point["asInt"], point["startTimeUnixNano"], point["timeUnixNano"]) == (
        "1009", str(START_NS), str(NOW_NS),
    )  # fmt: skip
    lost = points(found["ebpf_events_lost_total"][0]["sum"])
    assert {key: point["asInt"] for key, point in lost.items()} == {
        (("feature", "told"), ("stage", "ring"), ("cpu", "1")): "5",
        (("feature", "told"), ("stage", "kernel")): "2",
        (("feature", "told"), ("stage", "buffer")): "3",
    }
    usage = points(found["ebpf_map_usage_percent"][0]["gauge"])
    assert usage[(("feature", "told"), ("map", "events"))]["asDouble"] == 25
    assert resource["service.name"] == {"stringValue": "ebbflow"}
    assert resource["host.id"] == {"stringValue": host.host_id}
    assert resource["process.pid"] == {"intValue": "4242"}
