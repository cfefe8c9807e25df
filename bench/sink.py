"""How many spans one core takes from Kafka to an OTLP backend.

    python -m bench.sink [ROUNDS]

Spans of about 500 bytes, 500 to a record of 250 kB. The backend is another process that reads and forgets. CPU time is
the sink's own. "check" is what reading a record costs before it may be joined with others: a full parse, against a walk
over the wire format in Python, which would check less.
"""

from __future__ import annotations

import asyncio
import gzip
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from prometheus_client import CollectorRegistry

from bench.figures import Figure
from ebbflow.broker import LIBS, LocalKafka, free_port
from ebbflow.component import Record
from ebbflow.config import Config, KafkaConfig, LogConfig, OtlpConfig
from ebbflow.kafka import create_topics, make_producer
from ebbflow.otlp.signals import TRACES
from ebbflow.sink import SinkRunner
from ebbflow.sink_metrics import SinkMetrics
from ebbflow.telemetry import setup_logging
from ebbflow.topics import topic
from ebbflow.troubles import Troubles
from sinks.traces import TracesSink

SPANS = 500
RECORDS = 40
KAFKA_RECORDS = 200
TARGET_SPANS_PER_S = 100_000  # what the processor is asked to make on a core of its own


def make_value(first: int) -> bytes:
    """A record as the requests processor writes them: one resource, HTTP server spans."""
    data = TracesData()
    resource = data.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    spans = resource.scope_spans.add().spans
    for number in range(first, first + SPANS):
        span = spans.add(
            trace_id=(number * 0x9E3779B97F4A7C15 % 2**128).to_bytes(16, "big"),
            span_id=(number * 0xC2B2AE3D27D4EB4F % 2**64).to_bytes(8, "big"),
            name="GET /api/users/{id}",
            kind=2,
            start_time_unix_nano=1_700_000_000_000_000_000 + number * 1234,
            end_time_unix_nano=1_700_000_000_000_900_000 + number * 1234,
        )
        for key, value in ATTRIBUTES:
            span.attributes.add(key=key).value.string_value = value
        span.attributes.add(key="http.response.status_code").value.int_value = 200
        span.attributes.add(key="network.peer.port").value.int_value = 1024 + number % 60_000
    return data.SerializeToString()


