"""How many requests one core takes from encoded RawBatch to encoded spans.

    python -m bench.processor [ROUNDS]

Two events a request, 64 connections, 2000 events a batch, made through ebbflow.records.encode. Two figures: heads that
repeat, and heads that all differ (path, traceparent, a response header). The baseline is a naive encoder by itself:
spans of the same size as protobuf objects, nothing parsed or paired.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import orjson
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from bench.figures import Figure
from ebbflow.component import Record
from ebbflow.testing.socket_events import Event, Wire, encode_batch
from ebbflow.topics import RAW_SOCKETS
from processors.requests import Requests

CONNECTIONS = 64
BATCH_EVENTS = 2000
BATCHES = 20
REPEATING_HEADS = 50
OBJECTS = 4000


def request_head(number: int) -> bytes:
    return (
        b"GET /api/users/%d?x=1 HTTP/1.1\r\nHost: shop.local:8080\r\nUser-Agent: wrk/4.1\r\nAccept: */*\r\n"
        b"traceparent: 00-%032x-%016x-01\r\n\r\n"
    ) % (number, number + 1, number + 1)


def response(number: int) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nX-Request-Id: %016x\r\n"
        b'Content-Length: 13\r\nConnection: keep-alive\r\n\r\n{"ok": true}\n'
    ) % number


def records(heads: int) -> list[Record]:
    """Batches of so many different heads each way."""
    wires = [Wire(generation=(1 << 20) + number, step_ns=1000) for number in range(CONNECTIONS)]
    values, number = [], 0
    for sequence in range(BATCHES):
        events: list[Event] = []
        while len(events) < BATCH_EVENTS:
            wire = wires[number % CONNECTIONS]
            wire.events.clear()
            wire.receive(request_head(number % heads))
            wire.send(response(number % heads))
            events += wire.events
            number += 1
        values.append(encode_batch(events, wires, sequence=sequence))
    return [Record(RAW_SOCKETS, 0, offset, 0, b"host/0", value) for offset, value in enumerate(values)]


def process_all(batches: list[Record]) -> int:
    processor = Requests()
    spans = 0
    for record in batches:
        spans += processor.process(record).counters["spans"]
    return spans


def build_objects(requests: int) -> int:
    """A span as protobuf objects, with the attributes of a typical one; nothing is parsed."""
    size = 0
    for number in range(requests):
        span = trace_pb2.Span(
            trace_id=b"\1" * 16,
            span_id=number.to_bytes(8, "big"),
            name="GET /api/users/{id}",
            kind=trace_pb2.Span.SPAN_KIND_SERVER,
            start_time_unix_nano=number,
            end_time_unix_nano=number,
        )
        span.attributes.extend(
            common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=value))
            for key, value in _TYPICAL_ATTRIBUTES.items()
        )
        size += len(span.SerializeToString())
    return requests


_TYPICAL_ATTRIBUTES = {
    "http.request.method": "GET", "http.route": "/api/users/{id}", "url.path": "/api/users/1", "url.query": "x=1",
    "url.scheme": "http", "network.protocol.version": "1.1", "network.protocol.name": "http", "network.type": "ipv4",
    "user_agent.original": "wrk/4.1", "server.address": "shop.local", "server.port": "8080",
    "http.response.status_code": "200", "http.response.body.size": "13", "network.transport": "tcp",
    "network.peer.address": "10.0.0.2", "network.peer.port": "40000", "network.local.address": "10.0.0.1",
    "network.local.port": "8080", "client.address": "10.0.0.2",
}  # fmt: skip


def rate(work: Callable[[], int]) -> float:
    """Requests per second of processor time."""
    started = time.process_time()
    return work() / (time.process_time() - started)


def figures(rounds: int = 5) -> list[Figure]:
    """The processor's figures; the variants take turns within each round."""
    repeating, distinct = records(REPEATING_HEADS), records(10**9)
    variants: dict[str, Callable[[], int]] = {
        "processor, heads repeat": lambda: process_all(repeating),
        "processor, every head differs": lambda: process_all(distinct),
        "spans as protobuf objects": lambda: build_objects(OBJECTS),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, work in variants.items():
            rates[name].append(rate(work))
    repeats, differs, objects = rates.values()
    unit = "requests/s/core"
    return [
        Figure("processor, heads repeat", repeats, unit, at_least=100_000, baseline=objects),
        Figure("processor, every head differs", differs, unit, at_least=50_000, baseline=objects),
    ]


if __name__ == "__main__":
    found = figures(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    print(orjson.dumps([figure.to_json() for figure in found], option=orjson.OPT_INDENT_2).decode())
