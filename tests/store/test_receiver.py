import gzip

import orjson
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ebbflow.errors import RateLimited, StoreFull
from ebbflow.store.samples import make_request, make_span

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
TRACE_ID = "5b8efff798038103d269b633813fc60c"


def post(client, content, headers=PROTOBUF, **more):
    return client.post("/v1/traces", content=content, headers=headers | more)


def stored(client) -> list[dict]:
    return [orjson.loads(line) for line in client.get("/api/traces?limit=0").content.splitlines()]


def json_body(*spans) -> bytes:
    return orjson.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})


def counted(store) -> dict[str, int]:
    return {name: count for name, count in store.metrics.totals().items() if count}


def test_export_protobuf_is_stored_when_answered(client, store):
    response = post(client, make_request([make_span(0), make_span(1)]).SerializeToString())
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "application/x-protobuf"
    assert [span["name"] for span in stored(client)] == ["span 1", "span 0"]
    assert counted(store) == {"received": 2, "stored": 2}


def test_export_json_is_stored_when_answered(client):
    span = {"traceId": TRACE_ID.upper(), "spanId": "eee19b7ec3c1b174", "name": "j", "kind": 2, "more": 1}
    response = post(client, json_body(span), JSON)
    assert (response.status_code, response.content) == (200, b"{}")
    assert response.headers["content-type"] == "application/json"
    (found,) = stored(client)
    assert (found["trace_id"], found["span_id"], found["kind"]) == (TRACE_ID, "eee19b7ec3c1b174", "server")


def test_export_gzip_is_unpacked(client):
    body = gzip.compress(make_request([make_span(0)]).SerializeToString())
    assert post(client, body, **{"content-encoding": "gzip"}).status_code == 200
    assert len(stored(client)) == 1


def test_export_empty_request_is_a_success(client):
    assert post(client, b"").status_code == 200


def test_export_same_request_twice_is_stored_once(client, store):
    body = make_request([make_span(0)]).SerializeToString()
    assert [post(client, body).status_code for _ in range(2)] == [200, 200]
    assert len(stored(client)) == 1
    assert counted(store) == {"received": 2, "stored": 1, "repeated": 1}


def test_export_spans_with_bad_ids_are_partly_refused(client, store):
    spans = [make_span(0), make_span(1, trace_id=bytes(16)), make_span(2, span_id=b"\x01")]
    answer = ExportTraceServiceResponse.FromString(post(client, make_request(spans).SerializeToString()).content)
    assert answer.partial_success.rejected_spans == 2
    assert "trace_id" in answer.partial_success.error_message
    assert len(stored(client)) == 1
    assert counted(store) == {"received": 3, "stored": 1, "refused": 2}


def test_export_json_span_with_short_id_is_refused(client):
    response = post(client, json_body({"traceId": "abcd", "spanId": "eee19b7ec3c1b174"}), JSON)
    assert (response.status_code, response.json()["partialSuccess"]["rejectedSpans"]) == (200, "1")


@pytest.mark.parametrize("headers", [{}, {"content-encoding": "gzip"}])
def test_export_garbage_is_bad_request(client, headers):
    response = post(client, b"\xff\xffgarbage", **headers)
    assert response.status_code == 400
    assert Status.FromString(response.content).code == 3


def test_export_json_garbage_is_bad_request_in_json(client):
    response = post(client, b"{", JSON)
    assert (response.status_code, response.json()["code"]) == (400, 3)


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {}, PROTOBUF | {"content-encoding": "br"}],
)
def test_export_other_media_is_unsupported(client, headers):
    assert client.post("/v1/traces", content=b"x", headers=headers).status_code == 415


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (bytes((1 << 16) + 1), {}),
        (gzip.compress(bytes((1 << 16) + 1)), {"content-encoding": "gzip"}),
    ],
)
def test_export_too_large_before_or_after_unpacking_is_413(client, content, headers):
    response = post(client, content, **headers)
    assert response.status_code == 413
    assert Status.FromString(response.content).code == 8


def test_export_full_queue_is_503_with_retry_after(client, store, monkeypatch):
    def refuse(_decoded):
        raise RateLimited("full", retry_after_s=2)

    monkeypatch.setattr(store.writer, "submit", refuse)
    response = post(client, make_request([make_span(0)]).SerializeToString())
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert counted(store) == {"received": 1, "failed": 1}


def test_export_database_in_trouble_is_503(client, store, monkeypatch):
    def refuse(_rows, _resources):
        raise StoreFull("no space")

    monkeypatch.setattr(store._database, "insert", refuse)
    response = post(client, make_request([make_span(0)]).SerializeToString())
    assert (response.status_code, Status.FromString(response.content).message) == (503, "no space")
    assert client.get("/readyz").json() == {"ready": False, "problems": ["no space"]}
    assert counted(store) == {"received": 1, "failed": 1}


async def test_export_client_that_goes_away_is_counted(store):
    from starlette.requests import Request

    async def receive():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    response = await store.receiver.export(Request(scope, receive))
    assert response.status_code == 499
    registry = store.metrics.registry
    assert registry.get_sample_value("ebbflow_store_answers_total", {"status": "499"}) == 1
