import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ebbflow.config import KafkaConfig, OtlpConfig, StoreConfig
from ebbflow.doctor import services
from ebbflow.doctor.check import Status
from ebbflow.errors import NetworkError
from ebbflow.kafka import Cluster


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def backend():
    """An HTTP server that answers POST with `server.status` and remembers path and headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            server.seen.append((self.path, self.headers["x-token"]))
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.status, server.seen = 200, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(server):
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("bootstrap", "local", "port"),
    [
        ("127.0.0.1:19092", True, 19092),
        ("localhost:1,127.0.0.1:2", True, 1),
        ("[::1]:9", True, 9),
        ("kafka.example:9092", False, 9092),
        ("127.0.0.1:1, kafka:2", False, 1),
        ("kafka", False, None),
    ],
)
def test_bootstrap_is_taken_apart(bootstrap, local, port):
    assert (services.is_local(bootstrap), services.first_port(bootstrap)) == (local, port)


def test_kafka_of_make_run_that_is_not_started_is_a_note(free_port):
    check = services.kafka(KafkaConfig(bootstrap=f"127.0.0.1:{free_port}"))
    assert (check.status, check.details["reachable"]) == (Status.NOTE, False)


def test_kafka_port_with_something_else_blocks(listener):
    check = services.kafka(KafkaConfig(bootstrap=f"127.0.0.1:{listener}"), timeout_s=0.1)
    assert check.blocks
    assert check.hint


def test_kafka_elsewhere_that_does_not_answer_blocks(monkeypatch):
    async def refuse(config, timeout_s):
        raise NetworkError("Kafka: no broker answers", hint="run `ebbflow doctor`")

    monkeypatch.setattr(services, "check_reachable", refuse)
    check = services.kafka(KafkaConfig(bootstrap="kafka.example:9092"))
    assert (check.blocks, check.value) == (True, "Kafka: no broker answers")
    assert "kafka.bootstrap" in check.hint


def test_kafka_settings_that_cannot_be_used_keep_their_hint(tmp_path):
    config = KafkaConfig(bootstrap="kafka.example:9092", security_protocol="SSL", ssl_cafile=tmp_path / "ca.pem")
    check = services.kafka(config)
    assert (check.blocks, check.hint) == (True, "name readable PEM files in [kafka]")


def test_kafka_that_answers_is_counted(monkeypatch):
    async def answer(config, timeout_s):
        return Cluster(("a:1",), frozenset({"x", "y"}))

    monkeypatch.setattr(services, "check_reachable", answer)
    check = services.kafka(KafkaConfig(bootstrap="kafka.example:9092"))
    assert (check.status, check.value) == (Status.OK, "kafka.example:9092: 1 broker, 2 topics")


def test_otlp_store_that_is_not_started_is_a_note(free_port):
    assert services.otlp(OtlpConfig(), StoreConfig(port=free_port)).status is Status.NOTE


def test_otlp_store_that_runs_is_asked(backend):
    check = services.otlp(OtlpConfig(), StoreConfig(port=backend.server_port))
    assert (check.status, backend.seen) == (Status.OK, [("/v1/traces", None)])


def test_otlp_endpoint_gets_path_and_headers(backend):
    check = services.otlp(OtlpConfig(endpoint=url(backend) + "/", headers={"x-token": "t"}), StoreConfig())
    assert (check.status, backend.seen) == (Status.OK, [("/v1/traces", "t")])


def test_otlp_traces_endpoint_is_used_as_given(backend):
    services.otlp(OtlpConfig(endpoint="http://other", traces_endpoint=url(backend) + "/in"), StoreConfig())
    assert backend.seen == [("/in", None)]


@pytest.mark.parametrize(("status", "hint"), [(401, "otlp.headers"), (403, "otlp.headers"), (404, "otlp.endpoint")])
def test_otlp_refusal_fails_without_blocking(backend, status, hint):
    backend.status = status
    check = services.otlp(OtlpConfig(endpoint=url(backend)), StoreConfig())
    assert (check.status, check.blocks) == (Status.FAIL, False)
    assert hint in check.hint


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "nonsense", "http://[", "https://127.0.0.1:1"])
def test_otlp_endpoint_that_cannot_be_reached_fails(endpoint):
    assert services.otlp(OtlpConfig(endpoint=endpoint), StoreConfig(), timeout_s=0.2).status is Status.FAIL


def test_otlp_bad_certificate_file_fails_with_its_hint(tmp_path):
    config = OtlpConfig(endpoint="https://127.0.0.1:1", certificate=tmp_path / "ca.pem")
    check = services.otlp(config, StoreConfig())
    assert (check.status, check.hint) == (Status.FAIL, "name readable PEM files in [otlp]")


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_otlp_grpc_connects(listener, form):
    config = OtlpConfig(endpoint=form.format(listener), protocol="grpc")
    assert services.otlp(config, StoreConfig()).status is Status.OK


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "127.0.0.1:nonsense"])
def test_otlp_grpc_that_refuses_fails(endpoint):
    config = OtlpConfig(endpoint=endpoint, protocol="grpc")
    assert services.otlp(config, StoreConfig()).status is Status.FAIL
