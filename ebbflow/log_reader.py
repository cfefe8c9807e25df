"""Reads a Kafka topic from where it begins to where it ends now, outside any consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from aiokafka import ConsumerRecord, TopicPartition

from ebbflow.kafka_errors import translated

_POLL_MS = 200
# A broker that answers nothing for this long is away; aiokafka itself would wait for ever.
_STALL_S = 30.0


class Consumer(Protocol):
    """What is needed of aiokafka's consumer."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def subscribe(self, topics: Sequence[str]) -> None: ...
    def assignment(self) -> frozenset[TopicPartition]: ...
    def assign(self, partitions: Sequence[TopicPartition]) -> None: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]: ...
    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]: ...
    async def position(self, partition: TopicPartition) -> int: ...
    async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Any]]: ...


async def read_topic(make: Callable[[], Consumer], topic: str) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """Every record that is in `topic` at the time of the call; in order within a partition.

    Raises:
        EbbflowError: Kafka cannot be read; foreign errors are translated.
    """
    with translated(f"read {topic}"):
        consumer = make()
        # Outside a group, all partitions; without this aiokafka does not learn which there are.
        consumer.subscribe([topic])
        try:
            await consumer.start()
            async for record in _read(consumer, sorted(consumer.assignment()), {}, {}):
                yield record
        finally:
            await _stop(consumer)


async def read_range(
    make: Callable[[], Consumer], partition: TopicPartition, start: int, stop: int
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """The records of one partition with start <= offset < stop; those that are gone from Kafka are left out.

    Raises:
        EbbflowError: Kafka cannot be read.
    """
    with translated(f"read {partition.topic}/{partition.partition}"):
        consumer = make()
        try:
            await consumer.start()
            consumer.assign([partition])
            async for record in _read(consumer, [partition], {partition: start}, {partition: stop}):
                if start <= record.offset < stop:
                    yield record
        finally:
            await _stop(consumer)


async def _stop(consumer: Consumer) -> None:
    """Cancellation of aiokafka's own tasks escapes from here; it must not end ours."""
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise


async def _read(
    consumer: Consumer,
    tps: list[TopicPartition],
    starts: Mapping[TopicPartition, int],
    stops: Mapping[TopicPartition, int],
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """Positions decide on the end, not records: compaction and transaction markers leave holes."""
    if not tps:
        return
    begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    targets = {tp: min(ends[tp], stops.get(tp, ends[tp])) for tp in tps}
    for tp in tps:
        consumer.seek(tp, max(begins[tp], starts.get(tp, 0)))
    left = {tp for tp in tps if max(begins[tp], starts.get(tp, 0)) < targets[tp]}
    while left:
        for tp, records in (await _poll(consumer, left)).items():
            for record in records:
                if record.offset < targets[tp]:
                    yield record
        left = {tp for tp in left if await consumer.position(tp) < targets[tp]}


async def _poll(consumer: Consumer, tps: set[TopicPartition]) -> Mapping[TopicPartition, Sequence[Any]]:
    """The next records; empty when only positions moved.

    Raises:
        TimeoutError: nothing moved for too long.
    """
    before = [await consumer.position(tp) for tp in tps]
    async with asyncio.timeout(_STALL_S):
        while True:
            batches = await consumer.getmany(*tps, timeout_ms=_POLL_MS)
            if any(batches.values()) or before != [await consumer.position(tp) for tp in tps]:
                return batches
