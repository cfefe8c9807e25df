from collections import Counter
from http import HTTPStatus

import orjson
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ebbflow.errors import InternalError, NetworkError, RateLimited, StoreCorrupt, StoreFull, ValidationError
from ebbflow.store import answers
from ebbflow.store.body import TooLarge
from ebbflow.store.decode import JSON, PROTOBUF


@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        ("application/x-protobuf", PROTOBUF),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
    ],
)
def test_media_type_of_known_ones_loses_parameters(header, media_type):
    assert answers.media_type_of(header) == media_type


@pytest.mark.parametrize("header", ["", "text/plain", "application/protobuf", "json"])
def test_media_type_of_others_is_unsupported(header):
    with pytest.raises(answers.UnsupportedMedia):
        answers.media_type_of(header)


@pytest.mark.parametrize(("header", "packed"), [("", False), ("identity", False), (" GZIP ", True)])
def test_is_gzip_reads_the_content_encoding(header, packed):
    assert answers.is_gzip(header) is packed


def test_is_gzip_other_encodings_are_unsupported():
    with pytest.raises(answers.UnsupportedMedia, match="br"):
        answers.is_gzip("br")


def test_success_full_has_no_partial_success():
    protobuf, json = answers.success(PROTOBUF, Counter()), answers.success(JSON, Counter())
    assert (protobuf.body, protobuf.media_type) == (b"", PROTOBUF)
    assert (json.body, json.media_type) == (b"{}", JSON)


def test_success_partial_says_how_many_and_why():
    refused = Counter({"bad id": 2, "worse id": 1})
    answer = ExportTraceServiceResponse.FromString(answers.success(PROTOBUF, refused).body)
    assert answer.partial_success.rejected_spans == 3
    assert answer.partial_success.error_message == "bad id (2); worse id (1)"
    assert orjson.loads(answers.success(JSON, refused).body) == {
        "partialSuccess": {"rejectedSpans": "3", "errorMessage": "bad id (2); worse id (1)"}
    }


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ValidationError("x"), HTTPStatus.BAD_REQUEST, 3),
        (TooLarge("x"), HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 8),
        (answers.UnsupportedMedia("x"), HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 3),
        (RateLimited("x", retry_after_s=7), HTTPStatus.SERVICE_UNAVAILABLE, 14),
        (StoreFull("x"), HTTPStatus.SERVICE_UNAVAILABLE, 14),
        (StoreCorrupt("x"), HTTPStatus.SERVICE_UNAVAILABLE, 14),
        (NetworkError("x"), HTTPStatus.SERVICE_UNAVAILABLE, 14),
        (InternalError("x"), HTTPStatus.INTERNAL_SERVER_ERROR, 13),
    ],
)
def test_failure_of_error_is_a_status_in_the_requests_encoding(error, status, code):
    protobuf, json = answers.failure_of(PROTOBUF, error), answers.failure_of(JSON, error)
    assert protobuf.status_code == json.status_code == status
    assert Status.FromString(protobuf.body) == Status(code=code, message="x")
    assert orjson.loads(json.body) == {"code": code, "message": "x"}


def test_failure_of_trouble_says_when_to_come_again():
    assert answers.failure_of(JSON, RateLimited("x", retry_after_s=7)).headers["retry-after"] == "7"
    assert answers.failure_of(JSON, StoreFull("x")).headers["retry-after"] == "1"


def test_failure_of_bad_data_does_not_ask_to_come_again():
    assert "retry-after" not in answers.failure_of(JSON, ValidationError("x")).headers
