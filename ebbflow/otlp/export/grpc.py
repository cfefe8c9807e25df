"""OTLP/gRPC: one unary call, with bytes in and bytes out; nothing is parsed and built again on the way.

Retried are the seven codes of the specification, RESOURCE_EXHAUSTED only with RetryInfo; the call is never retried by
gRPC itself.

Reference: opentelemetry-proto docs/specification.md, "OTLP/gRPC Throttling"; google/rpc/error_details.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from ebbflow.errors import EbbflowError, NetworkError, RateLimited, Rejected, TooLarge
from ebbflow.otlp.export.answer import MAX_RESPONSE_BYTES, MAX_RETRY_AFTER_S, Accepted, read_response, shorten
from ebbflow.otlp.signals import Signal

RETRIABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
# gRPC reports an oversize response with the code that servers use for an oversize request. Ours is checked first, so
# that the two are told apart; beyond this many bytes gRPC stops reading.
_HARD_LIMIT_BYTES = 4 * MAX_RESPONSE_BYTES

_HINTS = {
    grpc.StatusCode.UNAUTHENTICATED: "set the backend's credentials in otlp.headers",
    grpc.StatusCode.PERMISSION_DENIED: "set the backend's credentials in otlp.headers",
    grpc.StatusCode.UNIMPLEMENTED: "the backend has no OTLP service for this signal there; check otlp.endpoint",
}


class GrpcExporter:
    """Calls one service on one channel.

    Args:
        target: host:port.
        headers: sent as metadata; gRPC wants names in lower case.
        credentials: None for plain text.
        timeout_s: for one whole call.
        use_proxy: honour https_proxy and its like.
    """

    def __init__(
        self,
        signal: Signal,
        target: str,
        *,
        headers: Mapping[str, str],
        compress: bool,
        timeout_s: float,
        credentials: grpc.ChannelCredentials | None = None,
        use_proxy: bool = True,
    ) -> None:
        self._signal = signal
        self._target = target
        self._timeout_s = timeout_s
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        options = (
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", _HARD_LIMIT_BYTES),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", int(use_proxy)),
            # Channels of one process would share a connection, and with it its state of failure.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        )
        compression = grpc.Compression.Gzip if compress else grpc.Compression.NoCompression
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options, compression)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options, compression)
        self._call: Any = self._channel.unary_unary(signal.method)

    async def send(self, body: bytes) -> Accepted:
        try:
            answer = await self._call(body, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise judge(error.code(), error.details() or "", error.trailing_metadata(), self._target) from None
        if len(answer) > MAX_RESPONSE_BYTES:
            raise Rejected(f"OK with {len(answer)} bytes, discarded", hint=_HINTS[grpc.StatusCode.UNIMPLEMENTED])
        return read_response(self._signal, answer)

    async def close(self) -> None:
        await self._channel.close()


def judge(
    code: grpc.StatusCode, details: str, trailers: Iterable[tuple[str, str | bytes]] | None, target: str
) -> EbbflowError:
    """Our error for a status. `grpc-status-details-bin` among the trailers may hold a RetryInfo."""
    text = f"{target}: gRPC {code.name} {shorten(details)}".strip()
    retry_after_s = read_retry_info(trailers or ())
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after_s is None:
        return TooLarge(text, hint="lower otlp.batch_bytes, or raise the backend's request limit")
    if code not in RETRIABLE and code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Rejected(text, hint=_HINTS.get(code, "see the backend's log; what was refused is in `ebbflow dlq`"))
    if retry_after_s is not None:
        return RateLimited(text, retry_after_s=retry_after_s, hint="the backend is busy; data waits in Kafka")
    return NetworkError(text, hint="check that the backend runs at otlp.endpoint: `ebbflow doctor`")


def read_retry_info(trailers: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Seconds to wait, from the RetryInfo in a status' details; None when there is none."""
    for name, value in trailers:
        if name != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        try:
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    delay_s: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
                    return min(max(0.0, delay_s), MAX_RETRY_AFTER_S)
        except DecodeError:
            return None
    return None
