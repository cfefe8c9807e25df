from __future__ import annotations

from types import SimpleNamespace

import pytest

from ebbflow import ledger_reader
from ebbflow.config import KafkaConfig
from ebbflow.errors import DependencyError
from ebbflow.ledger import Entry, LedgerWriter
from ebbflow.ledger_reader import read_ledger


@pytest.fixture
def records(monkeypatch):
    """What the topic has; None: there is no topic."""
    found = SimpleNamespace(values=[])

    async def read(_make, topic):
        assert topic == "ebbflow.ledger"
        for value in found.values:
            yield SimpleNamespace(value=value)

    async def reach(_config):
        return SimpleNamespace(topics=frozenset() if found.values is None else frozenset({"ebbflow.ledger"}))

    monkeypatch.setattr(ledger_reader, "read_topic", read)
    monkeypatch.setattr(ledger_reader, "check_reachable", reach)
    return found


async def test_read_ledger_takes_every_record_and_counts_garbage(records):
    entry = Entry("requests", "t/0/1", 5, {"events": 3}).to_output()
    records.values = [entry.value, b"garbage", entry.value]
    ledger = await read_ledger(KafkaConfig())
    assert (ledger.totals(), ledger.invalid) == ({"requests": {"events": 3}}, 1)


async def test_read_ledger_without_topic_is_a_clear_error(records):
    records.values = None
    with pytest.raises(DependencyError, match=r"no topic ebbflow\.ledger") as caught:
        await read_ledger(KafkaConfig())
    assert "ebbflow topics" in caught.value.hint


@pytest.mark.kafka
async def test_read_ledger_from_kafka_is_what_was_written(kafka):
    from ebbflow.kafka import create_topics, make_producer
    from ebbflow.topics import LEDGER, topic

    config = KafkaConfig(bootstrap=kafka)
    await create_topics(config, [topic(LEDGER)])
    producer = make_producer(config)
    await producer.start()
    writer = LedgerWriter(producer)
    for number in range(2500):
        await writer.add("test.reader", f"t/0/{number % 2000}", {"events": number})
    await writer.flush()
    await producer.send_and_wait(LEDGER, b"garbage", key=b"x")
    await producer.stop()
    ledger = await read_ledger(config)
    assert ledger.totals()["test.reader"] == {"events": sum(range(500, 2500))}
    assert ledger.invalid >= 1
