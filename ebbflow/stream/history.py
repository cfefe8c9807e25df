"""Kafka as a stage reads it outside its consumer group: checkpoints, and records that are needed again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from ebbflow.component import Record
from ebbflow.config import KafkaConfig
from ebbflow.kafka import make_consumer
from ebbflow.log_reader import read_range, read_topic
from ebbflow.topics import CHECKPOINTS, MAX_RECORD_BYTES

_FETCH_BYTES = 16 * MAX_RECORD_BYTES


class KafkaHistory:
    """`ebbflow.stream.recovery.History` on a real cluster; each call has a connection of its own."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config

    async def checkpoints(self, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        async for record in read_topic(self._consumer, CHECKPOINTS):
            if record.key in keys:
                # A tombstone: somebody wants this partition to begin without state.
                found[record.key] = record.value or b""
        return {key: value for key, value in found.items() if value}

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncIterator[Record]:
        async for record in read_range(self._consumer, TopicPartition(topic, partition), start, stop):
            yield _ours(record)

    def _consumer(self) -> AIOKafkaConsumer:
        return make_consumer(self._config, max_partition_fetch_bytes=_FETCH_BYTES)


def _ours(record: ConsumerRecord[bytes, bytes]) -> Record:
    headers = tuple(record.headers)
    return Record(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value or b"", headers
    )
