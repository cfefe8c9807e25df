"""When batches leave, and that nothing is lost on the way into them."""

from types import SimpleNamespace

import numpy as np
import pytest

from ebbflow.config import ProducerConfig
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.producing.batching import Dictionaries, Origin
from ebbflow.producing.buckets import Buckets, bucket_of
from ebbflow.records import decode
from ebbflow.v1 import raw_pb2

ROW = read_header(BPF_DIRECTORY / "sockets.h").structs["sockets_row"]
ORIGIN = Origin("sockets", "host", "name", b"b" * 16, 77)


@pytest.fixture
def clock():
    return SimpleNamespace(now=100.0)


def make(clock, **settings):
    config = ProducerConfig(**{"buckets": 4, "batch_bytes": 10_000, "batch_age_s": 0.25} | settings)
    built = []
    made = Buckets(ORIGIN, "raw", ROW, Dictionaries(), config, on_built=built.append, now_s=lambda: clock.now)
    return made, built


def rows(*pids):
    made = np.zeros(len(pids), ROW.dtype)
    made["pid"] = pids
    made["generation"] = pids
    return made


def decoded(batches):
    return [decode(batch.value, ROW) for batch in batches]


def test_batches_everything_holds_every_row_with_its_payload_in_the_bucket_of_its_process(clock):
    made, _ = make(clock)
    pids = [11, 12, 13, 14, 15, 11, 16, 17]
    made.add(rows(*pids), [b"%d" % pid for pid in pids])
    assert made.held == len(pids)
    seen = []
    for batch in decoded(made.batches(everything=True)):
        for index, row in enumerate(batch.rows):
            assert batch.envelope.bucket == made.of(int(row["pid"]))
            assert batch.payload(index) == b"%d" % row["pid"]
            seen.append(int(row["pid"]))
    assert sorted(seen) == sorted(pids)
    assert made.held == 0


def test_batches_leave_when_old_and_not_before(clock):
    made, built = make(clock)
    made.add(rows(11), [b"x"])
    assert made.batches() == []
    clock.now += 0.26
    assert [batch.events for batch in made.batches()] == [1]
    assert built == [made.of(11)]


def test_batches_leave_when_large_however_young(clock):
    made, _ = make(clock)
    made.add(rows(11, 11), [bytes(6_000)] * 2)
    assert sum(batch.events for batch in made.batches()) == 2


def test_batches_under_pressure_wait_longer_to_be_larger(clock):
    made, _ = make(clock)
    made.add(rows(11), [b"x"])
    clock.now += 0.26
    assert made.batches(pressure=0.5) == []
    clock.now += 2.0
    assert [batch.events for batch in made.batches(pressure=0.5)] == [1]


def test_batches_idle_sends_a_heartbeat_of_every_bucket_now_and_then(clock):
    made, _ = make(clock)
    assert made.batches() == []
    clock.now += 5.0
    assert [batch.events for batch in made.batches()] == [0, 0, 0, 0]
    assert made.batches() == []


def test_losses_are_told_once_and_again_when_the_batch_is_given_back(clock):
    made, _ = make(clock)
    made.losses.add(raw_pb2.Loss.STAGE_RING, 1, 5)
    made.add(rows(11, 11, 11), [b""] * 3)
    (batch,) = made.batches(everything=True)
    made.give_back(batch, refused=False)
    (heartbeat, *_) = decoded(made.batches(everything=True))
    told = {(loss.stage, loss.cpu): loss.events for loss in heartbeat.envelope.losses}
    assert told == {(raw_pb2.Loss.STAGE_RING, 1): 5, (raw_pb2.Loss.STAGE_BUFFER, -1): 3}


def test_refused_batch_is_told_as_refused(clock):
    made, _ = make(clock)
    made.add(rows(11), [b""])
    (batch,) = made.batches(everything=True)
    made.give_back(batch, refused=True)
    (heartbeat, *_) = decoded(made.batches(everything=True))
    assert [(loss.stage, loss.events) for loss in heartbeat.envelope.losses] == [(raw_pb2.Loss.STAGE_PUBLISH, 1)]


def test_bucket_of_a_number_and_of_an_array_agree_and_neighbours_are_spread():
    pids = np.arange(1, 2001, dtype=np.int64)
    assert bucket_of(pids, 7).tolist() == [bucket_of(int(pid), 7) for pid in pids]
    shares = np.bincount(bucket_of(pids, 4)) / len(pids)
    assert shares.min() > 0.2
