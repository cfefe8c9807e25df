from __future__ import annotations

import io
import json
import logging
import socket
import urllib.error
import urllib.request

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from ebbflow.config import LogConfig
from ebbflow.errors import ConfigError
from ebbflow.telemetry import Health, logger, setup_logging


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_setup_logging_without_terminal_writes_one_json_object_a_line():
    stream = io.StringIO()
    setup_logging(LogConfig(), "sink.traces", stream=stream)
    logger("ebbflow.x").info("started", port=4)
    (line,) = lines(stream)
    assert line | {"timestamp": ""} == {
        "event": "started", "port": 4, "component": "sink.traces", "level": "info", "timestamp": "",
    }  # fmt: skip


def test_setup_logging_standard_library_record_takes_the_same_form():
    stream = io.StringIO()
    setup_logging(LogConfig(), "store", stream=stream)
    logging.getLogger("uvicorn.error").warning("port %d", 8)
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["component"]) == ("port 8", "warning", "store")


@pytest.mark.parametrize(("level", "shown"), [("info", 0), ("debug", 1)])
def test_setup_logging_client_library_shows_only_when_debugging(level, shown):
    stream = io.StringIO()
    setup_logging(LogConfig(level=level), "x", stream=stream)
    logging.getLogger("aiokafka.conn").error("connection lost")
    assert len(lines(stream)) == shown


def test_setup_logging_below_level_writes_nothing():
    stream = io.StringIO()
    setup_logging(LogConfig(level="warning"), "x", stream=stream)
    logger("ebbflow.x").info("started")
    assert stream.getvalue() == ""


def boom() -> None:
    raise ValueError("no good")


@pytest.mark.parametrize("log", [logger("ebbflow.x"), logging.getLogger("other")])
def test_setup_logging_exception_is_one_line(log):
    stream = io.StringIO()
    setup_logging(LogConfig(), "x", stream=stream)
    try:
        boom()
    except ValueError:
        log.exception("failed")
    (line,) = lines(stream)
    assert line["error"] == "ValueError: no good"
    assert "Traceback" not in stream.getvalue()


def test_setup_logging_exception_given_as_object_is_one_line():
    stream = io.StringIO()
    setup_logging(LogConfig(), "x", stream=stream)
    logger("ebbflow.x").error("failed", exc_info=ValueError("late"))
    logger("ebbflow.x").error("fine", exc_info=False)
    assert [line.get("error") for line in lines(stream)] == ["ValueError: late", None]


def test_setup_logging_exception_when_debugging_has_its_traceback():
    stream = io.StringIO()
    setup_logging(LogConfig(level="debug"), "x", stream=stream)
    try:
        boom()
    except ValueError:
        logger("ebbflow.x").exception("failed")
    assert "Traceback" in str(lines(stream)[0]["exception"])


def test_setup_logging_console_writes_text_for_people():
    stream = io.StringIO()
    setup_logging(LogConfig(format="console"), "x", stream=stream)
    logger("ebbflow.x").info("started", port=4)
    assert "started" in stream.getvalue()
    assert "port=4" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def health():
    registry = CollectorRegistry()
    Counter("ebbflow_test_records_total", "Records.", registry=registry).inc(3)
    health = Health(registry)
    yield health
    health.close()


def test_health_without_problems_is_alive_and_ready(health):
    port = health.serve("127.0.0.1", 0)
    assert get(port, "/healthz") == (200, b'{"alive":true}')
    assert get(port, "/readyz") == (200, b'{"ready":true,"problems":[]}')


def test_health_with_a_problem_is_alive_but_not_ready(health):
    health.add(lambda: ["Kafka is away"])
    port = health.serve("127.0.0.1", 0)
    assert get(port, "/healthz")[0] == 200
    assert get(port, "/readyz?verbose") == (503, b'{"ready":false,"problems":["Kafka is away"]}')


def test_health_metrics_are_the_registrys(health):
    status, body = get(health.serve("127.0.0.1", 0), "/metrics")
    assert status == 200
    assert b"ebbflow_test_records_total 3.0" in body


def test_health_unknown_path_is_404(health):
    assert get(health.serve("127.0.0.1", 0), "/x")[0] == 404


def test_health_port_taken_names_the_port(health):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: Address already in use") as caught:
            health.serve("127.0.0.1", port)
    assert "port" in caught.value.hint


def test_health_close_twice_is_harmless(health):
    port = health.serve("127.0.0.1", 0)
    health.close()
    health.close()
    with pytest.raises(urllib.error.URLError):
        get(port, "/healthz")
