"""The loop around a producer, with a producer and a publisher that do as they are told."""

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from ebbflow.component import Batch, Producer
from ebbflow.ledger import decode
from ebbflow.producing import Pace, Runner
from ebbflow.publisher import Counts
from ebbflow.topics import LEDGER


class FakeProducer(Producer):
    name = "fake"
    source = "host/1"

    def __init__(self):
        self.waiting = []
        self.due = []
        self.given_back = []
        self.housekept = 0
        self.total = 0
        self.detached = False

    @classmethod
    def from_config(cls, config):
        return cls()

    def attach(self):
        pass

    def drain(self):
        if not self.waiting:
            return 0.0
        batch = self.waiting.pop(0)
        self.total += batch.events
        self.due.append(batch)
        return 0.5

    def batches(self, *, everything=False):
        due, self.due = self.due, []
        return due

    def housekeeping(self):
        self.housekept += 1

    def give_back(self, batch, *, refused):
        self.given_back.append((batch, refused))

    def captured(self):
        return self.total + 3

    def lost(self):
        return 3

    def held(self):
        return 0

    def detach(self):
        self.detached = True

    def blind_spots(self):
        return {"io_uring_calls": 5}

    def map_usage(self):
        return {"events": 0.25}

    def close(self):
        pass


class FakePublisher:
    def __init__(self):
        self.items = []
        self.counts = Counts()
        self.polled = 0
        self.left = 0

    @property
    def buffered_events(self):
        return sum(item.events for item in self.items) - self.counts.published - self.counts.dropped

    def publish(self, item):
        self.items.append(item)

    def poll(self):
        self.polled += 1

    def finish(self, timeout_s):
        self.counts.published = self.buffered_events - self.left
        self.counts.dropped = self.left
        return self.left

    def close(self, timeout_s):
        self.closed = True


@pytest.fixture
def parts():
    registry = CollectorRegistry()
    producer, publisher = FakeProducer(), FakePublisher()
    return Runner(producer, publisher, registry), producer, publisher, registry


def batch(events):
    return Batch("raw", b"host/0", b"value", events)


def test_round_publishes_what_is_due_and_says_the_fill(parts):
    runner, producer, publisher, _ = parts
    producer.waiting = [batch(7)]
    assert runner.round() == 0.5
    raw = [item for item in publisher.items if item.topic == "raw"]
    assert [(item.key, item.value, item.events) for item in raw] == [(b"host/0", b"value", 7)]
    assert publisher.polled == 1


def test_dropped_and_refused_batches_are_given_back(parts):
    runner, producer, publisher, _ = parts
    first, second = batch(1), batch(2)
    producer.due = [first, second]
    runner.round()
    publisher.items[0].on_dropped(publisher.items[0])
    publisher.items[1].on_refused(publisher.items[1])
    assert producer.given_back == [(first, False), (second, True)]


def test_housekeeping_writes_one_ledger_entry_per_change(parts):
    runner, producer, publisher, _ = parts
    producer.waiting = [batch(7)]
    runner.round()
    runner.housekeeping()
    runner.housekeeping()
    entries = [decode(item.value) for item in publisher.items if item.topic == LEDGER]
    assert {entry.stage for entry in entries} == {"producer.fake"}
    assert {entry.source for entry in entries} == {"host/1"}
    counters = entries[-1].counters
    assert (counters["captured"], counters["lost"], counters["buffered"], counters["io_uring_calls"]) == (10, 3, 7, 5)
    publisher.counts.published = 7
    runner.housekeeping()
    last = decode(publisher.items[-1].value).counters
    assert last["captured"] == last["lost"] + last["dropped"] + last["published"] + last["buffered"]


def test_housekeeping_fills_the_metrics(parts):
    runner, producer, _, registry = parts
    producer.waiting = [batch(7)]
    runner.round()
    runner.housekeeping()
    feature = {"feature": "fake"}
    assert registry.get_sample_value("ebpf_events_total", feature) == 10
    assert registry.get_sample_value("ebpf_events_lost_total", feature | {"stage": "kernel"}) == 3
    assert registry.get_sample_value("ebpf_map_usage_percent", feature | {"map": "events"}) == 25
    assert registry.get_sample_value("ebpf_unseen_total", feature | {"cause": "io_uring_calls"}) == 5


def test_finish_watches_no_more_drains_to_the_end_and_balances_the_ledger(parts):
    runner, producer, publisher, _ = parts
    producer.waiting = [batch(1), batch(2), batch(3)]
    publisher.left = 2
    with capture_logs() as logs:
        runner.finish()
    assert (producer.detached, publisher.closed) == (True, True)
    assert sum(item.events for item in publisher.items if item.topic == "raw") == 6
    last = decode(publisher.items[-1].value).counters
    assert (last["captured"], last["lost"], last["published"], last["dropped"], last["buffered"]) == (9, 3, 4, 2, 0)
    assert [entry["events"] for entry in logs if "given up" in entry["event"]] == [2]


def test_pace_follows_the_fill():
    pace = Pace()
    idle = [pace.after(0.0) for _ in range(10)]
    assert idle == sorted(idle)
    assert idle[-1] == 0.2
    busy = [pace.after(0.6) for _ in range(10)]
    assert busy == sorted(busy, reverse=True)
    assert busy[-1] == 0.005
    assert pace.after(0.2) == 0.005
