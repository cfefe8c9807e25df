"""The traces sink against an unmodified OpenTelemetry Collector."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import orjson
import pytest

from ebbflow.broker import free_port
from ebbflow.component import Record
from ebbflow.config import Config, KafkaConfig, OtlpConfig
from ebbflow.errors import ValidationError
from ebbflow.kafka import create_topics, make_producer
from ebbflow.otlp.signals import TracesData
from ebbflow.testing.spans import make_record, make_traces
from ebbflow.topics import topic
from sinks.traces import TracesSink

pytestmark = pytest.mark.tools

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{http}"}}, grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters:
  file: {{path: "{file}", flush_interval: 100ms}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
"""
# The receiver's defaults, but for where to begin: topic by name, encoding otlp_proto.
KAFKA_CONFIG = """
receivers:
  kafka: {{brokers: ["{bootstrap}"], group_id: {name}, initial_offset: earliest, traces: {{topics: ["{name}"]}}}}
exporters:
  file: {{path: "{file}", flush_interval: 100ms}}
service:
  pipelines:
    traces: {{receivers: [kafka], exporters: [file]}}
"""


def read_spans(file: Path) -> list[dict]:
    """What the file exporter has written, each span with its `resource`."""
    if not file.exists():
        return []
    return [
        {**span, "resource": resource["resource"]}
        for line in file.read_text("utf-8").splitlines(keepends=True)
        if line.endswith("\n")
        for resource in orjson.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def expected(values: list[bytes]) -> Counter:
    """Each span as the Collector's JSON names it: ids, times, kind, name, padding, service."""
    return Counter(
        (
            span.trace_id.hex(),
            span.span_id.hex(),
            span.name,
            span.kind,
            str(span.start_time_unix_nano),
            str(span.end_time_unix_nano),
            tuple((attribute.key, attribute.value.string_value) for attribute in span.attributes),
            resource.resource.attributes[0].value.string_value,
        )
        for value in values
        for resource in TracesData.FromString(value).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )


def found(spans: list[dict]) -> Counter:
    return Counter(
        (
            span["traceId"],
            span["spanId"],
            span["name"],
            span["kind"],
            span["startTimeUnixNano"],
            span["endTimeUnixNano"],
            tuple((attribute["key"], attribute["value"]["stringValue"]) for attribute in span.get("attributes", [])),
            span["resource"]["attributes"][0]["value"]["stringValue"],
        )
        for span in spans
    )


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_spans_arrive_as_they_were_sent(protocol, compression, tmp_path, collector):
    records = [make_record(range(i * 100, i * 100 + 100), offset=i, resources=3, scopes=2) for i in range(10)]
    # Larger than grpc-go's default limit of 4 MiB, so that the sink has to split it.
    records.append(make_record(range(1000, 1010), offset=10, padding_bytes=600_000))
    http, grpc, file = free_port(), free_port(), tmp_path / "spans.jsonl"
    running = collector(CONFIG.format(http=http, grpc=grpc, file=file))
    endpoint = f"http://127.0.0.1:{grpc if protocol == 'grpc' else http}"
    otlp = OtlpConfig(endpoint=endpoint, protocol=protocol, compression=compression, batch_bytes=8 << 20)
    sink = TracesSink.from_config(Config(otlp=otlp))
    for record in records:
        await sink.add(record)
    deliveries = await sink.flush(lambda _error: None)
    await sink.close()
    running.stop()
    assert found(read_spans(file)) == expected([record.value for record in records])
    assert [delivery.counters["exported"] for delivery in deliveries] == [100] * 10 + [10]


async def test_span_with_a_bad_id_does_not_spoil_the_rest(tmp_path, collector):
    good = make_record(range(5))
    bad = TracesData.FromString(make_traces([9]))
    bad.resource_spans[0].scope_spans[0].spans[0].trace_id = b"short"
    http, file = free_port(), tmp_path / "spans.jsonl"
    running = collector(CONFIG.format(http=http, grpc=free_port(), file=file))
    sink = TracesSink.from_config(Config(otlp=OtlpConfig(endpoint=f"http://127.0.0.1:{http}")))
    await sink.add(good)
    with pytest.raises(ValidationError, match="id that is not 16 or 8 bytes"):
        await sink.add(Record("otlp_spans", 0, 1, 0, None, bad.SerializeToString()))
    await sink.flush(lambda _error: None)
    await sink.close()
    running.stop()
    assert found(read_spans(file)) == expected([good.value])


@pytest.mark.kafka
async def test_topic_is_read_by_the_collectors_own_kafka_receiver(kafka, tmp_path, collector):
    own = f"spans.{uuid4().hex[:8]}"
    config = KafkaConfig(bootstrap=kafka)
    await create_topics(config, [replace(topic("otlp_spans"), name=own)])
    values = [make_traces(range(i * 50, i * 50 + 50), resources=2) for i in range(20)]
    producer = make_producer(config)
    await producer.start()
    for value in values:
        await producer.send_and_wait(own, value, key=b"host", headers=[("ebbflow-source", b"raw/0/1")])
    await producer.stop()
    file = tmp_path / "spans.jsonl"
    collector(KAFKA_CONFIG.format(bootstrap=kafka, name=own, file=file))
    async with asyncio.timeout(30):
        while len(spans := read_spans(file)) < 1000:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
    assert found(spans) == expected(values)
