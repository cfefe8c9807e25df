"""Configurations of the OpenTelemetry Collector, and what its file exporter has written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEHIND_THE_SINK = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{http}"}}, grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters:
  file: {{path: "{file}", flush_interval: 100ms}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
"""
ON_THE_TOPIC = """
receivers:
  kafka: {{brokers: ["{bootstrap}"], initial_offset: earliest, traces: {{topics: [otlp_spans]}}}}
exporters:
  file: {{path: "{file}", flush_interval: 100ms}}
service:
  pipelines:
    traces: {{receivers: [kafka], exporters: [file]}}
"""


def raw_spans(file: Path) -> Iterator[dict[str, Any]]:
    """Spans in OTLP/JSON, as they were written, whole lines only."""
    if not file.exists():
        return
    for line in file.read_text("utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            for resource in json.loads(line)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    yield from scope["spans"]


def read_file(file: Path) -> list[dict[str, Any]]:
    """Spans in the order of their ends, as far as the tests look at them in the store's form."""
    found = [
        {
            "span_id": span["spanId"],
            "end_unix_nano": int(span["endTimeUnixNano"]),
            "attributes": {entry["key"]: _value(entry["value"]) for entry in span["attributes"]},
        }
        for span in raw_spans(file)
    ]
    return sorted(found, key=lambda span: span["end_unix_nano"])


def _value(value: dict[str, Any]) -> object:
    return int(value["intValue"]) if "intValue" in value else value.get("stringValue")
