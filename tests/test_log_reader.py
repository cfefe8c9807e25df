from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka import errors as aio

from ebbflow import log_reader
from ebbflow.errors import NetworkError
from ebbflow.log_reader import read_range, read_topic


class FakeConsumer:
    """Partitions as maps of offset to value; holes are offsets that compaction has removed."""

    def __init__(self, partitions: dict[int, dict[int, bytes]], ends: dict[int, int], begins: dict[int, int]) -> None:
        self.partitions = {TopicPartition("t", number): records for number, records in partitions.items()}
        self.ends = {TopicPartition("t", number): end for number, end in ends.items()}
        self.begins = {TopicPartition("t", number): begin for number, begin in begins.items()}
        self.positions: dict[TopicPartition, int] = {}
        self.assigned: list[TopicPartition] = []
        self.stopped = 0
        self.stuck = False
        self.fault: BaseException | None = None

    async def start(self):
        if self.fault is not None:
            raise self.fault

    async def stop(self):
        self.stopped += 1

    def subscribe(self, topics):
        assert topics == ["t"]
        self.assigned = list(self.partitions)

    def assignment(self):
        return frozenset(self.assigned)

    def assign(self, partitions):
        self.assigned = list(partitions)

    def seek(self, partition, offset):
        self.positions[partition] = offset

    async def beginning_offsets(self, partitions):
        return {tp: self.begins.get(tp, 0) for tp in partitions}

    async def end_offsets(self, partitions):
        return {tp: self.ends[tp] for tp in partitions}

    async def position(self, partition):
        return self.positions[partition]

    async def getmany(self, *partitions, timeout_ms):
        """Two offsets at a time; those that are gone move only the position."""
        await asyncio.sleep(0)
        found = {}
        for tp in partitions if not self.stuck else ():
            start = self.positions[tp]
            self.positions[tp] = min(start + 2, self.ends[tp] + 3)
            records = [
                SimpleNamespace(offset=o, value=v) for o, v in self.partitions[tp].items() if start <= o < start + 2
            ]
            found[tp] = records
        return found


async def values(reading) -> list[bytes]:
    return [record.value async for record in reading]


async def test_read_topic_gives_everything_of_every_partition():
    consumer = FakeConsumer({0: {0: b"a", 1: b"b", 2: b"c"}, 1: {5: b"x"}, 2: {}}, {0: 3, 1: 6, 2: 0}, {1: 5})
    assert sorted(await values(read_topic(lambda: consumer, "t"))) == [b"a", b"b", b"c", b"x"]
    assert consumer.stopped == 1


async def test_read_topic_holes_of_compaction_do_not_stop_it():
    consumer = FakeConsumer({0: {1: b"a", 8: b"b"}}, {0: 12}, {})
    assert await values(read_topic(lambda: consumer, "t")) == [b"a", b"b"]


async def test_read_topic_what_came_after_the_call_is_left_out():
    consumer = FakeConsumer({0: {0: b"a", 1: b"b"}}, {0: 1}, {})
    assert await values(read_topic(lambda: consumer, "t")) == [b"a"]


async def test_read_range_gives_the_offsets_asked_for():
    consumer = FakeConsumer({0: {number: b"%d" % number for number in range(10)}}, {0: 10}, {})
    assert await values(read_range(lambda: consumer, TopicPartition("t", 0), 3, 6)) == [b"3", b"4", b"5"]


async def test_read_range_that_is_gone_gives_what_is_left():
    consumer = FakeConsumer({0: {7: b"7", 8: b"8"}}, {0: 9}, {0: 7})
    assert await values(read_range(lambda: consumer, TopicPartition("t", 0), 3, 8)) == [b"7"]
    assert await values(read_range(lambda: consumer, TopicPartition("t", 0), 3, 7)) == []


async def test_read_topic_broker_that_answers_nothing_is_a_network_error(monkeypatch):
    monkeypatch.setattr(log_reader, "_STALL_S", 0.01)
    consumer = FakeConsumer({0: {0: b"a"}}, {0: 1}, {})
    consumer.stuck = True
    with pytest.raises(NetworkError, match="read t"):
        await values(read_topic(lambda: consumer, "t"))
    assert consumer.stopped == 1


async def test_read_topic_foreign_error_is_translated():
    consumer = FakeConsumer({}, {}, {})
    consumer.fault = aio.KafkaConnectionError("refused")
    with pytest.raises(NetworkError, match="read t"):
        await values(read_topic(lambda: consumer, "t"))


class LeakingConsumer(FakeConsumer):
    """Its own cancellation escapes from `stop`, as aiokafka's does."""

    async def stop(self):
        await super().stop()
        raise asyncio.CancelledError


async def test_read_topic_cancellation_inside_the_client_is_not_ours():
    consumer = LeakingConsumer({0: {0: b"a"}}, {0: 1}, {})
    assert await values(read_topic(lambda: consumer, "t")) == [b"a"]


async def test_read_topic_cancellation_of_the_reader_is_ours():
    consumer = LeakingConsumer({0: {0: b"a"}}, {0: 1}, {})
    consumer.stuck = True
    task = asyncio.ensure_future(values(read_topic(lambda: consumer, "t")))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert consumer.stopped == 1
