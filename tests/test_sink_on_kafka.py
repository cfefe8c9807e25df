"""The sink runner and the traces sink on a real Kafka: numbered spans in, every one of them accounted for."""

import asyncio
import signal
import socket
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from ebbflow.broker import LocalKafka
from ebbflow.config import Config, KafkaConfig, OtlpConfig
from ebbflow.kafka import create_topics, make_consumer, make_producer
from ebbflow.ledger import Ledger
from ebbflow.sink import SinkRunner
from ebbflow.sink_metrics import SinkMetrics
from ebbflow.testing.otlp_backend import HttpBackend, Reply
from ebbflow.testing.spans import make_traces, numbered_spans, span_numbers
from ebbflow.topics import DEAD_LETTERS, LEDGER, topic
from ebbflow.troubles import Troubles
from sinks.traces import TracesSink

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[1]
SPANS_PER_RECORD = 50

# What a child process runs: the sink under test under a name and on a topic of its own.
CHILD = """
import asyncio, sys
from ebbflow.config import Config, KafkaConfig, LogConfig, OtlpConfig
from ebbflow.sink import run_sink
from ebbflow.telemetry import setup_logging
from sinks.traces import TracesSink
bootstrap, endpoint, name = sys.argv[1:]
setup_logging(LogConfig(), "sink")
sink = type("Sink", (TracesSink,), {"name": name, "inputs": (name,)})
otlp = OtlpConfig(endpoint=endpoint, batch_bytes=10_000, timeout_s=2)
asyncio.run(run_sink(sink, Config(kafka=KafkaConfig(bootstrap=bootstrap), otlp=otlp)))
"""


@pytest.fixture
async def name(kafka) -> str:
    """A topic of this test alone, and the sink's name."""
    own = f"spans.{uuid4().hex[:8]}"
    await create_topics(KafkaConfig(bootstrap=kafka))
    await create_topics(KafkaConfig(bootstrap=kafka), [replace(topic("otlp_spans"), name=own)])
    return own


async def put(bootstrap: str, name: str, records: int, *, first: int = 0, pause_s: float = 0.0) -> None:
    """Records of numbered spans, over all partitions in turn."""
    producer = make_producer(KafkaConfig(bootstrap=bootstrap))
    await producer.start()
    for index in range(first, first + records):
        numbers = range(index * SPANS_PER_RECORD, (index + 1) * SPANS_PER_RECORD)
        await producer.send_and_wait(name, make_traces(numbers), partition=index % 4)
        await asyncio.sleep(pause_s)
    await producer.stop()


async def read_all(bootstrap: str, name: str) -> list:
    """Every record of a topic."""
    consumer = make_consumer(KafkaConfig(bootstrap=bootstrap))
    consumer.subscribe([name])
    await consumer.start()
    while not consumer.assignment():  # noqa: ASYNC110 - aiokafka has no event for it
        await asyncio.sleep(0.01)
    ends = await consumer.end_offsets(list(consumer.assignment()))
    found = []
    for partition, end in ends.items():
        while await consumer.position(partition) < end:
            for batch in (await consumer.getmany(partition, timeout_ms=1000)).values():
                found += batch
    await consumer.stop()
    return found


async def lag(bootstrap: str, name: str) -> int:
    """Records that the sink's group has not committed."""
    consumer = make_consumer(KafkaConfig(bootstrap=bootstrap), group_id=f"ebbflow.sink.{name}")
    consumer.subscribe([name])
    await consumer.start()
    partitions = list(consumer.assignment())
    ends = await consumer.end_offsets(partitions)
    committed = {partition: await consumer.committed(partition) or 0 for partition in partitions}
    await consumer.stop()
    return sum(ends.values()) - sum(committed.values())


async def ledger_of(bootstrap: str, name: str) -> dict[str, int]:
    """The sums that the sink's stage wrote, as `ebbflow ledger` takes them."""
    book = Ledger()
    for message in await read_all(bootstrap, LEDGER):
        book.add(message.value)
    return book.totals().get(f"sink.{name}", {})


async def dead_letters_of(bootstrap: str, name: str) -> list:
    letters = await read_all(bootstrap, DEAD_LETTERS)
    return [letter for letter in letters if dict(letter.headers)["ebbflow-topic"] == name.encode()]


