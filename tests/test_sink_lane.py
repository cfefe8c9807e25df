import asyncio
from dataclasses import dataclass

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaConnectionError,
    TopicAuthorizationFailedError,
)

from ebbflow import sink_lane
from ebbflow.component import DeadLetter, Delivery, Sink
from ebbflow.errors import NetworkError, PermissionDenied, ValidationError
from ebbflow.sink_lane import Lane

PARTITION = TopicPartition("numbers", 2)


@dataclass
class Message:
    """What aiokafka gives."""

    offset: int
    value: bytes | None
    topic: str = "numbers"
    partition: int = 2
    timestamp: int = 7
    key: bytes | None = None
    headers: tuple = ()


class FakeConsumer:
    """Hands out scripted fetches, then nothing for ever; `log` is shared with the sink, to see the order."""

    def __init__(self, log: list, *fetches) -> None:
        self.log = log
        self.commits: list[int] = []
        self._fetches = list(fetches)
        self.commit_error: Exception | None = None
        self.idle = asyncio.Event()

    async def getmany(self, *partitions, timeout_ms):
        assert partitions == (PARTITION,)
        if not self._fetches:
            self.idle.set()
            await asyncio.Event().wait()
        fetch = self._fetches.pop(0)
        if isinstance(fetch, Exception):
            raise fetch
        return {PARTITION: fetch} if fetch else {}

    async def commit(self, offsets):
        if self.commit_error is not None:
            raise self.commit_error
        self.log.append(("commit", offsets[PARTITION]))
        self.commits.append(offsets[PARTITION])


class NumbersSink(Sink):
    name = "numbers"
    inputs = ("numbers",)

    def __init__(self, log: list) -> None:
        self.log = log
        self.held = []
        self.gate: asyncio.Event | None = None
        self.closed = 0

    @classmethod
    def from_config(cls, config):
        return cls([])

    async def add(self, record):
        if not record.value.isdigit():
            raise ValidationError("no number")
        self.held.append(record)

    async def flush(self, report):
        if self.gate is not None:
            report(NetworkError("backend away"))
            await self.gate.wait()
        report(None)
        held, self.held = self.held, []
        self.log.append(("flush", [int(record.value) for record in held]))
        return [self._deliver(record) for record in held]

    def _deliver(self, record):
        refused = record.value == b"13"
        letters = (DeadLetter("EBB710", "unlucky", record.value),) if refused else ()
        return Delivery(record, {"received": 1, "exported": 1 - refused, "rejected": int(refused)}, letters)

    async def close(self):
        self.closed += 1


class FakeLedger:
    def __init__(self, log: list) -> None:
        self.log = log
        self.entries = {}

    async def add(self, stage, source, counters):
        self.entries[stage, source] = dict(counters)

    async def flush(self):
        self.log.append("ledger")


class Harness:
    def __init__(self, *fetches) -> None:
        self.log: list = []
        self.consumer = FakeConsumer(self.log, *fetches)
        self.sink = NumbersSink(self.log)
        self.ledger = FakeLedger(self.log)
        self.outputs = []
        self.reports = []
        self.counts = []
        self.failures = []
        self.lane = Lane(
            PARTITION,
            self.sink,
            consumer=self.consumer,
            ledger=self.ledger,
            publish=self._publish,
            report=lambda subject, error: self.reports.append((subject, error.code if error else None)),
            count=self.counts.append,
            clock_unix_ns=lambda: 99,
        )

    async def _publish(self, outputs):
        found = list(outputs)
        self.outputs += found
        if found:
            self.log.append("publish")

    async def run_until_idle(self):
        self.lane.start(self.failures.append)
        await asyncio.wait_for(self.consumer.idle.wait(), 1)
        await self.lane.drain(1)


def messages(*values, first=0):
    return [Message(first + i, value) for i, value in enumerate(values)]


async def test_records_are_delivered_accounted_and_then_committed_in_order():
    harness = Harness(messages(b"1", b"2"), [], messages(b"3", first=2))
    await harness.run_until_idle()
    assert harness.log == [("flush", [1, 2]), "ledger", ("commit", 2), ("flush", [3]), "ledger", ("commit", 3)]
    assert harness.ledger.entries[("sink.numbers", "numbers/2/1")] == {"received": 1, "exported": 1, "rejected": 0}
    assert (harness.sink.closed, harness.failures) == (1, [])


