"""OTLP trace requests to rows of the store.

The loop over spans is the costly part of receiving: about 10 us a span. Text values, by far the most, are taken first
because asking a message which alternative is set costs more than reading one.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from math import isfinite
from struct import Struct
from typing import Any

import orjson
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ebbflow.errors import ValidationError
from ebbflow.store import otlp_json
from ebbflow.store.columns import KINDS, MISSING_SERVICE, STATUSES, Row

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
NO_TRACE_ID = bytes(16)
NO_SPAN_ID = bytes(8)
_IDS = Struct(">QQQQ").unpack
_HTTP_STATUSES = range(100, 1000)


@dataclass(slots=True)
class Decoded:
    """One request as rows.

    Attributes:
        rows: one a span that is kept, in the request's order.
        resources: attributes as JSON text, by resource id.
        refused: reason to number of spans.
        weight_bytes: size of the request, for limits on what may wait.
    """

    rows: list[Row] = field(default_factory=list)
    resources: dict[int, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    weight_bytes: int = 0


def decode(body: bytes, media_type: str, received_ns: int) -> Decoded:
    """Read one request body.

    Args:
        body: decompressed.
        media_type: `PROTOBUF` or `JSON`.
        received_ns: arrival, unix time.

    Raises:
        ValidationError: the body is not an ExportTraceServiceRequest.
    """
    decoded = rows_of(parse(body, media_type), received_ns)
    decoded.weight_bytes = len(body)
    return decoded


def parse(body: bytes, media_type: str) -> ExportTraceServiceRequest:
    """Bytes to message; raises `ValidationError`."""
    if media_type == JSON:
        return otlp_json.parse_request(body)
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValidationError(f"the body is not an ExportTraceServiceRequest: {error}") from None


def rows_of(request: ExportTraceServiceRequest, received_ns: int) -> Decoded:
    """Spans to rows, refusing those without valid ids."""
    decoded = Decoded()
    for resource_spans in request.resource_spans:
        resource_id, service = _resource(resource_spans.resource, decoded.resources)
        for scope_spans in resource_spans.scope_spans:
            scope = _scope(scope_spans.scope)
            for span in scope_spans.spans:
                if problem := refusal(span):
                    decoded.refused[problem] += 1
                else:
                    decoded.rows.append(_row(span, received_ns, resource_id, service, scope))
    return decoded


def refusal(span: Span) -> str:
    """Why a span cannot be kept; empty when it can."""
    trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_span_id
    if len(trace_id) != len(NO_TRACE_ID) or trace_id == NO_TRACE_ID:
        return "trace_id is not 16 bytes with one that is not zero"
    if len(span_id) != len(NO_SPAN_ID) or span_id == NO_SPAN_ID:
        return "span_id is not 8 bytes with one that is not zero"
    if len(parent_id) not in {0, len(NO_SPAN_ID)}:
        return "parent_span_id is neither empty nor 8 bytes"
    return ""


def _row(span: Span, received_ns: int, resource_id: int, service: str, scope: str) -> Row:
    """In the order of `SPAN_COLUMNS`."""
    attributes = attributes_of(span.attributes)
    kind, status = span.kind, span.status
    code, route = status.code, attributes.get("http.route")
    return (
        *_IDS(span.trace_id + span.span_id + (span.parent_span_id or NO_SPAN_ID)),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        received_ns,
        resource_id,
        kind if 0 < kind < len(KINDS) else 1,
        code if 0 <= code < len(STATUSES) else 0,
        _http_status(attributes),
        span.flags,
        service,
        span.name,
        route if isinstance(route, str) else "",
        to_json(attributes),
        status.message,
        span.trace_state,
        scope,
        _events(span),
        _links(span),
        _dropped(span),
    )


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as native values; of equal keys the last counts."""
    attributes = {}
    for pair in pairs:
        value = pair.value
        attributes[pair.key] = value.string_value or native(value)
    return attributes


def native(value: AnyValue) -> Any:
    """One value as JSON knows it: bytes as base64, numbers that JSON has no sign for as text, empty as None."""
    kind = value.WhichOneof("value")
    if kind in _PLAIN:
        return getattr(value, kind)
    convert = _CONVERT.get(kind)
    return convert(value) if convert else None


def _double(value: float) -> float | str:
    if isfinite(value):
        return value
    return "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")  # noqa: PLR0124 - what NaN is


_PLAIN = frozenset({"int_value", "string_value", "bool_value"})
_CONVERT: dict[str | None, Callable[[AnyValue], Any]] = {
    "double_value": lambda value: _double(value.double_value),
    "array_value": lambda value: [native(item) for item in value.array_value.values],
    "kvlist_value": lambda value: attributes_of(value.kvlist_value.values),
    "bytes_value": lambda value: b64encode(value.bytes_value).decode("ascii"),
}


def to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _resource(resource: Resource, known: dict[int, str]) -> tuple[int, str]:
    """Id and service name; the attributes go to `known`."""
    attributes = attributes_of(resource.attributes)
    text = orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS)
    identity = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
    known[identity] = text.decode()
    service = attributes.get("service.name")
    return identity, service if isinstance(service, str) and service else MISSING_SERVICE


def _scope(scope: InstrumentationScope) -> str:
    found = {"name": scope.name, "version": scope.version, "attributes": attributes_of(scope.attributes)}
    return to_json({key: value for key, value in found.items() if value})


def _http_status(attributes: dict[str, Any]) -> int:
    """The stable name first, then the one of older SDKs; 0 when there is none."""
    value = attributes.get("http.response.status_code", attributes.get("http.status_code", 0))
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    return value if isinstance(value, int) and value in _HTTP_STATUSES else 0


def _events(span: Span) -> str:
    if not span.events:
        return "[]"
    return to_json(
        [
            {"name": e.name, "time_unix_nano": e.time_unix_nano, "attributes": attributes_of(e.attributes)}
            for e in span.events
        ]
    )


def _links(span: Span) -> str:
    if not span.links:
        return "[]"
    return to_json(
        [
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "trace_state": link.trace_state,
                "attributes": attributes_of(link.attributes),
            }
            for link in span.links
        ]
    )


def _dropped(span: Span) -> str:
    """What the sender says it left out."""
    counts = (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count)
    if not any(counts):
        return "{}"
    return to_json({key: count for key, count in zip(("attributes", "events", "links"), counts, strict=True) if count})
