"""Made-up spans, for tests and benchmarks: OTLP messages from plain Python values."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

SERVER = Span.SpanKind.SPAN_KIND_SERVER
CLIENT = Span.SpanKind.SPAN_KIND_CLIENT
ERROR = Status.StatusCode.STATUS_CODE_ERROR
UNSET = Status.StatusCode.STATUS_CODE_UNSET
START_NS = 1_700_000_000_000_000_000
_ROUTES = ("/api/items/{id}", "/api/cart", "/healthz", "/")


_SCALARS: dict[type, str] = {
    bool: "bool_value",
    int: "int_value",
    float: "double_value",
    bytes: "bytes_value",
    str: "string_value",
}


def any_value(value: Any) -> AnyValue:
    """A native value as OTLP has it; None is the empty value."""
    if value is None:
        return AnyValue()
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))
    return AnyValue(**{_SCALARS[type(value)]: value})


def key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def make_span(number: int, *, attributes: Mapping[str, Any] | None = None, **fields: Any) -> Span:
    """A span whose ids follow from `number`; every field can be given."""
    start_ns = fields.pop("start_time_unix_nano", START_NS + number * 1_000_000)
    defaults: dict[str, Any] = {
        "trace_id": (number + 1).to_bytes(16, "big"),
        "span_id": (number + 1).to_bytes(8, "big"),
        "name": f"span {number}",
        "kind": SERVER,
        "start_time_unix_nano": start_ns,
        "end_time_unix_nano": start_ns + 2_000_000,
    }
    return Span(**(defaults | fields), attributes=key_values(attributes or {}))


def make_request(spans: Iterable[Span], resource: Mapping[str, Any] | None = None) -> ExportTraceServiceRequest:
    """One request of one resource and scope."""
    attributes = key_values({"service.name": "shop"} if resource is None else resource)
    scope_spans = ScopeSpans(spans=list(spans))
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=Resource(attributes=attributes), scope_spans=[scope_spans])]
    )


def make_http_spans(count: int, *, seed: int, start_ns: int = START_NS, step_ns: int = 20_000) -> list[Span]:
    """Server spans as the pipeline makes them: 14 attributes, random ids, a few routes, 2 % errors."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    return [_http_span(chance, start_ns + index * step_ns) for index in range(count)]


def _http_span(chance: random.Random, start_ns: int) -> Span:
    route = chance.choice(_ROUTES)
    status = chance.choices((200, 404, 500), (94, 4, 2))[0]
    attributes = {
        "http.request.method": "GET",
        "http.response.status_code": status,
        "http.route": route,
        "url.path": route.replace("{id}", str(chance.randrange(10**6))),
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": 8080,
        "client.address": "127.0.0.1",
        "client.port": chance.randrange(30_000, 60_000),
        "network.peer.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "network.type": "ipv4",
        "user_agent.original": "wrk/4.1.0",
        "http.response.body.size": chance.randrange(10_000),
    }
    return make_span(
        0,
        attributes=attributes,
        trace_id=chance.randbytes(16),
        span_id=chance.randbytes(8),
        name=f"GET {route}",
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + chance.randrange(100_000, 20_000_000),
        status=Status(code=ERROR if status >= 500 else UNSET),  # noqa: PLR2004 - server errors
    )
