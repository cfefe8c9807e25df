import asyncio
import os
import signal
import socket

import httpx
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from prometheus_client import CollectorRegistry

from ebbflow import sink as subject
from ebbflow.component import Output
from ebbflow.config import Config, HealthConfig, KafkaConfig, OtlpConfig
from ebbflow.errors import ConfigError, KernelError, NetworkError, PermissionDenied, Rejected
from ebbflow.sink import SinkRunner, run_sink
from ebbflow.sink_metrics import SinkMetrics
from ebbflow.troubles import Troubles
from sinks.traces import TracesSink

PARTITIONS = [TopicPartition("otlp_spans", number) for number in (0, 1)]


class FakeClient:
    """A consumer and a producer in one: what `SinkRunner` asks of them."""

    def __init__(self) -> None:
        self.sent = []
        self.stopped = 0
        self.start_error: Exception | None = None
        self.send_errors: list[Exception] = []
        self.topics_error: Exception | None = None
        self.fetched = asyncio.Event()

    async def start(self):
        if self.start_error is not None:
            raise self.start_error

    async def stop(self):
        self.stopped += 1

    def subscribe(self, topics, listener):
        self.subscribed = tuple(topics)

    async def topics(self):
        if self.topics_error is not None:
            raise self.topics_error

    async def getmany(self, *partitions, timeout_ms):
        self.fetched.set()
        await asyncio.Event().wait()

    async def send_and_wait(self, topic, value, *, key, headers):
        if self.send_errors:
            raise self.send_errors.pop(0)
        self.sent.append((topic, value, key, headers))


@pytest.fixture
def lines():
    return []


@pytest.fixture
async def client(monkeypatch):
    fake = FakeClient()
    monkeypatch.setattr(subject, "make_consumer", lambda *_, **__: fake)
    monkeypatch.setattr(subject, "make_producer", lambda *_, **__: fake)

    async def fine(*_):
        return []

    monkeypatch.setattr(subject, "check_reachable", fine)
    monkeypatch.setattr(subject, "create_topics", fine)
    monkeypatch.setattr(subject, "RETRY_S", 0)
    monkeypatch.setattr(subject, "WATCH_S", 0.01)
    return fake


@pytest.fixture
def runner(client, lines):
    troubles = Troubles(warn=lambda event, **_: lines.append(event), inform=lines.append)
    made = SinkRunner(TracesSink, Config(), troubles, SinkMetrics(CollectorRegistry(), "traces"))
    made._consumer = made._producer = client
    return made


async def run_for(runner, condition):
    """Run until the condition, an event, then stop."""
    stop = asyncio.Event()
    running = asyncio.create_task(runner.run(stop))
    await asyncio.wait_for(condition.wait(), 1)
    stop.set()
    await asyncio.wait_for(running, 1)


async def test_run_stops_when_told_and_closes_both_clients(runner, client):
    stop = asyncio.Event()
    stop.set()
    await runner.run(stop)
    assert client.stopped == 2


@pytest.mark.parametrize("trouble", [asyncio.CancelledError(), KafkaConnectionError(), None])
async def test_run_ends_well_when_clients_stop_badly_or_never(runner, client, monkeypatch, trouble):
    async def stop():
        client.stopped += 1
        if trouble is None:
            await asyncio.Event().wait()
        raise trouble

    monkeypatch.setattr(subject, "CLOSE_S", 0.01)
    client.stop = stop
    stopping = asyncio.Event()
    stopping.set()
    await asyncio.wait_for(runner.run(stopping), 1)
    assert client.stopped == 2


async def test_run_waits_for_kafka_and_says_so_once(runner, client, lines, monkeypatch):
    tries = []
    enough = asyncio.Event()

    async def away(*_):
        tries.append(1)
        if len(tries) == 3:
            enough.set()
        raise NetworkError("Kafka: no broker answers")

    monkeypatch.setattr(subject, "check_reachable", away)
    await run_for(runner, enough)
    assert lines == ["Kafka: no broker answers"]
    assert len(tries) >= 3


async def test_run_refused_by_kafka_ends_with_its_error(runner, client):
    client.start_error = TopicAuthorizationFailedError("otlp_spans")
    with pytest.raises(PermissionDenied, match=r"join at 127\.0\.0\.1:19092"):
        await asyncio.wait_for(runner.run(asyncio.Event()), 1)
    assert client.stopped == 4


async def test_run_without_the_right_to_create_topics_goes_by_those_that_exist(runner, client, monkeypatch):
    joined = asyncio.Event()
    client.subscribe = lambda *_, **__: joined.set()

    async def denied(*_):
        raise PermissionDenied("create")

    monkeypatch.setattr(subject, "create_topics", denied)
    await run_for(runner, joined)
    assert joined.is_set()