def spans_by_number(bodies: list[bytes]) -> dict[int, list[bytes]]:
    """The serialised spans that arrived under each number."""
    found: dict[int, list[bytes]] = {}
    for body in bodies:
        for number, span in numbered_spans(body):
            found.setdefault(number, []).append(span)
    return found


async def until(condition, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.02)


def arrived(backend: HttpBackend) -> Counter:
    return Counter(number for body in backend.accepted for number in span_numbers(body))


@asynccontextmanager
async def child(bootstrap: str, endpoint: str, name: str):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, bootstrap, endpoint, name, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def make_runner(bootstrap: str, endpoint: str, name: str, lines: list[str] | None = None) -> SinkRunner:
    sink = type("Sink", (TracesSink,), {"name": name, "inputs": (name,)})
    told = [] if lines is None else lines
    troubles = Troubles(warn=lambda event, **_: told.append(event), inform=told.append)
    config = Config(kafka=KafkaConfig(bootstrap=bootstrap), otlp=OtlpConfig(endpoint=endpoint, timeout_s=2))
    return SinkRunner(sink, config, troubles, SinkMetrics(CollectorRegistry(), name))


@asynccontextmanager
async def running(runner: SinkRunner):
    stop = asyncio.Event()
    task = asyncio.create_task(runner.run(stop))
    try:
        yield runner
    finally:
        stop.set()
        await asyncio.wait_for(task, 5)


async def test_records_are_exported_garbage_is_a_dead_letter_and_all_is_committed(kafka, name):
    await put(kafka, name, 20)
    producer = make_producer(KafkaConfig(bootstrap=kafka))
    await producer.start()
    for value in (b"garbage", b"\xff" * 10, None):
        await producer.send_and_wait(name, value, partition=1, key=b"k")
    await producer.stop()
    await put(kafka, name, 4, first=20)
    async with HttpBackend() as backend, running(make_runner(kafka, backend.url, name)):
        await until(lambda: len(arrived(backend)) == 24 * SPANS_PER_RECORD)
    assert set(arrived(backend).values()) == {1}
    assert [letter.value for letter in await dead_letters_of(kafka, name)] == [b"garbage", b"\xff" * 10]
    assert await ledger_of(kafka, name) == {"received": 1200, "exported": 1200, "rejected": 0, "invalid": 2}
    assert await lag(kafka, name) == 0


async def test_refused_request_is_dead_letters_and_the_stream_goes_on(kafka, name):
    await put(kafka, name, 1)
    async with HttpBackend([Reply(400)]) as backend, running(make_runner(kafka, backend.url, name)):
        await until(lambda: backend.requests)
        await put(kafka, name, 3, first=1)
        await until(lambda: len(arrived(backend)) == 3 * SPANS_PER_RECORD)
    (letter,) = await dead_letters_of(kafka, name)
    assert span_numbers(letter.value) == list(range(SPANS_PER_RECORD))
    assert dict(letter.headers)["ebbflow-code"] == b"EBB710"
    assert await ledger_of(kafka, name) == {"received": 200, "exported": 150, "rejected": 50}


async def test_backend_away_moves_no_offset_and_is_told_once(kafka, name):
    await put(kafka, name, 8)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        lines: list[str] = []
        runner = make_runner(kafka, f"http://127.0.0.1:{taken.getsockname()[1]}", name, lines)
        async with running(runner):
            await until(lambda: sum(lane._delivering for lane in runner._lanes.values()) == 4)
            await until(lambda: lines)
            assert [problem.partition(":")[0] for problem in runner._troubles.problems()] == ["backend"]
    assert len(lines) == 1
    assert await lag(kafka, name) == 8


