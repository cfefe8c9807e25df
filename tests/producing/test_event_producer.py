"""What an event producer makes of what its program wrote, with a ring that says whatever it is told."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.config import load
from ebbflow.kernel.event_rows import event_batch
from ebbflow.kernel.ring import Chunk
from ebbflow.producing.batching import Origin
from ebbflow.producing.event_producer import Aggregate, EventProducer
from ebbflow.v1 import raw_pb2


class TcpRows(EventProducer):
    """Rows of bpf/tcp.h without its program."""

    name = "tcp"

    def attach_probes(self):
        pass


class Ring:
    def __init__(self):
        self.records = []

    def fill(self):
        return 0.25 if self.records else 0.0

    def read(self, limit_bytes):
        records, self.records = self.records, []
        padded = [bytes(8) + record + bytes(-len(record) % 8) for record in records]
        ends = np.cumsum([len(record) for record in padded], dtype=np.int64)
        offsets = ends - [len(record) for record in padded] + 8
        return Chunk(b"".join(padded), offsets.astype(np.int64), np.array([len(r) for r in records], np.int64))


class Processes:
    def fill(self, envelope, rows, heap, ends):
        envelope.processes.extend(raw_pb2.Process(pid=pid) for pid in sorted(set(rows["pid"].tolist())))


def make(*, excluded=()):
    shared = SimpleNamespace(
        source="host/1",
        origin=lambda feature: Origin(feature, "host", "name", b"b" * 16, 1),
        processes=Processes(),
        watch=SimpleNamespace(excluded=frozenset(excluded)),
    )
    producer = TcpRows(load(environ={}, flags={"producer.buckets": 2}).config, shared)
    producer._ring = Ring()
    return producer


def record(producer, kind="connect", *, pid=7, extra=b"", **fields):
    """One event as the kernel program would write it."""
    row = np.zeros(1, producer.layout.row.dtype)
    payload = bytes(producer.layout.payload(kind).itemsize) + extra
    now_ns = producer._attached_ns + 1
    values = {
        "time_ns": now_ns, "since_ns": now_ns, "pid": pid, "tid": pid, "start_boottime_ns": 5,
        "captured": len(payload), "kind": producer.layout.kind(kind), "comm": b"shop",
    } | fields  # fmt: skip
    for name, value in values.items():
        row[name] = value
    return row.tobytes() + payload


def told(producer):
    return [event_batch(batch.value, producer.layout) for batch in producer.batches(everything=True)]


def test_drain_sound_events_are_in_the_batches():
    producer = make()
    producer._ring.records = [record(producer, pid=pid) for pid in (7, 8, 9)]
    assert producer.drain() == 0.25
    assert producer.held() == 3
    assert sorted(pid for batch in told(producer) for pid in batch.rows["pid"].tolist()) == [7, 8, 9]
    assert (producer.lost(), producer.dead_letters()) == (0, [])


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "connect", "captured": 1_000_000},
        {"kind": "connect", "extra": b"x"},
        {"kind": "connect", "pid": 1 << 30},
        {"kind": "connect", "time_ns": 1 << 62},
        {"kind": "connect", "time_ns": 1},
    ],
)
def test_drain_row_that_makes_no_sense_is_counted_and_becomes_a_dead_letter(bad):
    producer = make()
    broken = record(producer, **bad)
    producer._ring.records = [record(producer), broken, record(producer)]
    producer.drain()
    assert (producer.held(), producer.lost()) == (2, 1)
    (letter,) = producer.dead_letters()
    assert (letter.value, letter.count, letter.code) == (broken, 1, "EBB602")
    assert producer.dead_letters() == []
    losses = {loss.stage: loss.events for batch in told(producer) for loss in batch.envelope.losses}
    assert losses == {raw_pb2.Loss.STAGE_INVALID: 1}


def test_drain_unknown_kind_is_invalid():
    producer = make()
    row = np.zeros(1, producer.layout.row.dtype)
    row["kind"], row["time_ns"], row["since_ns"] = 99, producer._attached_ns, producer._attached_ns
    producer._ring.records = [row.tobytes()]
    producer.drain()
    assert (producer.held(), producer.lost()) == (0, 1)


@given(st.lists(st.binary(max_size=300) | st.just(b"sound"), max_size=30))
def test_drain_random_records_are_told_or_counted_never_neither(records):
    producer = make()
    producer._ring.records = [record(producer) if one == b"sound" else one for one in records]
    producer.drain()
    letters = producer.dead_letters()
    assert producer.held() + producer.lost() == len(records)
    assert sum(letter.count for letter in letters) == producer.lost()
    assert producer.held() >= records.count(b"sound")
    assert all(batch.invalid == 0 for batch in told(producer))


def test_drain_events_of_our_own_processes_are_left_out_and_not_captured():
    producer = make(excluded=[8])
    producer._ring.records = [record(producer, pid=pid) for pid in (7, 8, 8)]
    producer.drain()
    assert (producer.held(), producer._ours) == (1, 2)


def test_aggregate_becomes_rows_with_their_interval_and_without_a_cpu():
    producer = make(excluded=[9])
    payload = np.zeros(3, producer.layout.payload("process"))
    aggregate = Aggregate(
        kind=producer.layout.kind("process"),
        payload=payload,
        pids=np.array([7, 8, 9], np.uint32),
        starts=np.array([1, 2, 3], np.uint64),
    )
    producer.aggregates = lambda since_ns, now_ns: [aggregate]
    begun_ns = producer._aggregated_ns
    producer.aggregate()
    rows = np.concatenate([batch.rows for batch in told(producer)])
    assert sorted(rows["pid"].tolist()) == [7, 8]
    assert set(rows["cpu"].tolist()) == {255}
    assert set(rows["since_ns"].tolist()) == {begun_ns}
    assert (rows["time_ns"] > begun_ns).all()
    assert producer.captured() == 2


def test_aggregate_with_tails_has_each_behind_its_head():
    heads = np.zeros(2, np.dtype([("frames", "<u4")]))
    heads["frames"] = [1, 0]
    aggregate = Aggregate(kind=1, payload=heads, tails=[b"12345678", b""])
    assert aggregate.payloads() == [b"\1\0\0\x0012345678", b"\0\0\0\0"]