async def test_run_watches_kafka_and_says_when_it_goes_and_comes(runner, client, lines):
    client.topics_error = KafkaConnectionError("gone")
    stop = asyncio.Event()
    running = asyncio.create_task(runner.run(stop))
    await _until(lambda: lines)
    assert lines == ["Kafka: no broker answers at 127.0.0.1:19092"]
    client.topics_error = None
    await _until(lambda: len(lines) > 1)
    assert lines[1:] == ["kafka: works again"]
    stop.set()
    await running


async def test_run_failed_lane_ends_with_its_error(runner):
    running = asyncio.create_task(runner.run(asyncio.Event()))
    await asyncio.sleep(0)
    runner._fail(KernelError("first"))
    runner._fail(KernelError("second"))
    with pytest.raises(KernelError, match="first"):
        await running


async def test_partitions_get_a_lane_each_until_they_are_revoked(runner, client):
    await runner.on_partitions_assigned(PARTITIONS)
    await client.fetched.wait()
    assert set(runner._lanes) == set(PARTITIONS)
    await runner.on_partitions_revoked([PARTITIONS[0], TopicPartition("otlp_spans", 9)])
    assert set(runner._lanes) == {PARTITIONS[1]}
    await runner.on_partitions_revoked(PARTITIONS)
    assert runner._lanes == {}


async def test_revoked_partition_takes_its_troubles_along(runner):
    await runner.on_partitions_assigned(PARTITIONS[:1])
    runner._report("backend", "otlp_spans/0", KernelError("x"))
    await runner.on_partitions_revoked(PARTITIONS[:1])
    assert runner._troubles.problems() == []


async def test_publish_repeats_what_failed_until_it_is_acknowledged(runner, client, lines):
    client.send_errors = [KafkaConnectionError("gone")]
    await runner._publish([Output("ebbflow.dlq", b"k", b"1"), Output("ebbflow.dlq", b"k", b"2", (("h", b"v"),))])
    assert client.sent == [("ebbflow.dlq", b"2", b"k", [("h", b"v")]), ("ebbflow.dlq", b"1", b"k", None)]
    assert lines == ["Kafka: write to ebbflow.dlq: gone", "kafka: works again"]


async def test_publish_record_that_is_too_large_is_written_without_its_bytes(runner, client):
    client.send_errors = [MessageSizeTooLargeError("9 MiB")]
    await runner._publish([Output("ebbflow.dlq", b"k", b"large", (("h", b"v"),))])
    assert client.sent == [("ebbflow.dlq", b"", b"k", [("h", b"v")])]


async def test_publish_headers_that_are_too_large_are_an_error(runner, client):
    client.send_errors = [MessageSizeTooLargeError("9 MiB")] * 2
    with pytest.raises(Rejected):
        await runner._publish([Output("ebbflow.dlq", b"k", b"large")])


async def test_publish_final_refusal_is_raised(runner, client):
    client.send_errors = [TopicAuthorizationFailedError("ebbflow.dlq")]
    with pytest.raises(PermissionDenied):
        await runner._publish([Output("ebbflow.dlq", b"k", b"1")])


async def test_run_sink_bad_setting_is_told_before_anything_starts():
    with pytest.raises(ConfigError, match="not a URL"):
        await run_sink(TracesSink, Config(otlp=OtlpConfig(endpoint="nonsense")))


async def test_run_sink_sigterm_stops_it_while_kafka_is_away():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = Config(kafka=KafkaConfig(bootstrap=f"127.0.0.1:{taken.getsockname()[1]}"))
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        registry = CollectorRegistry()
        await asyncio.wait_for(run_sink(TracesSink, config, registry=registry), 2)
    assert registry.get_sample_value("ebbflow_sink_retries_total", {"sink": "traces"}) == 1


async def test_run_sink_serves_its_readiness_when_a_port_is_set(client, unused_tcp_port):
    stop = asyncio.Event()
    config = Config(health=HealthConfig(sink_port=unused_tcp_port))
    running = asyncio.create_task(run_sink(TracesSink, config, stop=stop))
    await asyncio.sleep(0)
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://127.0.0.1:{unused_tcp_port}/readyz")
    assert answer.json() == {"ready": True, "problems": []}
    stop.set()
    await running


def test_metrics_count_what_is_described_and_ignore_the_rest():
    registry = CollectorRegistry()
    SinkMetrics(registry, "traces").count({"exported": 3, "unheard_of": 1})
    assert registry.get_sample_value("ebbflow_sink_exported_total", {"sink": "traces"}) == 3


async def _until(condition):
    async with asyncio.timeout(1):
        while not condition():  # noqa: ASYNC110 - the condition is a plain list's
            await asyncio.sleep(0.005)
