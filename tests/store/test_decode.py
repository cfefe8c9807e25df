import math
from typing import Any

import orjson
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ebbflow.errors import ValidationError
from ebbflow.store.columns import INDEX
from ebbflow.store.decode import JSON, PROTOBUF, decode, native, rows_of
from ebbflow.store.samples import any_value, make_request, make_span

ATTRIBUTES = {
    "text": "x",
    "empty text": "",
    "none": None,
    "yes": True,
    "no": False,
    "zero": 0,
    "least": -(1 << 63),
    "most": (1 << 63) - 1,
    "half": 0.5,
    "whole": 2.0,
    "list": [1, "a", None, [True], {"k": b"\x00\xff"}],
    "map": {"a": {"b": []}, "c": {}},
    "bytes": b"\x00\x01",
    "nul and quotes": 'a\0"\\\n',
    "unicode": "日本 \N{GRINNING FACE}",
}
AS_JSON = ATTRIBUTES | {"list": [1, "a", None, [True], {"k": "AP8="}], "bytes": "AAE="}


def cell(decoded, name: str, row: int = 0) -> Any:
    return decoded.rows[row][INDEX[name]]


def decoded_span(**fields):
    return rows_of(make_request([make_span(0, **fields)]), 5)


def test_decode_every_kind_of_value_survives_as_json():
    request = make_request([make_span(0, attributes=ATTRIBUTES)], ATTRIBUTES | {"service.name": "shop"})
    decoded = decode(request.SerializeToString(), PROTOBUF, 5)
    found = orjson.loads(cell(decoded, "attributes"))
    assert found == AS_JSON
    assert isinstance(found["whole"], float)
    assert orjson.loads(decoded.resources[cell(decoded, "resource_id")]) == AS_JSON | {"service.name": "shop"}


def test_decode_json_and_protobuf_give_the_same_rows():
    request = make_request([make_span(n, attributes=ATTRIBUTES) for n in range(3)])
    tree = MessageToDict(request, use_integers_for_enums=True)
    for span in tree["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        span |= {"traceId": make_span(0).trace_id.hex(), "spanId": make_span(0).span_id.hex()}
    same = make_request(
        [
            make_span(n, attributes=ATTRIBUTES, trace_id=make_span(0).trace_id, span_id=make_span(0).span_id)
            for n in range(3)
        ]
    )
    assert decode(orjson.dumps(tree), JSON, 5).rows == decode(same.SerializeToString(), PROTOBUF, 5).rows


@pytest.mark.parametrize(("value", "text"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_native_numbers_json_has_no_sign_for_become_text(value, text):
    assert native(any_value(value)) == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50)
@given(VALUES)
def test_native_is_inverse_of_any_value(value):
    plain = native(any_value(value))
    assert plain == value or str(plain) in {"Infinity", "-Infinity"} or "inf" in repr(value)


@pytest.mark.parametrize(
    "fields",
    [
        {"trace_id": b""},
        {"trace_id": bytes(16)},
        {"trace_id": b"\x01" * 15},
        {"trace_id": b"\x01" * 17},
        {"span_id": b""},
        {"span_id": bytes(8)},
        {"span_id": b"\x01" * 7},
        {"parent_span_id": b"\x01" * 7},
    ],
)
def test_rows_of_span_without_valid_ids_is_refused_alone(fields):
    decoded = rows_of(make_request([make_span(0, **fields), make_span(1)]), 5)
    assert decoded.refused.total() == 1
    assert [cell(decoded, "name")] == ["span 1"]


def test_rows_of_span_without_attributes_has_empty_columns():
    decoded = decoded_span()
    assert (cell(decoded, "http_status"), cell(decoded, "route"), cell(decoded, "attributes")) == (0, "", "{}")
    assert (cell(decoded, "events"), cell(decoded, "links"), cell(decoded, "dropped")) == ("[]", "[]", "{}")
    assert (cell(decoded, "parent_id"), cell(decoded, "received_ns"), cell(decoded, "service")) == (0, 5, "shop")


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"http.response.status_code": 404}, 404),
        ({"http.response.status_code": "404"}, 404),
        ({"http.status_code": 503}, 503),
        ({"http.response.status_code": 200, "http.status_code": 503}, 200),
        ({"http.response.status_code": -1}, 0),
        ({"http.response.status_code": 70_000}, 0),
        ({"http.response.status_code": "4040404040404"}, 0),
        ({"http.response.status_code": "nan"}, 0),
        ({"http.response.status_code": [200]}, 0),
    ],
)
def test_rows_of_http_status_is_taken_where_it_is_one(attributes, status):
    assert cell(decoded_span(attributes=attributes), "http_status") == status


