from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ebbflow.otlp.export.answer import Accepted, read_response, shorten
from ebbflow.otlp.signals import TRACES


def test_read_response_empty_is_full_success():
    assert read_response(TRACES, b"") == Accepted(0, "")


def test_read_response_partial_gives_number_and_message():
    response = ExportTraceServiceResponse(partial_success={"rejected_spans": 3, "error_message": "too\nold"})
    assert read_response(TRACES, response.SerializeToString()) == Accepted(3, "too old")


def test_read_response_negative_number_is_none():
    response = ExportTraceServiceResponse(partial_success={"rejected_spans": -3})
    assert read_response(TRACES, response.SerializeToString()) == Accepted(0, "")


def test_read_response_garbage_is_success_with_a_word():
    assert read_response(TRACES, b"<html>") == Accepted(
        0, "accepted with 6 bytes that are no ExportTraceServiceResponse"
    )


def test_shorten_long_text_with_control_characters_is_one_bounded_line():
    assert shorten("a\x1b[31m\r\nb" + "c" * 1000) == "a [31m  b" + "c" * 491
