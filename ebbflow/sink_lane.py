"""One partition's way through a sink: fetch, deliver, account, commit, one after the other.

    getmany(partition) ─ Sink.add ─ Sink.flush ─┬─ dead letters ─┐
                                                └─ ledger ───────┴─ acknowledged ─ commit

The next records are asked for when the last have been committed. That is the back-pressure: the consumer holds one
fetch of every partition and asks the broker for no more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError

from ebbflow.component import DeadLetter, Delivery, Output, Record, Sink
from ebbflow.dead_letters import to_output
from ebbflow.errors import EbbflowError, ValidationError
from ebbflow.kafka_errors import FOREIGN, translate

POLL_MS = 1000
RETRY_S = 1.0


class Consumer(Protocol):
    """What a lane needs of aiokafka's consumer."""

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]: ...

    async def commit(self, offsets: dict[TopicPartition, int]) -> None: ...


class LedgerBook(Protocol):
    """What a lane needs of `ebbflow.ledger.LedgerWriter`."""

    async def add(self, stage: str, source: str, counters: Mapping[str, int]) -> None: ...

    async def flush(self) -> None: ...


class Lane:
    """Carries one partition until it is drained.

    Args:
        partition: which one.
        sink: of this partition alone; closed in the end.
        publish: writes records to Kafka and returns when they are acknowledged.
        report: takes ("kafka" or "backend", the error or None).
        count: takes the counters of deliveries, for metrics.
    """

    def __init__(
        self,
        partition: TopicPartition,
        sink: Sink,
        *,
        consumer: Consumer,
        ledger: LedgerBook,
        publish: Callable[[Iterable[Output]], Awaitable[None]],
        report: Callable[[str, EbbflowError | None], None],
        count: Callable[[Mapping[str, int]], None],
        clock_unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.partition = partition
        self.stage = f"sink.{sink.name}"
        self._sink = sink
        self._consumer = consumer
        self._ledger = ledger
        self._publish = publish
        self._report = report
        self._count = count
        self._clock_unix_ns = clock_unix_ns
        self._draining = False
        self._delivering = False
        self._task: asyncio.Task[None] | None = None

    def start(self, on_failure: Callable[[BaseException], None]) -> None:
        """Run as a task. `on_failure` gets what ends it other than `drain`."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                on_failure(error)

        self._task = asyncio.create_task(self.run(), name=f"{self.stage} {self.partition}")
        self._task.add_done_callback(ended)

    async def drain(self, timeout_s: float) -> None:
        """Finish and commit what is being delivered, for at most so long; what is not finished comes again."""
        if self._task is None:
            return
        self._draining = True
        if not self._delivering:
            self._task.cancel()
        _done, late = await asyncio.wait([self._task], timeout=timeout_s)
        if late:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def run(self) -> None:
        """Fetch and deliver until drained.

        Raises:
            EbbflowError: Kafka refuses us for good.
        """
        try:
            while not self._draining:
                await self._step()
        finally:
            await self._sink.close()

    async def _step(self) -> None:
        try:
            found = await self._consumer.getmany(self.partition, timeout_ms=POLL_MS)
            if messages := found.get(self.partition):
                self._delivering = True
                await self._carry([_to_record(message) for message in messages])
        except (IllegalStateError, ConsumerStoppedError):
            self._draining = True  # the partition is another member's now, or the consumer has stopped
        except FOREIGN as foreign:
            error = translate(foreign, f"read {self.partition.topic}/{self.partition.partition}")
            if not error.retriable:
                raise error from None
            self._report("kafka", error)
            await asyncio.sleep(RETRY_S)
        finally:
            self._delivering = False

    async def _carry(self, records: list[Record]) -> None:
        deliveries = await self._deliver(records)
        now_ns = self._clock_unix_ns()
        await self._publish(
            to_output(delivery.record, letter, stage=self.stage, time_unix_ns=now_ns)
            for delivery in deliveries
            for letter in delivery.dead_letters
        )
        await self._account(deliveries)
        await self._commit(records[-1].offset + 1)
        for delivery in deliveries:
            self._count({**delivery.counters, "dead_letters": len(delivery.dead_letters)})

    async def _deliver(self, records: list[Record]) -> list[Delivery]:
        """Everything the backend has answered for, and what never was for it."""
        unusable = []
        for record in records:
            try:
                await self._sink.add(record)
            except ValidationError as error:
                letter = DeadLetter(error.code, str(error), record.value)
                unusable.append(Delivery(record, {"invalid": 1}, (letter,)))
        return unusable + await self._sink.flush(lambda error: self._report("backend", error))

    async def _account(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            await self._ledger.add(self.stage, _origin(delivery.record), delivery.counters)
        await self._ledger.flush()

    async def _commit(self, offset: int) -> None:
        try:
            await self._consumer.commit({self.partition: offset})
        except (CommitFailedError, IllegalStateError):
            return  # the group has moved on; whoever has the partition now delivers these records once more
        self._report("kafka", None)


def _origin(record: Record) -> str:
    """What the ledger knows a record by: the input it was made from, where its headers say so.

    A processor that was killed writes the same record once more, at another offset; by its origin it counts once.
    """
    headers = dict(record.headers)
    source = headers.get("ebbflow-source")
    if source is None:
        return f"{record.topic}/{record.partition}/{record.offset}"
    return "#".join(
        part.decode("utf-8", "replace") for part in (source, headers.get("ebbflow-part")) if part is not None
    )


def _to_record(message: Any) -> Record:
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.timestamp,
        message.key,
        message.value or b"",
        tuple(message.headers),
    )
