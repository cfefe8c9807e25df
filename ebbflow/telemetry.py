"""How a part of ebbflow speaks about itself: one log, one health endpoint, one metrics endpoint.

Logs are structlog's, one line an event, with the standard library's records in the same form. Client libraries
(aiokafka, Faust, kin) repeat every lost connection with a traceback; what it means is said once, with a hint, by
whoever owns the connection, so theirs is shown at `log.level = "debug"` only. Rates are metrics, never log lines.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, TextIO

import orjson
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ebbflow.config import LogConfig
from ebbflow.errors import ConfigError

CLIENT_LIBRARIES = ("aiokafka", "faust", "mode", "asyncio", "kafka", "venusian", "aiohttp", "httpx", "httpcore", "grpc")

_STOP_POLL_S = 0.05
Problems = Callable[[], Sequence[str]]


class _ClientLibraries(logging.Filter):
    """Passes everything but the client libraries' records."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.partition(".")[0] not in CLIENT_LIBRARIES


def setup_logging(config: LogConfig, component: str, *, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to `stream` (standard error by default).

    People at a terminal get coloured lines, everything else JSON, one object a line; `log.format` decides otherwise.
    `component` goes into every line.
    """
    stream = sys.stderr if stream is None else stream
    console = config.format == "console" or (config.format == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add(component),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    debug = config.level == "debug"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(console=console, colors=stream.isatty(), debug=debug),
            ],
        )
    )
    if not debug:
        handler.addFilter(_ClientLibraries())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    logging.captureWarnings(capture=True)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module or part."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound


def _add(component: str) -> Callable[[Any, str, structlog.typing.EventDict], structlog.typing.EventDict]:
    def processor(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("component", component)
        return event

    return processor


def _renderers(*, console: bool, colors: bool, debug: bool) -> list[Any]:
    """Last steps of a line. Tracebacks are for who debugs; everyone else gets the exception's one line."""
    tracebacks: list[Any] = [] if debug else [_one_line_exception]
    if console:
        return [*tracebacks, structlog.dev.ConsoleRenderer(colors=colors)]
    return [*tracebacks, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_to_json)]


def _one_line_exception(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    error = _exception(event.pop("exc_info", None))
    if error is not None:
        event["error"] = f"{type(error).__name__}: {error}"
    return event


def _exception(info: Any) -> BaseException | None:
    """What `exc_info` stands for, in any form that logging allows."""
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple):
        found: BaseException | None = info[1]
        return found
    return sys.exception() if info else None


def _to_json(event: Any, **_options: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class Health:
    """Liveness, readiness and metrics of one process over HTTP.

    /healthz is 200 as long as the process answers; /readyz is 200 when nobody has a problem, else 503, with the list
    of problems as JSON; /metrics is the registry in Prometheus' text format.
    """

    def __init__(self, registry: CollectorRegistry, problems: Sequence[Problems] = ()) -> None:
        self.registry = registry
        self._sources = list(problems)
        self._server: ThreadingHTTPServer | None = None

    def add(self, problems: Problems) -> None:
        """Ask one more part whether it is ready."""
        self._sources.append(problems)

    @property
    def ready_problems(self) -> list[str]:
        """Why this process is not ready; empty when it is."""
        return [problem for source in self._sources for problem in source()]

    def serve(self, host: str, port: int) -> int:
        """Answer on a daemon thread until `close`; port 0 takes a free one. The port that was bound is returned.

        Raises:
            ConfigError: the address cannot be bound.
        """
        try:
            self._server = _Server((host, port), _handler(self))
        except OSError as error:
            raise ConfigError(
                f"health endpoint {host}:{port}: {error.strerror or error}",
                hint="choose another port with --set health.…_port=N, or 0 to have none",
            ) from None
        Thread(target=self._server.serve_forever, args=(_STOP_POLL_S,), name="health", daemon=True).start()
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering; may be called twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "ebbflow"

        def do_GET(self) -> None:
            status, kind, body = _answer(health, self.path.partition("?")[0])
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
            """Every scrape is not an event."""

    return Handler


def _answer(health: Health, path: str) -> tuple[HTTPStatus, str, bytes]:
    if path == "/healthz":
        return HTTPStatus.OK, "application/json", b'{"alive":true}'
    if path == "/readyz":
        problems = health.ready_problems
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        return status, "application/json", orjson.dumps({"ready": not problems, "problems": problems})
    if path == "/metrics":
        return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(health.registry)
    return HTTPStatus.NOT_FOUND, "application/json", b'{"paths":["/healthz","/readyz","/metrics"]}'