@pytest.mark.parametrize(("attributes", "route"), [({"http.route": "/a/{b}"}, "/a/{b}"), ({"http.route": 5}, "")])
def test_rows_of_route_is_text_only(attributes, route):
    assert cell(decoded_span(attributes=attributes), "route") == route


@pytest.mark.parametrize(("sent", "kept"), [(0, 1), (1, 1), (2, 2), (5, 5), (6, 1), (-1, 1)])
def test_rows_of_unknown_kind_counts_as_internal(sent, kept):
    assert cell(decoded_span(kind=sent), "kind") == kept


@pytest.mark.parametrize(("sent", "kept"), [(0, 0), (1, 1), (2, 2), (3, 0), (-1, 0)])
def test_rows_of_unknown_status_counts_as_unset(sent, kept):
    assert cell(decoded_span(status=Status(code=sent, message="why")), "status") == kept


@pytest.mark.parametrize("resource", [{}, {"service.name": ""}, {"service.name": 5}])
def test_rows_of_resource_without_service_name_is_unknown_service(resource):
    assert cell(rows_of(make_request([make_span(0)], resource), 5), "service") == "unknown_service"


def test_rows_of_equal_resources_in_another_order_have_one_id():
    first = rows_of(make_request([make_span(0)], {"a": 1, "b": 2}), 5)
    second = rows_of(make_request([make_span(0)], {"b": 2, "a": 1}), 5)
    assert first.resources == second.resources


def test_rows_of_events_links_and_drops_are_kept():
    decoded = decoded_span(
        events=[Span.Event(name="e", time_unix_nano=3, attributes=[])],
        links=[Span.Link(trace_id=b"\x01" * 16, span_id=b"\x02" * 8, trace_state="a=b")],
        dropped_attributes_count=2,
        dropped_links_count=1,
    )
    assert orjson.loads(cell(decoded, "events")) == [{"name": "e", "time_unix_nano": 3, "attributes": {}}]
    assert orjson.loads(cell(decoded, "links")) == [
        {"trace_id": "01" * 16, "span_id": "02" * 8, "trace_state": "a=b", "attributes": {}}
    ]
    assert orjson.loads(cell(decoded, "dropped")) == {"attributes": 2, "links": 1}


def test_rows_of_scope_is_kept_without_its_empty_parts():
    request = make_request([make_span(0)])
    request.resource_spans[0].scope_spans[0].scope.CopyFrom(InstrumentationScope(name="lib", version="1"))
    assert orjson.loads(cell(rows_of(request, 5), "scope")) == {"name": "lib", "version": "1"}


@pytest.mark.parametrize("body", [b"\xff\xff garbage", b"\x0a\x05ab", b"\x08"])
def test_decode_bytes_that_are_no_request_are_refused(body):
    with pytest.raises(ValidationError, match="not an ExportTraceServiceRequest"):
        decode(body, PROTOBUF, 5)


def test_decode_empty_body_is_an_empty_request():
    decoded = decode(b"", PROTOBUF, 5)
    assert (decoded.rows, decoded.refused.total(), decoded.weight_bytes) == ([], 0, 0)


@given(st.binary(max_size=200))
def test_decode_any_bytes_are_rows_or_a_validation_error(body):
    for media_type in (PROTOBUF, JSON):
        try:
            assert decode(body, media_type, 5).weight_bytes == len(body)
        except ValidationError as error:
            assert str(error).startswith("the body is not")  # noqa: PT017 - either outcome is right
