"""The store's process: OTLP in, questions out, health; all on one port, on loopback unless told otherwise.

POST /v1/traces                 OTLP/HTTP
GET  /api/traces                spans as JSON lines: service, status, slower_than_ns, since_ns, limit
GET  /api/traces/{id}           one trace as JSON lines; a unique beginning of the id is enough
GET  /api/top                   rates over `window_s`
GET  /healthz /readyz /metrics
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Any

import orjson
import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.exceptions import HTTPException
from structlog.typing import FilteringBoundLogger

from ebbflow.config import StoreConfig
from ebbflow.errors import ConfigError, EbbflowError, NetworkError, PermissionDenied
from ebbflow.store import answers, queries
from ebbflow.store.body import MAX_BODY_BYTES
from ebbflow.store.database import Database
from ebbflow.store.decode import JSON
from ebbflow.store.metrics import StoreMetrics
from ebbflow.store.receiver import Receiver
from ebbflow.store.writer import Writer

JSON_LINES = "application/x-ndjson"
BACKLOG = 128
STOP_WITHIN_S = 3
LOSSES = ("refused", "failed", "deleted_age", "deleted_size")
Count = Annotated[int, Query(ge=0, lt=1 << 63)]


class Store:
    """The parts of one running store, and the answers of its API."""

    def __init__(
        self,
        database: Database,
        config: StoreConfig,
        log: FilteringBoundLogger,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._database = database
        self._clock_ns = clock_ns
        self.metrics = StoreMetrics(CollectorRegistry())
        self.writer = Writer(database, config, self.metrics, log, clock_ns=clock_ns)
        self._decoder = ThreadPoolExecutor(1, "store-decoder")
        self.receiver = Receiver(
            self.writer, self.metrics, self._decoder, clock_ns=clock_ns, max_body_bytes=max_body_bytes
        )

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """From the first request to the last; what was taken in is on disk at the end."""
        self.writer.start()
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        self._decoder.shutdown()
        self.writer.close()
        self._database.close()

    def traces(
        self,
        service: str = "",
        status: str = "",
        slower_than_ns: Count = 0,
        since_ns: Count = 0,
        limit: Count = 100,
    ) -> Response:
        wanted = queries.SpanFilter(
            service=service, status=status, slower_than_ns=slower_than_ns, since_ns=since_ns, limit=limit
        )
        return self._stream(queries.find_spans(self._database, wanted))

    def trace(self, trace_id: str) -> Response:
        return self._stream(queries.find_trace(self._database, trace_id))

    def _stream(self, lines: Iterator[bytes]) -> Response:
        """JSON lines as they are found. The first is awaited, so that errors still become a status."""
        first = next(lines, b"")
        return StreamingResponse(chain((first,), _joined(lines)), media_type=JSON_LINES)

    def top(self, window_s: Annotated[float, Query(gt=0, le=31_536_000)] = 10.0) -> Response:
        totals = self.metrics.totals()
        found = queries.find_top(
            self._database,
            int(window_s * 1e9),
            now_ns=self._clock_ns(),
            losses={name: totals[name] for name in LOSSES},
        )
        return _json(found.as_json())

    def ready(self) -> Response:
        problems = self.writer.problems()
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        return _json({"ready": not problems, "problems": problems}, status)

    def prometheus(self) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _joined(lines: Iterator[bytes], count: int = 200) -> Iterator[bytes]:
    """Many lines a chunk: each chunk costs a change of threads."""
    part: list[bytes] = []
    for line in lines:
        part.append(line)
        if len(part) == count:
            yield b"".join(part)
            part.clear()
    yield b"".join(part)


def _json(content: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(orjson.dumps(content), status, media_type=JSON)


def alive() -> Response:
    return _json({"alive": True})


def create_app(store: Store) -> FastAPI:
    """The web application over a store's parts; it starts and closes them."""
    app = FastAPI(lifespan=store.lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_route("/v1/traces", store.receiver.export, methods=["POST"])
    for path, answer in (
        ("/api/traces", store.traces),
        ("/api/traces/{trace_id}", store.trace),
        ("/api/top", store.top),
        ("/healthz", alive),
        ("/readyz", store.ready),
        ("/metrics", store.prometheus),
    ):
        app.add_api_route(path, answer, methods=["GET"], response_model=None)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_bad_parameter)
    app.add_exception_handler(EbbflowError, _on_error)
    return app


def _on_http_error(request: Request, error: Exception) -> Response:
    """404 and 405, as OTLP clients expect them."""
    status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else 500)
    media_type = request.headers.get("content-type", "").partition(";")[0]
    return answers.failure(media_type, status, f"{request.method} {request.url.path}: {status.phrase.lower()}")


def _on_bad_parameter(_: Request, error: Exception) -> Response:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": ("",), "msg": str(error)}
    return _json({"error": f"{first['loc'][-1]}: {first['msg']}", "hint": ""}, HTTPStatus.BAD_REQUEST)


def _on_error(_: Request, error: Exception) -> Response:
    """An error of ours to a question: the asker's, when it is about the question."""
    status = HTTPStatus.BAD_REQUEST if isinstance(error, ConfigError) else HTTPStatus.SERVICE_UNAVAILABLE
    return _json({"error": str(error), "hint": getattr(error, "hint", "")}, status)


@contextmanager
def listening(config: StoreConfig) -> Iterator[socket.socket]:
    """The store's socket.

    Raises:
        NetworkError: the port is taken, or the host is none of this machine's.
        PermissionDenied: the port is a privileged one.
    """
    where = f"{config.host}:{config.port}"
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
    except PermissionError:
        raise PermissionDenied(f"no right to listen on {where}", hint="use --set store.port=14318") from None
    except OSError as error:
        raise NetworkError(
            f"cannot listen on {where}: {error.strerror}",
            hint=f"see who has it with `ss -ltnp sport = :{config.port}`, or use --set store.port=N",
        ) from None
    with bound:
        # asyncio does this for sockets it makes itself; accepted ones inherit it. Without, every answer takes 40 ms.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield bound


def serve(config: StoreConfig, log: FilteringBoundLogger) -> None:
    """Run a store until SIGINT or SIGTERM.

    Raises:
        NetworkError, PermissionDenied, StoreError: it cannot start.
    """
    with listening(config) as bound:
        database = Database(config.path, max_bytes=config.max_bytes)
        app = create_app(Store(database, config, log))
        settings = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=STOP_WITHIN_S
        )
        log.info("store listening", url=f"http://{config.host}:{config.port}", path=str(config.path))
        uvicorn.Server(settings).run(sockets=[bound])
