from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.producing.batching import BatchBuilder, Dictionaries, LossAccount, Origin, cpu_ranges, cut_points
from ebbflow.records import decode
from ebbflow.v1 import raw_pb2

ROW = read_header(BPF_DIRECTORY / "sockets.h").structs["sockets_row"]
ORIGIN = Origin("sockets", "host", "name", b"b" * 16, 77)


def rows(*generations: int, cpu: int = 0):
    made = np.zeros(len(generations), ROW.dtype)
    made["generation"] = generations
    made["sequence"] = np.arange(len(generations)) + 10
    made["cpu"] = cpu
    return made


def add(made, some, payloads):
    made.add(some, payloads, np.array([len(payload) for payload in payloads], np.int64))


def builder(dictionaries=None, batch_bytes=400_000):
    clock = lambda: raw_pb2.ClockPoint(monotonic_ns=1, unix_ns=2, uncertainty_ns=3)  # noqa: E731
    return BatchBuilder(ORIGIN, 3, ROW, dictionaries or Dictionaries(), clock, batch_bytes=batch_bytes)


def put(dictionaries: Dictionaries, generation: int, process: raw_pb2.Process) -> None:
    dictionaries.put(raw_pb2.Connection(generation=generation, fd=generation), process)


def test_build_gives_what_was_added_and_starts_anew():
    made = builder()
    add(made, rows(1, 2), [b"one", b""])
    add(made, rows(2), [b"three"])
    assert made.events == 3
    (built,) = made.build()
    batch = decode(built.value, ROW)
    assert built.events == 3
    assert batch.rows["generation"].tolist() == [1, 2, 2]
    assert [batch.payload(index) for index in range(3)] == [b"one", b"", b"three"]
    envelope = batch.envelope
    assert (envelope.feature, envelope.host_id, envelope.run_id, envelope.bucket) == ("sockets", "host", 77, 3)
    assert (envelope.clock.monotonic_ns, envelope.clock.unix_ns, envelope.clock.uncertainty_ns) == (1, 2, 3)
    assert (made.events, made.size_bytes) == (0, 0)


def test_build_sequence_counts_batches_heartbeats_too():
    made = builder()
    sequences = []
    for _ in range(3):
        (built,) = made.build()
        sequences.append(decode(built.value, ROW).envelope.sequence)
    assert sequences == [0, 1, 2]


def test_build_dictionaries_hold_what_rows_refer_to_each_process_once():
    dictionaries = Dictionaries()
    one, two = raw_pb2.Process(pid=1), raw_pb2.Process(pid=2)
    for generation, process in ((5, one), (6, two), (7, one), (8, two)):
        put(dictionaries, generation, process)
    made = builder(dictionaries)
    add(made, rows(7, 5, 99, 6), [b""] * 4)
    (built,) = made.build()
    envelope = decode(built.value, ROW).envelope
    assert [process.pid for process in envelope.processes] == [1, 2]
    assert [(c.generation, envelope.processes[c.process].pid) for c in envelope.connections] == [(5, 1), (6, 2), (7, 1)]


def test_dictionaries_forgotten_generation_is_gone():
    dictionaries = Dictionaries()
    put(dictionaries, 5, raw_pb2.Process(pid=1))
    assert 5 in dictionaries
    dictionaries.forget([5, 6])
    assert len(dictionaries) == 0


def test_dictionaries_full_forgets_the_oldest():
    dictionaries = Dictionaries(most=2)
    for generation in (1, 2, 3):
        put(dictionaries, generation, raw_pb2.Process(pid=1))
    assert [generation in dictionaries for generation in (1, 2, 3)] == [False, True, True]


def test_build_large_input_is_cut_into_batches_in_order():
    made = builder(batch_bytes=10_000)
    payloads = [b"%04d" % n * 25 for n in range(500)]
    add(made, rows(*range(500)), payloads)
    built = made.build([raw_pb2.Loss(stage=raw_pb2.Loss.STAGE_RING, cpu=1, events=9)])
    batches = [decode(part.value, ROW) for part in built]
    assert [p for batch in batches for p in (batch.payload(i) for i in range(len(batch.rows)))] == payloads
    assert all(len(batch.heap) + 68 * len(batch.rows) <= 10_000 for batch in batches)
    assert [batch.envelope.sequence for batch in batches] == list(range(len(batches)))
    assert [len(batch.envelope.losses) for batch in batches] == [1] + [0] * (len(batches) - 1)
    assert [len(part.losses) for part in built] == [1] + [0] * (len(batches) - 1)


def test_build_large_dictionaries_are_halved_below_kafkas_limit():
    dictionaries = Dictionaries()
    for generation in range(1000):
        put(dictionaries, generation, raw_pb2.Process(pid=generation + 1, command_line="x" * 3000))
    made = builder(dictionaries)
    add(made, rows(*range(1000)), [b""] * 1000)
    built = made.build()
    assert max(len(part.value) for part in built) <= 950_000
    assert sum(part.events for part in built) == 1000
    assert [g for part in built for g in decode(part.value, ROW).rows["generation"].tolist()] == list(range(1000))


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_cut_points_parts_are_within_the_limit_and_as_large_as_they_can(sizes, limit):
    cuts = cut_points(np.cumsum(sizes, dtype=np.int64), limit)
    parts = [sizes[a:b] for a, b in pairwise(cuts)]
    assert [size for part in parts for size in part] == sizes
    for index, part in enumerate(parts):
        assert sum(part) <= limit or len(part) == 1
        if index + 1 < len(parts):
            assert sum(part) + parts[index + 1][0] > limit


def test_cpu_ranges_say_first_last_and_count_by_cpu():
    mixed = np.concatenate([rows(1, 2, 3), rows(4, 5, cpu=1)[1:]])
    ranges = [(r.cpu, r.first, r.last, r.count) for r in cpu_ranges(mixed)]
    assert ranges == [(0, 10, 12, 3), (1, 11, 11, 1)]


def test_loss_account_tells_once_and_takes_back():
    account = LossAccount()
    account.add(raw_pb2.Loss.STAGE_RING, 1, 5)
    account.add(raw_pb2.Loss.STAGE_RING, 1, 2)
    account.add(raw_pb2.Loss.STAGE_RING, 0, 0)
    told = account.take()
    assert [(loss.stage, loss.cpu, loss.events) for loss in told] == [(raw_pb2.Loss.STAGE_RING, 1, 7)]
    assert account.take() == []
    account.restore(told)
    assert account.take() == told


def test_layout_size_is_a_multiple_of_eight():
    assert ROW.size % 8 == 0
    assert ROW.size == pytest.approx(64)
