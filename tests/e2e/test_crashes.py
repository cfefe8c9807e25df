"""kill -9 in mid-load, of every part behind the producer: nothing is missing, and repeats are the same bytes."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from e2e.client import SteadyLoad
from e2e.collectors import BEHIND_THE_SINK, raw_spans, read_file
from e2e.harness import exchange, wait_until

from ebbflow.broker import free_port
from ebbflow.otlp.signals import TracesData

pytestmark = [pytest.mark.e2e, pytest.mark.tools, pytest.mark.slow]

PER_S = 300
RECOVERY_S = 60.0


def copies_on_the_topic(records) -> dict[str, list[bytes]]:
    """Span id to every copy of the span on otlp_spans, with its resource and scope."""
    found = defaultdict(list)
    for record in records:
        for resource in TracesData.FromString(record.value).resource_spans:
            for scope in resource.scope_spans:
                about = resource.resource.SerializeToString() + scope.scope.SerializeToString()
                for span in scope.spans:
                    found[span.span_id.hex()].append(about + span.SerializeToString())
    return found


def copies_at_the_collector(file) -> dict[str, list[str]]:
    found = defaultdict(list)
    for span in raw_spans(file):
        found[span["spanId"]].append(json.dumps(span, sort_keys=True))
    return found


def test_kill_9_of_processor_sink_and_kafka_in_mid_load(pipeline, nginx, tmp_path, collector, measured):
    server, file, http = nginx(keepalive_requests=100_000), tmp_path / "spans.jsonl", free_port()
    collector(BEHIND_THE_SINK.format(http=http, grpc=free_port(), file=file))
    pipeline.settings["otlp.traces_endpoint"] = f"http://127.0.0.1:{http}/v1/traces"
    pipeline.start()
    pipeline.producer(f"pid:{server.pid}")

    def goes_on() -> None:
        """Until what was asked after now has arrived."""
        sent = load.sent
        wait_until(lambda: len({span["spanId"] for span in raw_spans(file)}) > sent, RECOVERY_S, "recovery")

    with SteadyLoad(server.port, per_s=PER_S) as load:
        goes_on()
        for kind in ("processor", "sink"):
            pipeline.kill(kind)
            {"processor": pipeline.processor, "sink": pipeline.sink}[kind]()
            goes_on()
        pipeline.broker.kill()
        sent = load.sent
        wait_until(lambda: load.sent > sent + PER_S, what="a second of load without Kafka")
        pipeline.broker.start()
        pipeline.broker.wait_ready()
        goes_on()
    totals = pipeline.wait_settled()
    # Kafka was away once, and each part that lives has said so once.
    assert [part.hints() for part in pipeline.parts if part.running and not part.name.startswith("store")] == [1] * 3

    logged = server.lines()
    assert len(logged) == load.sent
    on_topic = copies_on_the_topic(pipeline.records("otlp_spans"))
    at_collector = copies_at_the_collector(file)
    repeats = [sum(map(len, found.values())) - len(found) for found in (on_topic, at_collector)]
    measured(requests=load.sent, repeats_on_topic=repeats[0], repeats_at_collector=repeats[1])
    assert len(on_topic) == len(at_collector) == len(logged)
    assert all(len(set(copies)) == 1 for copies in on_topic.values())
    assert all(len(set(copies)) == 1 for copies in at_collector.values())
    once = {span["span_id"]: exchange(span) for span in read_file(file)}
    assert sorted(once.values()) == sorted(line.exchange for line in logged)
    assert totals["requests"]["exchanges"] == len(logged)
    assert totals["requests"]["lost_exchanges"] == totals["requests"]["incomplete"] == 0
