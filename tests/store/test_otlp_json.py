import orjson
import pytest

from ebbflow.errors import ValidationError
from ebbflow.store.otlp_json import parse_request

TRACE_ID = "5b8efff798038103d269b633813fc60c"


def body(**span) -> bytes:
    spans = [{"traceId": TRACE_ID, "spanId": "EEE19B7EC3C1B174", "name": "a", **span}]
    return orjson.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})


def parsed(**span):
    return parse_request(body(**span)).resource_spans[0].scope_spans[0].spans[0]


def test_parse_request_ids_are_hex_of_either_case():
    span = parsed(parentSpanId="eee19b7ec3c1b173", links=[{"traceId": TRACE_ID, "spanId": "00000000000000AB"}])
    assert span.trace_id.hex() == TRACE_ID
    assert span.span_id.hex() == "eee19b7ec3c1b174"
    assert span.parent_span_id.hex() == "eee19b7ec3c1b173"
    assert span.links[0].span_id.hex() == "00000000000000ab"


@pytest.mark.parametrize("value", [1544712660000000000, "1544712660000000000"])
def test_parse_request_64_bit_integers_are_numbers_or_text(value):
    span = parsed(startTimeUnixNano=value, attributes=[{"key": "k", "value": {"intValue": value}}])
    assert span.start_time_unix_nano == 1544712660000000000
    assert span.attributes[0].value.int_value == 1544712660000000000


def test_parse_request_unknown_fields_are_ignored():
    assert parsed(invented={"deep": [1]}, kind=2).kind == 2


def test_parse_request_bytes_values_stay_base64():
    span = parsed(attributes=[{"key": "k", "value": {"bytesValue": "AAEC"}}])
    assert span.attributes[0].value.bytes_value == b"\x00\x01\x02"


@pytest.mark.parametrize("identity", ["nothex", "abc", TRACE_ID + "zz"])
def test_parse_request_id_that_is_not_hex_is_an_id_of_wrong_length(identity):
    assert parsed(traceId=identity).trace_id == b"\0"


@pytest.mark.parametrize("span", [{"kind": "SPAN_KIND_SERVER"}, {"status": {"code": "STATUS_CODE_ERROR"}}])
def test_parse_request_enum_names_are_refused(span):
    with pytest.raises(ValidationError, match="integers"):
        parse_request(body(**span))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff",
        b'{"resourceSpans": 1}',
        b'{"resourceSpans": [1]}',
        b'{"resourceSpans": [{"scopeSpans": {"spans": 5}}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": 5}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "-1"}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": 5}]}]}]}',
    ],
)
def test_parse_request_another_shape_is_refused(text):
    with pytest.raises(ValidationError):
        parse_request(text)


def test_parse_request_values_in_values_without_end_are_refused():
    deep = b'{"arrayValue":{"values":[' * 200 + b"{}" + b"]}}" * 200
    with pytest.raises(ValidationError):
        parse_request(body(attributes=[{"key": "k", "value": "DEEP"}]).replace(b'"DEEP"', deep))
