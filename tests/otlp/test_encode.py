from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, TracesData

from ebbflow.otlp import encode

NAMES = st.text(min_size=1, max_size=40)
VALUES = st.one_of(
    st.text(max_size=300), st.integers(-(1 << 63), (1 << 63) - 1), st.lists(st.text(max_size=20), max_size=3)
)
TIMES = st.integers(0, (1 << 64) - 1)


def by_hand(name: str, value, field: int) -> bytes:
    attribute = encode.Attribute(name, field)
    if isinstance(value, str):
        return attribute.text(value)
    return attribute.number(value) if isinstance(value, int) else attribute.texts(value)


def by_protobuf(name: str, value) -> KeyValue:
    if isinstance(value, str):
        return KeyValue(key=name, value=AnyValue(string_value=value))
    if isinstance(value, int):
        return KeyValue(key=name, value=AnyValue(int_value=value))
    values = [AnyValue(string_value=text) for text in value]
    return KeyValue(key=name, value=AnyValue(array_value=ArrayValue(values=values)))


def test_attribute_golden_bytes() -> None:
    assert encode.Attribute("a").text("bc").hex() == "4a090a016112040a026263"
    assert encode.Attribute("a", 1).number(300).hex() == "0a080a0161120318ac02"


def test_span_golden_bytes() -> None:
    body = encode.span_prefix(b"GET /", 2) + encode.times(1, 2) + encode.status(2)
    assert encode.span_field(body).hex() == (
        "121f2a05474554202f30023901000000000000004102000000000000007a021802"
    )  # fmt: skip


@given(NAMES, VALUES)
def test_attribute_any_value_parses_to_what_protobuf_builds(name: str, value) -> None:
    assert Span.FromString(by_hand(name, value, 9)).attributes[0] == by_protobuf(name, value)


@given(st.integers(1, (1 << 32) - 1))
def test_number_is_what_protobuf_writes(value: int) -> None:
    assert encode.number(10, value) == Span(dropped_attributes_count=value).SerializeToString()


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), TIMES, TIMES, st.integers(0, 255))
def test_span_pieces_in_any_order_are_the_span_protobuf_builds(
    trace_id: bytes, parent_id: bytes, start: int, end: int, flags: int
) -> None:
    naive = Span(
        trace_id=trace_id,
        span_id=b"12345678",
        parent_span_id=parent_id,
        trace_state="a=1",
        name="GET /x",
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        flags=flags | 0x300,
    )
    naive.attributes.add(key="k").value.string_value = "v"
    naive.status.code = 2
    pieces = [
        encode.trace_parent(trace_id, parent_id, flags, b"a=1"),
        b"\x12\x0812345678",
        encode.times(start, end),
        encode.status(2),
        encode.Attribute("k").text("v"),
        encode.span_prefix(b"GET /x", 3),
    ]
    assert Span.FromString(b"".join(pieces)) == naive
    assert Span.FromString(b"".join(reversed(pieces))) == naive


def test_root_flags_say_sampled_and_not_remote() -> None:
    assert Span.FromString(encode.ROOT_FLAGS).flags == 0x101


@pytest.mark.parametrize("count", [0, 1, 100])
def test_resource_spans_parse_to_what_protobuf_builds(count: int) -> None:
    naive = ResourceSpans(schema_url="http://s")
    naive.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope_spans = naive.scope_spans.add(schema_url="http://s")
    scope_spans.scope.name, scope_spans.scope.version = "me", "1"
    for number in range(count):
        scope_spans.spans.add(name=f"GET /{number}", kind=2)
    spans = [encode.span_field(encode.span_prefix(b"GET /%d" % number, 2)) for number in range(count)]
    resource = encode.resource(encode.Attribute("service.name", 1).text("shop"))
    value = encode.resource_spans(resource, encode.scope("me", "1"), spans, b"http://s")
    assert TracesData.FromString(value) == TracesData(resource_spans=[naive])
    assert TracesData.FromString(value + value) == TracesData(resource_spans=[naive, naive])


def test_text_that_is_not_utf_8_is_replaced() -> None:
    assert encode.text(b"a\xff\xfeb") == "a\ufffd\ufffdb".encode()
    assert encode.text("ü") == encode.text("ü".encode()) == "ü".encode()