async def test_repeat_of_a_killed_processor_counts_once_and_parts_of_one_record_each():
    source = ("ebbflow-source", b"raw/1/7")
    parts = [
        Message(offset, b"1", headers=(source, ("ebbflow-part", part))) for offset, part in enumerate((b"0/2", b"1/2"))
    ]
    repeats = [Message(offset + 2, part.value, headers=part.headers) for offset, part in enumerate(parts)]
    harness = Harness([*parts, *repeats, Message(4, b"2", headers=(source,))])
    await harness.run_until_idle()
    assert {source for _, source in harness.ledger.entries} == {"raw/1/7#0/2", "raw/1/7#1/2", "raw/1/7"}


async def test_refused_and_unusable_records_are_dead_letters_before_the_commit():
    harness = Harness(messages(b"1", b"x", b"13", None))
    await harness.run_until_idle()
    assert harness.log == [("flush", [1, 13]), "publish", "ledger", ("commit", 4)]
    letters = [(output.value, dict(output.headers)) for output in harness.outputs]
    assert [(value, headers["ebbflow-offset"], headers["ebbflow-code"]) for value, headers in letters] == [
        (b"x", b"1", b"EBB600"),
        (b"", b"3", b"EBB600"),
        (b"13", b"2", b"EBB710"),
    ]
    assert harness.ledger.entries[("sink.numbers", "numbers/2/1")] == {"invalid": 1}
    assert sum(count["dead_letters"] for count in harness.counts) == 3


async def test_drain_waits_for_what_is_in_flight_and_commits_it():
    harness = Harness(messages(b"1"))
    harness.sink.gate = asyncio.Event()
    harness.lane.start(harness.failures.append)
    await asyncio.sleep(0)
    draining = asyncio.create_task(harness.lane.drain(1))
    await asyncio.sleep(0)
    assert not draining.done()
    harness.sink.gate.set()
    await draining
    assert harness.consumer.commits == [1]
    assert ("backend", "EBB400") in harness.reports


async def test_drain_gives_up_on_what_is_stuck_and_does_not_commit_it():
    harness = Harness(messages(b"1"))
    harness.sink.gate = asyncio.Event()
    harness.lane.start(harness.failures.append)
    await asyncio.sleep(0)
    await harness.lane.drain(0.01)
    assert (harness.consumer.commits, harness.sink.closed, harness.failures) == ([], 1, [])


async def test_drain_before_start_does_nothing():
    harness = Harness()
    await harness.lane.drain(1)
    assert harness.sink.closed == 0


async def test_partition_that_went_to_another_member_ends_the_lane_quietly():
    harness = Harness(IllegalStateError("not assigned"))
    await harness.lane.run()
    assert harness.sink.closed == 1


async def test_stopped_consumer_ends_the_lane_quietly():
    harness = Harness(ConsumerStoppedError())
    await harness.lane.run()
    assert harness.sink.closed == 1


@pytest.mark.parametrize("error", [CommitFailedError("rebalanced"), IllegalStateError("not assigned")])
async def test_commit_after_a_rebalance_is_left_to_the_new_owner(error):
    harness = Harness(messages(b"1"))
    harness.consumer.commit_error = error
    await harness.run_until_idle()
    assert (harness.consumer.commits, harness.failures) == ([], [])


async def test_kafka_away_is_reported_and_tried_again(monkeypatch):
    monkeypatch.setattr(sink_lane, "RETRY_S", 0)
    harness = Harness(KafkaConnectionError("gone"), messages(b"1"))
    await harness.run_until_idle()
    assert harness.reports == [("kafka", "EBB400"), ("backend", None), ("kafka", None)]
    assert harness.consumer.commits == [1]


async def test_final_refusal_of_kafka_is_the_lanes_failure():
    harness = Harness(TopicAuthorizationFailedError("numbers"))
    harness.lane.start(harness.failures.append)
    await asyncio.wait_for(asyncio.wait([harness.lane._task]), 1)
    await asyncio.sleep(0)
    (failure,) = harness.failures
    assert isinstance(failure, PermissionDenied)
    assert str(failure) == "Kafka: read numbers/2: numbers"
