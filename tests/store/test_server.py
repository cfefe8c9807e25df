import signal
import socket
import threading

import httpx
import orjson
import pytest
import structlog
import uvicorn

from ebbflow.config import StoreConfig
from ebbflow.errors import NetworkError, PermissionDenied, StoreCorrupt
from ebbflow.store import server
from ebbflow.store.samples import make_request, make_span


def post(client, *spans):
    return client.post(
        "/v1/traces",
        content=make_request(spans).SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
    )


@pytest.mark.parametrize("path", ["/", "/v1/metrics", "/v1/traces/", "/api"])
def test_app_unknown_path_is_404_with_a_status(client, path):
    response = client.post(path, content=b"", headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (404, 5)


def test_app_get_of_traces_receiver_is_405(client):
    assert client.get("/v1/traces").status_code == 405


def test_app_healthy_store_is_alive_and_ready(client):
    assert client.get("/healthz").json() == {"alive": True}
    assert client.get("/readyz").json() == {"ready": True, "problems": []}


def test_app_metrics_are_prometheus_text(client):
    post(client, make_span(0))
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert "ebbflow_store_spans_stored_total 1.0" in response.text


def test_traces_filters_come_from_the_query(client):
    post(client, make_span(0), make_span(1), make_span(2, end_time_unix_nano=1 << 61))
    lines = client.get("/api/traces?service=shop&status=unset&slower_than_ns=5000000&since_ns=1&limit=5").text
    assert [orjson.loads(line)["name"] for line in lines.splitlines()] == ["span 2"]


def test_traces_many_lines_all_arrive(client):
    post(client, *(make_span(n) for n in range(450)))
    response = client.get("/api/traces?limit=0")
    assert response.headers["content-type"] == "application/x-ndjson"
    assert len(response.text.splitlines()) == 450


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "since_ns=9223372036854775808"])
def test_traces_bad_parameter_is_named(client, query):
    response = client.get(f"/api/traces?{query}")
    assert response.status_code == 400
    assert response.json()["error"].startswith(query.partition("=")[0])


def test_traces_bad_status_is_told_with_a_hint(client):
    response = client.get("/api/traces?status=bad")
    assert (response.status_code, response.json()["error"]) == (400, "'bad' is no status")
    assert response.json()["hint"]


def test_trace_by_beginning_of_its_id(client):
    post(client, make_span(0, trace_id=b"\xab" * 16))
    assert orjson.loads(client.get("/api/traces/abab").content)["trace_id"] == "ab" * 16


def test_trace_unknown_is_told(client):
    assert client.get("/api/traces/ff").json()["error"] == "no trace begins with ff"


def test_top_has_rows_and_own_losses(client):
    post(client, make_span(0), make_span(1, span_id=b""))
    found = client.get("/api/top?window_s=1e6").json()
    assert found["losses"] == {"refused": 1, "failed": 0, "deleted_age": 0, "deleted_size": 0}
    assert found["window_s"] == 1e6


def test_top_window_of_nothing_is_refused(client):
    assert client.get("/api/top?window_s=0").status_code == 400


def test_query_with_the_database_in_trouble_is_503(client, store):
    store._database._connection.close()
    response = client.get("/api/traces")
    assert response.status_code == 503
    assert "error" in response.json()


def taken_port() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_listening_taken_port_is_told_with_who(tmp_path):
    with taken_port() as taken:
        config = StoreConfig(port=taken.getsockname()[1], path=tmp_path / "s.duckdb")
        with pytest.raises(NetworkError, match="Address already in use") as error, server.listening(config):
            pass
    assert "ss -ltnp" in error.value.hint


def test_listening_answers_are_not_held_back_for_more(tmp_path):
    with server.listening(StoreConfig(port=free_port(), path=tmp_path / "s.duckdb")) as bound:
        assert bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_listening_privileged_port_is_denied(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(PermissionDenied), server.listening(StoreConfig(port=1, path=tmp_path / "s.duckdb")):
        pass


def free_port() -> int:
    with taken_port() as probe:
        return probe.getsockname()[1]


def test_serve_unusable_file_is_told_and_the_port_is_free_again(tmp_path):
    config = StoreConfig(port=free_port(), path=tmp_path / "s.duckdb")
    config.path.write_bytes(b"garbage")
    with pytest.raises(StoreCorrupt):
        server.serve(config, structlog.get_logger())
    socket.create_server(("127.0.0.1", config.port)).close()


def test_serve_answers_until_it_is_stopped_and_keeps_the_spans(tmp_path, monkeypatch):
    started: list[uvicorn.Server] = []
    ready = threading.Event()

    class Noticed(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            started.append(self)
            ready.set()

    monkeypatch.setattr(server.uvicorn, "Server", Noticed)
    config = StoreConfig(port=free_port(), path=tmp_path / "s.duckdb")
    thread = threading.Thread(target=server.serve, args=(config, structlog.get_logger()))
    thread.start()
    assert ready.wait(10)
    with httpx.Client(base_url=f"http://127.0.0.1:{config.port}", trust_env=False) as client:
        assert post(client, make_span(0)).status_code == 200
    started[0].handle_exit(signal.SIGTERM, None)
    thread.join(10)
    database = server.Database(config.path, read_only=True)
    assert list(database.rows("SELECT count(*) FROM spans")) == [(1,)]
    database.close()
