from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from ebbflow.otlp.encode import span_field, span_prefix
from ebbflow.requests.tracking import ProcessSpans
from ebbflow.testing.socket_events import process_entry


def process_with(*names: bytes) -> ProcessSpans:
    process = ProcessSpans("h", "host", process_entry(7).SerializeToString())
    process.spans = [span_field(span_prefix(name, 2)) for name in names]
    return process


def test_take_gives_all_spans_once() -> None:
    process = process_with(b"a", b"b")
    (part,) = process.take(1000)
    (resource_spans,) = TracesData.FromString(part).resource_spans
    assert [span.name for span in resource_spans.scope_spans[0].spans] == ["a", "b"]
    assert process.take(1000) == []


def test_take_splits_behind_the_limit_and_keeps_large_spans_whole() -> None:
    process = process_with(b"a" * 50, b"b" * 50, b"c" * 500, b"d")
    parts = [TracesData.FromString(part) for part in process.take(130)]
    names = [[span.name[0] for span in part.resource_spans[0].scope_spans[0].spans] for part in parts]
    assert names == [["a", "b"], ["c"], ["d"]]
