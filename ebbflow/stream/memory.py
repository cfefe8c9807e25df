"""Kafka in memory: topics as lists of records, a producer, and reading back; for tests and offline runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any

from ebbflow.component import Headers, Record
from ebbflow.topics import CHECKPOINTS


class MemoryKafka:
    """One partition a topic. Offsets count from 0.

    Attributes:
        fault: called before each send with the topic and value; what it returns is the send's failure.
        back: while clear, nothing is acknowledged.
    """

    def __init__(self) -> None:
        self.topics: dict[str, list[Record]] = {}
        self.fault: Callable[[str, bytes], BaseException | None] = lambda _topic, _value: None
        self.back = asyncio.Event()
        self.back.set()
        self.connections = 0

    def append(
        self, topic: str, value: bytes, key: bytes | None = None, headers: Headers = (), *, timestamp_ms: int = 0
    ) -> Record:
        """Write a record at the topic's end."""
        records = self.topics.setdefault(topic, [])
        record = Record(topic, 0, len(records), timestamp_ms, key, value, headers)
        records.append(record)
        return record

    def values(self, topic: str) -> list[bytes]:
        return [record.value for record in self.topics.get(topic, [])]

    # The producer (`ebbflow.stream.outbox.Producer`).

    async def connect(self) -> MemoryKafka:
        self.connections += 1
        return self

    async def send(
        self, topic: str, value: bytes, *, key: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._write(topic, value, key, tuple(headers)))

    async def stop(self) -> None:
        """Nothing is held."""

    async def _write(self, topic: str, value: bytes, key: bytes | None, headers: Headers) -> Record:
        await self.back.wait()
        failure = self.fault(topic, value)
        if failure is not None:
            raise failure
        return self.append(topic, value, key, headers)

    # History (`ebbflow.stream.stage.History`).

    async def checkpoints(self, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        records = self.topics.get(CHECKPOINTS, ())
        return {record.key: record.value for record in records if record.key is not None and record.key in keys}

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncIterator[Record]:
        del partition  # there is one
        for record in self.topics.get(topic, [])[start:stop]:
            yield record