@pytest.mark.slow
async def test_kill_9_of_the_sink_loses_nothing_and_repeats_only_the_same_bytes(kafka, name):
    records = 400
    total = records * SPANS_PER_RECORD
    async with HttpBackend() as backend:
        putting = asyncio.create_task(put(kafka, name, records, pause_s=0.005))
        for share in (0.05, 0.3, 0.6):
            async with child(kafka, backend.url, name) as process:
                await until(lambda goal=share * total: len(arrived(backend)) >= goal)
                process.kill()
        async with child(kafka, backend.url, name) as process:
            await until(lambda: len(arrived(backend)) == total, 60)
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.wait_for(process.communicate(), 5)
            assert process.returncode == 0, errors
        await putting
        seen = spans_by_number(backend.accepted)
    assert sorted(seen) == list(range(total))
    assert all(len(set(copies)) == 1 for copies in seen.values())
    assert await ledger_of(kafka, name) == {"received": total, "exported": total, "rejected": 0}
    assert await lag(kafka, name) == 0


async def test_sigterm_with_a_silent_backend_ends_in_time_and_commits_nothing(kafka, name):
    await put(kafka, name, 4)
    silent = [Reply(way="silent")] * 100
    async with HttpBackend(silent) as backend, child(kafka, backend.url, name) as process:
        await until(lambda: backend.requests)
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 5)
    assert process.returncode == 0
    assert b"Traceback" not in errors
    assert await lag(kafka, name) == 4


async def test_second_member_and_its_leaving_lose_and_repeat_nothing(kafka, name):
    records = 200
    async with HttpBackend() as backend:
        putting = asyncio.create_task(put(kafka, name, records, pause_s=0.01))
        async with running(make_runner(kafka, backend.url, name)) as first:
            await until(lambda: len(arrived(backend)) > 10 * SPANS_PER_RECORD)
            async with running(make_runner(kafka, backend.url, name)) as second:
                await until(lambda: len(first._lanes) == len(second._lanes) == 2)
            await until(lambda: len(first._lanes) == 4)
            await putting
            await until(lambda: len(arrived(backend)) == records * SPANS_PER_RECORD)
        assert set(arrived(backend).values()) == {1}
    assert await lag(kafka, name) == 0


@pytest.mark.slow
async def test_broker_kill_9_is_told_once_and_loses_nothing(tmp_path, unused_tcp_port_factory):
    broker = LocalKafka(tmp_path, unused_tcp_port_factory(), unused_tcp_port_factory(), heap="256m")
    broker.start()
    try:
        broker.wait_ready()
        bootstrap = broker.bootstrap
        await create_topics(KafkaConfig(bootstrap=bootstrap), [replace(topic("otlp_spans"), name="spans.own")])
        await put(bootstrap, "spans.own", 40)
        lines: list[str] = []
        async with HttpBackend() as backend:
            async with running(make_runner(bootstrap, backend.url, "spans.own", lines)):
                await until(lambda: len(arrived(backend)) == 40 * SPANS_PER_RECORD)
                broker.kill()
                await until(lambda: lines, 20)
                await asyncio.to_thread(broker.start)
                await asyncio.to_thread(broker.wait_ready)
                await put(bootstrap, "spans.own", 40, first=40)
                await until(lambda: len(arrived(backend)) == 80 * SPANS_PER_RECORD, 60)
                await until(lambda: len(lines) == 2, 20)
            seen = spans_by_number(backend.accepted)
        assert all(len(set(copies)) == 1 for copies in seen.values())
        assert lines == [f"Kafka: no broker answers at {bootstrap}", "kafka: works again"]
        assert (await ledger_of(bootstrap, "spans.own"))["exported"] == 80 * SPANS_PER_RECORD
    finally:
        broker.stop()


@pytest.mark.slow
async def test_sink_started_before_kafka_waits_without_a_traceback(tmp_path, unused_tcp_port_factory):
    broker = LocalKafka(tmp_path, unused_tcp_port_factory(), unused_tcp_port_factory(), heap="256m")
    async with HttpBackend() as backend, child(broker.bootstrap, backend.url, "otlp_spans") as process:
        first = await asyncio.wait_for(process.stderr.readline(), 10)
        assert b"no broker answers" in first
        broker.start()
        try:
            await asyncio.to_thread(broker.wait_ready)
            await create_topics(KafkaConfig(bootstrap=broker.bootstrap))
            await put(broker.bootstrap, "otlp_spans", 8)
            await until(lambda: len(arrived(backend)) == 8 * SPANS_PER_RECORD)
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.wait_for(process.communicate(), 5)
        finally:
            broker.stop()
    assert b"Traceback" not in errors
    assert process.returncode == 0
