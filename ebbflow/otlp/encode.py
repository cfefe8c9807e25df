"""OTLP traces as bytes, written by hand: building protobuf objects costs more than all else that is done for a span.

    TracesData     1 ResourceSpans*
    ResourceSpans  1 Resource, 2 ScopeSpans*, 3 schema_url
    Resource       1 KeyValue*
    ScopeSpans     1 InstrumentationScope, 2 Span*, 3 schema_url
    Span           1 trace_id, 2 span_id, 3 trace_state, 4 parent_span_id, 5 name, 6 kind, 7 start fixed64,
                   8 end fixed64, 9 KeyValue*, 15 Status, 16 flags fixed32
    KeyValue       1 key, 2 AnyValue;  AnyValue 1 string, 2 bool, 3 int, 5 array

Fields of one message may stand in any order and repeated fields apart from each other (protobuf encoding, "Last One
Wins" and "Repeated"), so a span is a join of pieces that are encoded once and kept: see `http_spans.py`. The tests
compare with opentelemetry-proto. Field numbers: opentelemetry-proto v1.10.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

_SMALL = 4096
_SHORT = 120
_VARINT, _BYTES = 0, 2
_TIMES = struct.Struct("<BQBQ")
_START, _END = 7 << 3 | 1, 8 << 3 | 1
_FLAGS = struct.Struct("<BBI")
SPAN_KIND_SERVER, SPAN_KIND_CLIENT = 2, 3
STATUS_CODE_ERROR = 2
FLAG_HAS_REMOTE, FLAG_IS_REMOTE = 0x100, 0x200
SPAN_ATTRIBUTES, RESOURCE_ATTRIBUTES = 9, 1


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


VARINTS = tuple(_varint(number) for number in range(_SMALL))


def varint(number: int) -> bytes:
    """A non-negative number, base 128."""
    return VARINTS[number] if number < _SMALL else _varint(number)


def length_delimited(field: int, payload: bytes) -> bytes:
    """A string, bytes or message field."""
    return varint(field << 3 | _BYTES) + varint(len(payload)) + payload


def number(field: int, value: int) -> bytes:
    """A varint field; negative numbers take ten bytes (int32, int64, enum)."""
    return varint(field << 3 | _VARINT) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def text(value: str | bytes) -> bytes:
    """UTF-8: bytes that are not are replaced, because protobuf strings must be."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return value if value.isascii() else value.decode("utf-8", "replace").encode()


class Attribute:
    """One attribute's name, encoded for the message it stands in: field 9 of a span, 1 of a resource."""

    __slots__ = ("_key", "_key_bytes", "_short", "_tag")

    def __init__(self, name: str, field: int = SPAN_ATTRIBUTES) -> None:
        self._tag = varint(field << 3 | _BYTES)
        self._key = length_delimited(1, name.encode())
        self._key_bytes = len(self._key)
        # All that stands before a short string, by its length.
        self._short = tuple(
            self._join(b"\x0a" + varint(size) + bytes(size))[: -size or None] for size in range(_SHORT + 1)
        )

    def text(self, value: str | bytes) -> bytes:
        encoded = value if isinstance(value, bytes) and value.isascii() else text(value)
        size = len(encoded)
        if size > _SHORT:
            return self._join(b"\x0a" + varint(size) + encoded)
        return self._short[size] + encoded

    def number(self, value: int) -> bytes:
        return self._join(number(3, value))

    def texts(self, values: Iterable[str | bytes]) -> bytes:
        array = b"".join(length_delimited(1, length_delimited(1, text(value))) for value in values)
        return self._join(length_delimited(5, array))

    def _join(self, any_value: bytes) -> bytes:
        size = varint(len(any_value))
        return (
            self._tag
            + varint(self._key_bytes + 1 + len(size) + len(any_value))
            + self._key
            + b"\x12"
            + size
            + any_value
        )


def span_prefix(name: bytes, kind: int) -> bytes:
    return length_delimited(5, name) + number(6, kind)


def status(code: int) -> bytes:
    return length_delimited(15, number(3, code))


def trace_parent(trace_id: bytes, parent_id: bytes, flags: int, state: bytes) -> bytes:
    """What a span takes over from a remote parent."""
    encoded_flags = _FLAGS.pack(0x85, 0x01, flags | FLAG_HAS_REMOTE | FLAG_IS_REMOTE)
    encoded_state = length_delimited(3, state) if state else b""
    return b"".join((b"\x0a\x10", trace_id, b"\x22\x08", parent_id, encoded_state, encoded_flags))


ROOT_FLAGS = _FLAGS.pack(0x85, 0x01, 1 | FLAG_HAS_REMOTE)
"""Flags of a span without a parent: sampled, and known to have no remote one."""


def times(start_unix_ns: int, end_unix_ns: int) -> bytes:
    return _TIMES.pack(_START, start_unix_ns, _END, end_unix_ns)


def span_field(body: bytes) -> bytes:
    """A span as field 2 of ScopeSpans."""
    return b"\x12" + varint(len(body)) + body


def resource(attributes: bytes) -> bytes:
    """Field 1 of ResourceSpans."""
    return length_delimited(1, attributes)


def scope(name: str, version: str) -> bytes:
    """Field 1 of ScopeSpans."""
    return length_delimited(1, length_delimited(1, name.encode()) + length_delimited(2, version.encode()))


def resource_spans(encoded_resource: bytes, encoded_scope: bytes, spans: Sequence[bytes], schema_url: bytes) -> bytes:
    """One ResourceSpans as field 1 of TracesData; values of this kind may be joined (protobuf merges them)."""
    schema = length_delimited(3, schema_url)
    scope_spans = length_delimited(2, b"".join((encoded_scope, *spans, schema)))
    return length_delimited(1, encoded_resource + scope_spans + schema)
