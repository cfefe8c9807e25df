from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from ebbflow.component import Record
from ebbflow.config import KafkaConfig
from ebbflow.stream import history as history_module
from ebbflow.stream.history import KafkaHistory


def test_history_consumer_fetches_whole_checkpoints(monkeypatch):
    made = []
    monkeypatch.setattr(history_module, "make_consumer", lambda config, **options: made.append((config, options)))
    config = KafkaConfig(bootstrap="h:1")
    KafkaHistory(config)._consumer()
    assert made == [(config, {"max_partition_fetch_bytes": 16_000_000})]


async def test_checkpoints_are_the_newest_of_the_wanted_keys(monkeypatch):
    async def read_topic(_make, topic):
        assert topic == "ebbflow.checkpoints"
        for key, value in [(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"c", b"1"), (b"c", None), (None, b"x")]:
            yield SimpleNamespace(key=key, value=value)

    monkeypatch.setattr(history_module, "read_topic", read_topic)
    assert await KafkaHistory(KafkaConfig()).checkpoints({b"a", b"c"}) == {b"a": b"2"}


@pytest.mark.parametrize(("value", "ours"), [(b"v", b"v"), (None, b"")])
async def test_read_gives_records_as_processors_know_them(monkeypatch, value, ours):
    async def read_range(_make, partition, start, stop):
        assert (partition, start, stop) == (TopicPartition("t", 2), 3, 9)
        yield SimpleNamespace(
            topic="t", partition=2, offset=5, timestamp=77, key=b"k", value=value, headers=(("h", b"1"),)
        )

    monkeypatch.setattr(history_module, "read_range", read_range)
    found = [record async for record in KafkaHistory(KafkaConfig()).read("t", 2, 3, 9)]
    assert found == [Record("t", 2, 5, 77, b"k", ours, (("h", b"1"),))]
