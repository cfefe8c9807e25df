"""The loop around a producer, with a producer and a publisher that do as they are told."""

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from ebbflow.component import Batch, DeadLetter, Producer
from ebbflow.dead_letters import HEADERS
from ebbflow.errors import ConfigError
from ebbflow.ledger import decode
from ebbflow.producing.metrics import ProducerMetrics
from ebbflow.producing.publisher import Counts
from ebbflow.producing.runner import Feature, Pace, Runner, claim
from ebbflow.topics import DEAD_LETTERS, LEDGER

TOPIC = "ebbflow.raw.fake"


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
        self.letters = []
        self.pressures = []

    @classmethod
    def from_config(cls, config, shared):
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

    def batches(self, *, everything=False, pressure=0.0):
        self.pressures.append(pressure)
        due, self.due = self.due, []
        return due

    def housekeeping(self):
        self.housekept += 1

    def dead_letters(self):
        letters, self.letters = self.letters, []
        return letters

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


class FakeShared:
    def __init__(self):
        self.housekept = 0

    def housekeeping(self):
        self.housekept += 1


class FakeReport:
    def __init__(self):
        self.asked = 0

    def publish_when_due(self):
        self.asked += 1


class FakePublisher:
    pressure = 0.25

    def __init__(self):
        self.items = []
        self.counts = Counts()
        self.polled = 0
        self.left = 0

    def counts_of(self, topic):
        return self.counts if topic == TOPIC else Counts()

    def publish(self, item):
        self.items.append(item)
        if item.topic == TOPIC:
            self.counts.taken += item.events

    def poll(self):
        self.polled += 1

    def finish(self, timeout_s):
        self.counts.published = self.counts.buffered - self.left
        self.counts.dropped = self.left
        return self.left

    def close(self, timeout_s):
        self.closed = True


@pytest.fixture
def parts():
    registry = CollectorRegistry()
    producer, publisher = FakeProducer(), FakePublisher()
    feature = Feature(producer, publisher, ProducerMetrics(registry))
    return Runner([feature], FakeShared(), publisher, FakeReport()), producer, publisher, registry


def batch(events):
    return Batch(TOPIC, b"host/0", b"value", events)


def test_round_publishes_what_is_due_and_says_the_fill(parts):
    runner, producer, publisher, _ = parts
    producer.waiting = [batch(7)]
    assert runner.round() == 0.5
    raw = [item for item in publisher.items if item.topic == TOPIC]
    assert [(item.key, item.value, item.events) for item in raw] == [(b"host/0", b"value", 7)]
    assert publisher.polled == 1
    assert producer.pressures == [0.25]


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
    assert registry.get_sample_value("ebpf_events_lost_total", feature | {"stage": "kernel", "cpu": ""}) == 3
    assert registry.get_sample_value("ebpf_map_usage_percent", feature | {"map": "events"}) == 25
    assert registry.get_sample_value("ebpf_unseen_total", feature | {"cause": "io_uring_calls"}) == 5


def test_housekeeping_sends_what_makes_no_sense_to_the_dead_letters(parts):
    runner, producer, publisher, _ = parts
    producer.letters = [DeadLetter("EBB602", "no such kind", b"bytes", 3)]
    runner.housekeeping()
    (letter,) = [item for item in publisher.items if item.topic == DEAD_LETTERS]
    told = dict(letter.headers)
    assert (letter.value, letter.key, set(told)) == (b"bytes", TOPIC.encode(), set(HEADERS))
    assert (told["ebbflow-stage"], told["ebbflow-count"], told["ebbflow-offset"]) == (b"producer.fake", b"3", b"-1")


def test_round_of_several_features_gives_the_fullest_ring():
    publisher, metrics = FakePublisher(), ProducerMetrics(CollectorRegistry())
    idle, busy = FakeProducer(), FakeProducer()
    busy.waiting = [batch(1)]
    shared, report = FakeShared(), FakeReport()
    runner = Runner([Feature(producer, publisher, metrics) for producer in (idle, busy)], shared, publisher, report)
    assert runner.round() == 0.5
    assert (shared.housekept, idle.housekept, busy.housekept, report.asked) == (1, 1, 1, 1)


def test_claim_second_of_a_feature_is_refused_until_the_first_is_gone():
    with claim("fake", "broker:1"), claim("other", "broker:1"), claim("fake", "broker:2"):
        with pytest.raises(ConfigError, match="already published") as caught:
            claim("fake", "broker:1")
        assert "stop the other" in caught.value.hint
    claim("fake", "broker:1").close()


def test_finish_watches_no_more_drains_to_the_end_and_balances_the_ledger(parts):
    runner, producer, publisher, _ = parts
    producer.waiting = [batch(1), batch(2), batch(3)]
    publisher.left = 2
    with capture_logs() as logs:
        runner.finish()
    assert (producer.detached, publisher.closed) == (True, True)
    assert sum(item.events for item in publisher.items if item.topic == TOPIC) == 6
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
