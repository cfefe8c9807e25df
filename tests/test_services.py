"""The services that other tests rely on are what they claim to be."""

from __future__ import annotations

import json
import subprocess

import pytest
from confluent_kafka.admin import AdminClient

from ebbflow.broker import free_port

RELAY = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: 127.0.0.1:{port}}}}}}}}}
exporters: {{file: {{path: {path}}}}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}}}
"""


@pytest.mark.kafka
def test_kafka_fixture_creates_no_topic_on_its_own(kafka):
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.list_topics("nobody-made-this", timeout=10)
    assert "nobody-made-this" not in admin.list_topics(timeout=10).topics


@pytest.mark.tools
def test_collector_fixture_relays_what_telemetrygen_sends(collector, telemetrygen, tmp_path):
    port, path = free_port(), tmp_path / "spans.json"
    running = collector(RELAY.format(port=port, path=path))
    target = ["--otlp-http", "--otlp-insecure", f"--otlp-endpoint=127.0.0.1:{port}"]
    subprocess.run([telemetrygen, "traces", *target, "--traces=3"], check=True, capture_output=True, timeout=60)
    running.stop()
    requests = [json.loads(line) for line in path.read_text().splitlines()]
    spans = [s for r in requests for rs in r["resourceSpans"] for ss in rs["scopeSpans"] for s in ss["spans"]]
    assert len({span["traceId"] for span in spans}) == 3
