"""OTLP/JSON requests to protobuf messages.

OTLP's JSON differs from protobuf's own in two rules that are mended here: ids are hex, not base64, and enums are
integers only. What remains is protobuf's mapping: 64-bit integers as text or numbers, unknown fields ignored.
Source: opentelemetry-proto, docs/specification.md, "JSON Protobuf Encoding".
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ebbflow.errors import ValidationError

_IDS = ("traceId", "spanId", "parentSpanId")


def parse_request(body: bytes) -> ExportTraceServiceRequest:
    """Read one request.

    Raises:
        ValidationError: not JSON, or JSON of another shape.
    """
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValidationError(f"the body is not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise ValidationError("the body is not a JSON object")
    for span in _spans(tree):
        _check_enums(span)
        for holder in (span, *_objects(span, "links")):
            _rewrite_ids(holder)
    try:
        return ParseDict(tree, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except (ParseError, TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"the body is not OTLP/JSON: {error}") from None


def _objects(holder: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """The objects of a list; anything else is left for the parser to complain about."""
    found = holder.get(key)
    return (item for item in found if isinstance(item, dict)) if isinstance(found, list) else iter(())


def _spans(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource_spans in _objects(tree, "resourceSpans"):
        for scope_spans in _objects(resource_spans, "scopeSpans"):
            yield from _objects(scope_spans, "spans")


def _check_enums(span: dict[str, Any]) -> None:
    status = span.get("status")
    code = status.get("code") if isinstance(status, dict) else None
    if isinstance(span.get("kind"), str) or isinstance(code, str):
        raise ValidationError("the body is not OTLP/JSON: enum values are integers, not names")


def _rewrite_ids(holder: dict[str, Any]) -> None:
    """Hex to base64. What is not hex becomes one zero byte: an id of wrong length, refused with its span."""
    for key in _IDS:
        value = holder.get(key)
        if isinstance(value, str) and value:
            try:
                raw = binascii.unhexlify(value)
            except (binascii.Error, ValueError):
                raw = b"\0"
            holder[key] = b64encode(raw).decode("ascii")
