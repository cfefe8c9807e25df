"""POST /v1/traces: OTLP/HTTP, protobuf or JSON, gzip or not.

200 is sent only when the spans are on disk. Source: opentelemetry-proto, docs/specification.md, "OTLP/HTTP".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ebbflow.errors import EbbflowError
from ebbflow.store import answers
from ebbflow.store.body import MAX_BODY_BYTES, Budget, gunzip, read_body
from ebbflow.store.decode import JSON, Decoded, decode
from ebbflow.store.metrics import StoreMetrics
from ebbflow.store.writer import Writer

MAX_RECEIVING_BYTES = 4 * MAX_BODY_BYTES


class Receiver:
    """Takes requests in, through a decoder thread and the writer.

    Args:
        executor: where bodies are unpacked and decoded; one thread, so that one unpacked body is in memory at a time.
        max_body_bytes: limit before and after unpacking.
    """

    def __init__(
        self,
        writer: Writer,
        metrics: StoreMetrics,
        executor: Executor,
        *,
        clock_ns: Callable[[], int],
        max_body_bytes: int = MAX_BODY_BYTES,
        max_receiving_bytes: int = MAX_RECEIVING_BYTES,
    ) -> None:
        self._writer = writer
        self._metrics = metrics
        self._executor = executor
        self._clock_ns = clock_ns
        self._max_body_bytes = max_body_bytes
        self._budget = Budget(max_receiving_bytes)

    async def export(self, request: Request) -> Response:
        """Answer one request; never raises for what a client did."""
        media_type = JSON  # until the request says otherwise
        try:
            media_type = answers.media_type_of(request.headers.get("content-type", ""))
            response = await self._export(request, media_type)
        except EbbflowError as error:
            response = answers.failure_of(media_type, error)
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody reads it
        self._metrics.answers.labels(str(response.status_code)).inc()
        return response

    async def _export(self, request: Request, media_type: str) -> Response:
        packed = answers.is_gzip(request.headers.get("content-encoding", ""))
        with self._budget.share() as share:
            body = await read_body(request.stream(), request.headers.get("content-length"), share, self._max_body_bytes)
            decoded = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._decode, body, media_type, packed
            )
        self._metrics.received.inc(len(decoded.rows) + decoded.refused.total())
        self._metrics.refused.inc(decoded.refused.total())
        if decoded.rows:
            await asyncio.wrap_future(self._submit(decoded))
        return answers.success(media_type, decoded.refused)

    def _decode(self, body: bytes, media_type: str, packed: bool) -> Decoded:
        plain = gunzip(body, self._max_body_bytes) if packed else body
        return decode(plain, media_type, self._clock_ns())

    def _submit(self, decoded: Decoded) -> Future[None]:
        try:
            return self._writer.submit(decoded)
        except EbbflowError:
            self._metrics.failed.inc(len(decoded.rows))
            raise
