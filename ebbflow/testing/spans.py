"""Numbered spans: what a test sends, and how it tells what arrived."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from ebbflow.component import Record

# An id of zeros means none; this bit keeps the first span's from being that.
_ID_BASE = 1 << 62


def make_traces(numbers: Iterable[int], *, resources: int = 1, scopes: int = 1, padding_bytes: int = 0) -> bytes:
    """Serialised TracesData; a span's id tells its number. Spans go to the resources and their scopes in turn."""
    data = TracesData()
    groups = []
    for resource in range(resources):
        entry = data.resource_spans.add()
        attribute = entry.resource.attributes.add(key="service.name")
        attribute.value.string_value = f"service-{resource}"
        groups += [entry.scope_spans.add() for _ in range(scopes)]
    for number in numbers:
        span = groups[number % len(groups)].spans.add(
            trace_id=(number + _ID_BASE).to_bytes(16, "big"),
            span_id=(number + _ID_BASE).to_bytes(8, "big"),
            name="GET /",
            kind=2,
            start_time_unix_nano=1_700_000_000_000_000_000 + number,
            end_time_unix_nano=1_700_000_000_000_000_100 + number,
        )
        if padding_bytes:
            span.attributes.add(key="padding").value.string_value = "x" * padding_bytes
    return data.SerializeToString()


def make_record(numbers: Iterable[int], *, offset: int = 0, topic: str = "otlp_spans", **shape: int) -> Record:
    """A Kafka record of them."""
    return Record(topic, 0, offset, 1_700_000_000_000, b"key", make_traces(numbers, **shape))


def span_numbers(value: bytes) -> list[int]:
    """The spans' numbers, in order."""
    return [number for number, _ in numbered_spans(value)]


def numbered_spans(value: bytes) -> list[tuple[int, bytes]]:
    """Each span's number with its own bytes, in order."""
    return [
        (int.from_bytes(span.span_id, "big") - _ID_BASE, span.SerializeToString())
        for resource in TracesData.FromString(value).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
