"""Answers to OTLP/HTTP requests, in the encoding of the request.

Success is an ExportTraceServiceResponse, without `partial_success` when all is well; everything else a
google.rpc.Status. Source: opentelemetry-proto, docs/specification.md, "OTLP/HTTP Response".
"""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus

import orjson
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.responses import Response

from ebbflow.errors import EbbflowError, RateLimited, ValidationError
from ebbflow.store.body import TooLarge
from ebbflow.store.decode import JSON, PROTOBUF

RETRY_AFTER_S = 1
_RPC_CODES = {
    HTTPStatus.BAD_REQUEST: code_pb2.INVALID_ARGUMENT,
    HTTPStatus.NOT_FOUND: code_pb2.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: code_pb2.UNIMPLEMENTED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: code_pb2.RESOURCE_EXHAUSTED,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: code_pb2.INVALID_ARGUMENT,
    HTTPStatus.SERVICE_UNAVAILABLE: code_pb2.UNAVAILABLE,
}


class UnsupportedMedia(ValidationError):
    """A content type or encoding that OTLP/HTTP does not have: HTTP 415."""


def media_type_of(content_type: str) -> str:
    """`JSON` or `PROTOBUF`, parameters left out.

    Raises:
        UnsupportedMedia: anything else.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in {JSON, PROTOBUF}:
        raise UnsupportedMedia(f"content type {media_type or 'missing'}: send {PROTOBUF} or {JSON}")
    return media_type


def is_gzip(content_encoding: str) -> bool:
    """Whether a body must be unpacked.

    Raises:
        UnsupportedMedia: neither gzip nor nothing.
    """
    encoding = content_encoding.strip().lower()
    if encoding not in {"", "identity", "none", "gzip"}:
        raise UnsupportedMedia(f"content encoding {encoding}: send gzip or none")
    return encoding == "gzip"


def success(media_type: str, refused: Counter[str]) -> Response:
    """All spans are kept but the refused ones."""
    count, message = refused.total(), "; ".join(f"{reason} ({spans})" for reason, spans in refused.items())
    if media_type == JSON:
        partial = {"partialSuccess": {"rejectedSpans": str(count), "errorMessage": message}} if count else {}
        return Response(orjson.dumps(partial), media_type=JSON)
    answer = ExportTraceServiceResponse()
    if count:
        answer.partial_success.rejected_spans = count
        answer.partial_success.error_message = message
    return Response(answer.SerializeToString(), media_type=PROTOBUF)


def failure(media_type: str, status: HTTPStatus, message: str, *, retry_after_s: float = RETRY_AFTER_S) -> Response:
    """A google.rpc.Status; with `Retry-After` where the sender shall come again."""
    code = _RPC_CODES.get(status, code_pb2.INTERNAL)
    headers = {"Retry-After": str(max(1, round(retry_after_s)))} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    if media_type == PROTOBUF:
        body = Status(code=code, message=message).SerializeToString()
        return Response(body, status, headers, media_type=PROTOBUF)
    return Response(orjson.dumps({"code": code, "message": message}), status, headers, media_type=JSON)


def failure_of(media_type: str, error: EbbflowError) -> Response:
    """What an error means to the sender: its data is bad, or it should try again."""
    retry_after_s = error.retry_after_s if isinstance(error, RateLimited) else RETRY_AFTER_S
    return failure(media_type, http_status(error), str(error), retry_after_s=retry_after_s)


def http_status(error: EbbflowError) -> HTTPStatus:
    match error:
        case TooLarge():
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        case UnsupportedMedia():
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        case ValidationError():
            return HTTPStatus.BAD_REQUEST
        case _ if error.retriable or error.code.startswith("EBB51"):
            # The store's own trouble: the data is good and may be sent again.
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR
