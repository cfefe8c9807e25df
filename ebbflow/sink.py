"""Runs a sink: a plain consumer group, one lane a partition, offsets committed after the backend's word.

Nothing is lost when it is killed at any point: what was not committed is read and delivered again, as the same bytes.
While Kafka or the backend is away it waits, says so once, with a hint, and is not ready; nothing is dropped, because
Kafka holds the data.

The consumer is aiokafka's, and its rebalances are eager: every one ends all lanes and starts them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from prometheus_client import CollectorRegistry

from ebbflow.component import Output, Sink
from ebbflow.config import Config
from ebbflow.errors import EbbflowError, NetworkError, PermissionDenied, Rejected
from ebbflow.kafka import check_reachable, create_topics, make_consumer, make_producer
from ebbflow.kafka_errors import AWAY, FOREIGN, translated
from ebbflow.ledger import LedgerWriter
from ebbflow.sink_lane import Lane
from ebbflow.sink_metrics import SinkMetrics
from ebbflow.telemetry import Health, logger
from ebbflow.topics import CATALOGUE, DEAD_LETTERS, LEDGER
from ebbflow.troubles import Troubles

SESSION_TIMEOUT_MS = 10_000
HEARTBEAT_MS = 1_000
REBALANCE_TIMEOUT_MS = 15_000
# A backend may be away for as long as it likes; lanes that wait for it are alive. int32 milliseconds, 24 days.
MAX_POLL_INTERVAL_MS = 2**31 - 1
FETCH_BYTES = 4 << 20
DRAIN_S = 3.0  # of the 5 s that a stop may take, and below the rebalance timeout
CLOSE_S = 0.7
WATCH_S = 5.0
RETRY_S = 1.0

log = logger(__name__)


async def run_sink(
    sink: type[Sink],
    config: Config,
    *,
    registry: CollectorRegistry | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run a sink until `stop` is set or SIGTERM or SIGINT arrives; then finish within 5 s.

    Raises:
        EbbflowError: the configuration cannot work, or Kafka refuses us for good.
    """
    registry = registry or CollectorRegistry()
    stop = stop or asyncio.Event()
    troubles = Troubles(warn=log.warning, inform=log.info)
    await sink.from_config(config).close()  # a bad setting is found now, not when the first record arrives
    health = Health(registry, [troubles.problems])
    if config.health.sink_port:
        health.serve(config.health.host, config.health.sink_port)
    try:
        with _stopped_by_signals(stop):
            await SinkRunner(sink, config, troubles, SinkMetrics(registry, sink.name)).run(stop)
    finally:
        health.close()


class SinkRunner(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is not typed
    """Joins the group `ebbflow.sink.<name>` and keeps one lane for every partition it is given."""

    def __init__(self, sink: type[Sink], config: Config, troubles: Troubles, metrics: SinkMetrics) -> None:
        self._sink = sink
        self._config = config
        self._troubles = troubles
        self._metrics = metrics
        self._lanes: dict[TopicPartition, Lane] = {}
        self._consumer: Any = None
        self._producer: Any = None
        self._failure: asyncio.Future[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`.

        Raises:
            EbbflowError: Kafka refuses us for good.
        """
        self._failure = asyncio.get_running_loop().create_future()
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(stop.wait()),
            asyncio.ensure_future(self._work()),
            self._failure,
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._close()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Start a lane for each. Called by the consumer within a rebalance."""
        for partition in assigned:
            lane = Lane(
                partition,
                self._sink.from_config(self._config),
                consumer=self._consumer,
                ledger=LedgerWriter(self._producer),
                publish=self._publish,
                report=self._reporter(_name(partition)),
                count=self._metrics.count,
            )
            self._lanes[partition] = lane
            lane.start(self._fail)
        self._metrics.lanes.set(len(self._lanes))

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Finish and commit what is in flight. Called by the consumer within a rebalance, which waits for it."""
        lanes = [self._lanes.pop(partition) for partition in revoked if partition in self._lanes]
        await asyncio.gather(*(lane.drain(DRAIN_S) for lane in lanes))
        for lane in lanes:
            self._troubles.forget(_name(lane.partition))
        self._metrics.lanes.set(len(self._lanes))

    async def _work(self) -> None:
        """Connect, however long that takes, then watch whether Kafka answers; lanes do the rest."""
        while not await self._connect():  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(RETRY_S)
        log.info(
            "sink runs", sink=self._sink.name, topics=list(self._sink.inputs), bootstrap=self._config.kafka.bootstrap
        )
        while True:
            await asyncio.sleep(WATCH_S)
            await self._look_for_kafka()

    async def _connect(self) -> bool:
        """Whether Kafka took us in.

        Raises:
            EbbflowError: it never will.
        """
        try:
            await check_reachable(self._config.kafka)
            await self._ensure_topics()
            await self._join()
        except EbbflowError as error:
            if not error.retriable:
                raise
            self._report("kafka", "connection", error)
            return False
        self._report("kafka", "connection", None)
        return True

    async def _ensure_topics(self) -> None:
        needed = {*self._sink.inputs, DEAD_LETTERS, LEDGER}
        # Without the right to create topics we go by those that exist.
        with contextlib.suppress(PermissionDenied):
            await create_topics(self._config.kafka, [topic for topic in CATALOGUE if topic.name in needed])

    async def _join(self) -> None:
        self._producer = make_producer(self._config.kafka)
        self._consumer = make_consumer(
            self._config.kafka,
            group_id=f"ebbflow.sink.{self._sink.name}",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        try:
            with translated(f"join at {self._config.kafka.bootstrap}"):
                await self._producer.start()
                self._consumer.subscribe(self._sink.inputs, listener=self)
                await self._consumer.start()
        except EbbflowError:
            await _close(self._consumer, self._producer)
            raise

    async def _look_for_kafka(self) -> None:
        """Notice that brokers are away: aiokafka goes on trying when it has none, and tells only its log."""
        try:
            async with asyncio.timeout(WATCH_S):
                await self._consumer.topics()
        except FOREIGN:
            away = NetworkError(f"Kafka: no broker answers at {self._config.kafka.bootstrap}", hint=AWAY.hint)
            self._report("kafka", "connection", away)
        else:
            self._report("kafka", "connection", None)

    async def _publish(self, outputs: Iterable[Output]) -> None:
        """Write records and return when Kafka has them all; repeated for as long as it takes."""
        left = list(outputs)
        while left:
            errors = await asyncio.gather(*map(self._send, left))
            for error in filter(None, errors):
                if not error.retriable:
                    raise error
                self._report("kafka", "dead letters", error)
            left = [output for output, error in zip(left, errors, strict=True) if error is not None]
            if left:
                await asyncio.sleep(RETRY_S)
            else:
                self._report("kafka", "dead letters", None)

    async def _send(self, output: Output) -> EbbflowError | None:
        """Write one record; what failed is returned. One that no topic takes is written without its bytes."""
        headers = list(output.headers) or None
        try:
            with translated(f"write to {output.topic}"):
                await self._producer.send_and_wait(output.topic, output.value, key=output.key, headers=headers)
        except Rejected as error:
            if not output.value:
                return error
            log.warning("record too large to keep", topic=output.topic, size_bytes=len(output.value), error=str(error))
            return await self._send(replace(output, value=b""))
        except EbbflowError as error:
            return error
        return None

    def _reporter(self, who: str) -> Callable[[str, EbbflowError | None], None]:
        return lambda subject, error: self._report(subject, who, error)

    def _report(self, subject: str, who: str, error: EbbflowError | None) -> None:
        self._troubles.report(subject, who, error)
        if error is not None:
            self._metrics.count({"retries" if error.retriable else "refusals": 1})

    def _fail(self, error: BaseException) -> None:
        """A lane ended that should not have: the process ends with its error."""
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def _close(self) -> None:
        await self.on_partitions_revoked(list(self._lanes))
        await _close(self._consumer, self._producer)


async def _close(consumer: AIOKafkaConsumer | None, producer: AIOKafkaProducer | None) -> None:
    """Leave the group and let go of connections; Kafka may be away, so neither may take long."""
    for client in (consumer, producer):
        if client is not None:
            # A task of its own: aiokafka that has just lost its broker may end its own stop by a cancellation.
            stopping = asyncio.ensure_future(client.stop())
            await asyncio.wait([stopping], timeout=CLOSE_S)
            if not stopping.cancel() and not stopping.cancelled():
                with contextlib.suppress(*FOREIGN):
                    stopping.result()


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


@contextlib.contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