ATTRIBUTES = (
    ("http.request.method", "GET"),
    ("url.scheme", "http"),
    ("url.path", "/api/users/4711"),
    ("http.route", "/api/users/{id}"),
    ("server.address", "shop.local"),
    ("client.address", "10.1.2.3"),
    ("network.peer.address", "10.1.2.3"),
    ("network.protocol.name", "http"),
    ("network.protocol.version", "1.1"),
    ("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
)


async def _forget(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    writer.close()


async def _serve(pipe: Connection) -> None:
    http = await asyncio.start_server(_forget, "127.0.0.1", 0, limit=1 << 24)
    _, service, method = TRACES.method.split("/")
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda _body, _context: b"")
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", -1),))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send((http.sockets[0].getsockname()[1], port))
    await asyncio.Event().wait()


def _backend(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


@contextmanager
def backend() -> Iterator[tuple[int, int]]:
    """HTTP and gRPC ports of a process that takes everything."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_backend, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


async def deliver(records: list[Record], otlp: OtlpConfig) -> None:
    sink = TracesSink.from_config(Config(otlp=otlp))
    for start in range(0, len(records), 16):  # 4 MiB, a fetch
        for record in records[start : start + 16]:
            await sink.add(record)
        await sink.flush(lambda _error: None)
    await sink.close()


async def consume(bootstrap: str, endpoint: str, name: str) -> None:
    """Run the whole sink from the beginning of its topic until everything is exported."""
    registry = CollectorRegistry()
    troubles = Troubles(warn=print, inform=print)
    sink = type("Sink", (TracesSink,), {"name": name, "inputs": ("bench.spans",)})
    config = Config(kafka=KafkaConfig(bootstrap=bootstrap), otlp=OtlpConfig(endpoint=endpoint))
    stop = asyncio.Event()
    running = asyncio.create_task(SinkRunner(sink, config, troubles, SinkMetrics(registry, name)).run(stop))
    while (registry.get_sample_value("ebbflow_sink_exported_total", {"sink": name}) or 0) < KAFKA_RECORDS * SPANS:
        if running.done():
            running.result()
        await asyncio.sleep(0.005)
    stop.set()
    await running


async def fill(bootstrap: str) -> None:
    await create_topics(KafkaConfig(bootstrap=bootstrap), [replace(topic("otlp_spans"), name="bench.spans")])
    producer = make_producer(KafkaConfig(bootstrap=bootstrap))
    await producer.start()
    for number in range(KAFKA_RECORDS):
        await producer.send_and_wait("bench.spans", make_value(number * SPANS), partition=number % 4)
    await producer.stop()


def walk(value: bytes) -> int:
    """Spans of a TracesData by its wire format alone: three nested fields, each of one-byte tags."""
    count = 0
    for start, end in _fields(value, 0, len(value), 0x0A):
        for inner, inner_end in _fields(value, start, end, 0x12):
            count += sum(1 for _ in _fields(value, inner, inner_end, 0x12))
    return count


def _fields(value: bytes, position: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    while position < end:
        tag = value[position]
        size = shift = 0
        while True:
            position += 1
            size |= (value[position] & 0x7F) << shift
            if value[position] < 0x80:
                break
            shift += 7
        position += 1
        if tag == wanted:
            yield position, position + size
        position += size


def cpu_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def _each(work: Callable[[bytes], object], values: list[bytes]) -> None:
    for value in values:
        work(value)


def measure(rounds: int, http: int, grpc_port: int) -> dict[str, list[float]]:
    """Samples by name, the ways interleaved."""
    values = [make_value(number * SPANS) for number in range(RECORDS)]
    records = [Record("otlp_spans", 0, offset, 0, None, value) for offset, value in enumerate(values)]
    spans, size = RECORDS * SPANS, sum(map(len, values))
    ways = {
        "http gzip": OtlpConfig(endpoint=f"http://127.0.0.1:{http}"),
        "http": OtlpConfig(endpoint=f"http://127.0.0.1:{http}", compression="none"),
        "grpc gzip": OtlpConfig(endpoint=f"http://127.0.0.1:{grpc_port}", protocol="grpc"),
        "grpc": OtlpConfig(endpoint=f"http://127.0.0.1:{grpc_port}", protocol="grpc", compression="none"),
    }
    samples: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, otlp in ways.items():
            samples.setdefault(name, []).append(spans / cpu_s(partial(run, partial(deliver, records, otlp))))
        for name, check in (("check", TRACES.count), ("walk", walk)):
            samples.setdefault(name, []).append(spans / cpu_s(partial(_each, check, values)))
        for level in (1, 6):
            seconds = cpu_s(partial(_each, partial(gzip.compress, compresslevel=level, mtime=0), values))
            samples.setdefault(f"gzip {level}", []).append(size / seconds / 1e6)
    return samples


def measure_kafka(rounds: int, http: int) -> dict[str, list[float]]:
    """Spans a second of the whole sink on a real Kafka, by CPU time and by the clock; nothing where there is none."""
    samples: dict[str, list[float]] = {"cpu": [], "wall": []}
    if not any(LIBS.glob("kafka_*.jar")):
        return samples
    with tempfile.TemporaryDirectory() as directory:
        broker = LocalKafka(Path(directory), free_port(), free_port())
        broker.start()
        try:
            broker.wait_ready()
            asyncio.run(fill(broker.bootstrap))
            for number in range(rounds):
                start = time.perf_counter()
                work = partial(consume, broker.bootstrap, f"http://127.0.0.1:{http}", f"bench{number}")
                samples["cpu"].append(KAFKA_RECORDS * SPANS / cpu_s(partial(run, work)))
                samples["wall"].append(KAFKA_RECORDS * SPANS / (time.perf_counter() - start))
        finally:
            broker.stop()
    return samples


def figures(rounds: int = 3) -> list[Figure]:
    """The sink's figures; the ways take turns within each round."""
    setup_logging(LogConfig(level="error"), "bench")
    with backend() as (http, grpc_port):
        found = measure(rounds, http, grpc_port)
        kafka = measure_kafka(rounds, http)
    unit, target = "spans/s/core", TARGET_SPANS_PER_S
    made = [
        Figure("sink, HTTP gzip", found["http gzip"], unit, at_least=target),
        Figure("sink, HTTP", found["http"], unit, at_least=target),
        Figure("sink, gRPC gzip", found["grpc gzip"], unit, at_least=target),
        Figure("sink, gRPC", found["grpc"], unit, at_least=target),
        Figure("sink, check by full parse (of: wire walk)", found["check"], unit, baseline=found["walk"]),
        Figure("sink, gzip level 1 (of: level 6)", found["gzip 1"], "MB/s", baseline=found["gzip 6"]),
    ]
    if kafka["cpu"]:
        made.append(Figure("sink, Kafka to HTTP gzip", kafka["cpu"], unit, at_least=target))
        made.append(Figure("sink, Kafka to HTTP gzip, start to stop", kafka["wall"], "spans/s"))
    return made


if __name__ == "__main__":
    for each in figures(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        print(each.line())
