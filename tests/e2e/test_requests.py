"""997 requests to a real nginx are 997 server spans, equal to its access log, wherever they can be seen."""

from __future__ import annotations

from collections import Counter

import pytest
from e2e.client import Client, Request
from e2e.collectors import BEHIND_THE_SINK, ON_THE_TOPIC, read_file
from e2e.harness import exchange, wait_until

from ebbflow.broker import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.tools]

TOTAL, PIPELINED, CONNECTIONS = 997, 10, 4
SECRET = "e2e-secret-value"


def make_requests(number: int) -> list[Request]:
    """A mixture: methods, bodies, statuses, queries, and a credential that must not leave the producer."""
    kinds = [
        lambda i: Request("GET", f"/items/{i}"),
        lambda i: Request("GET", f"/items/{i}?page={i % 7}&sort=name"),
        lambda i: Request("HEAD", "/page.html"),
        lambda i: Request("POST", "/items/", b"x" * (i % 50 + 1)),
        lambda i: Request("GET", f"/missing/{i}"),
        lambda i: Request("DELETE", f"/items/{i}"),
        lambda i: Request("GET", "/page.html", headers=(f"Authorization: Bearer {SECRET}",)),
        lambda i: Request("PUT", f"/broken/{i}", b"{}"),
        lambda i: Request("GET", "/"),
    ]
    return [kinds[i % len(kinds)](i) for i in range(number)]


def send(port: int, requests: list[Request]) -> None:
    """Ten at a time, over several connections in turn, so that the connections' requests interleave."""
    clients = [Client(port) for _ in range(CONNECTIONS)]
    for turn, first in enumerate(range(0, len(requests), PIPELINED)):
        clients[turn % CONNECTIONS].exchange(requests[first : first + PIPELINED])
    for client in clients:
        client.socket.close()


def assert_equal_to_the_log(spans: list[dict], logged: list) -> None:
    assert len(spans) == len(logged) == TOTAL
    assert [exchange(span) for span in spans] == [line.exchange for line in logged]
    assert len({span["span_id"] for span in spans}) == TOTAL


def test_997_pipelined_requests_are_seen_the_same_in_three_places(pipeline, nginx, tmp_path, collector):
    server = nginx()
    pipeline.start()
    topic_file = tmp_path / "topic.jsonl"
    collector(ON_THE_TOPIC.format(bootstrap=pipeline.broker.bootstrap, file=topic_file))
    pipeline.producer(f"pid:{server.pid}")
    send(server.port, make_requests(TOTAL))
    totals = pipeline.wait_settled()
    logged = server.lines()
    assert Counter(line.status for line in logged) == {200: 776, 404: 111, 500: 110}
    assert totals["requests"]["exchanges"] == totals["sink.traces"]["exported"] == TOTAL

    assert_equal_to_the_log(pipeline.spans(), logged)
    wait_until(lambda: len(read_file(topic_file)) == TOTAL, what="the Collector reading otlp_spans")
    assert_equal_to_the_log(read_file(topic_file), logged)
    # A second destination, as an operator gives it what Kafka still has: the group begins anew.
    for protocol in ("http/protobuf", "grpc"):
        assert_equal_to_the_log(through_a_collector(pipeline, collector, tmp_path, protocol), logged)
    assert all(SECRET.encode() not in record.value for record in pipeline.records("ebbflow.raw.sockets"))


def through_a_collector(pipeline, collector, tmp_path, protocol: str) -> list[dict]:
    """Let the sink send everything on otlp_spans to a Collector behind it."""
    pipeline.stop("sink")
    pipeline.forget_group("ebbflow.sink.traces")
    http, grpc, file = free_port(), free_port(), tmp_path / f"{protocol[:4]}.jsonl"
    collector(BEHIND_THE_SINK.format(http=http, grpc=grpc, file=file))
    url = f"http://127.0.0.1:{grpc}" if protocol == "grpc" else f"http://127.0.0.1:{http}/v1/traces"
    pipeline.sink(otlp__traces_endpoint=url, otlp__protocol=protocol)
    wait_until(lambda: len(read_file(file)) >= TOTAL, what=f"the Collector behind the sink ({protocol})")
    return read_file(file)
