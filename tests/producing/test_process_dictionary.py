from types import SimpleNamespace

import numpy as np
import pytest

from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.producing.process_dictionary import ProcessDictionary
from ebbflow.v1 import raw_pb2

ROW = read_header(BPF_DIRECTORY / "event.h").structs["event_row"].dtype
START = 123_456_789_012


def info(pid=7, *, ours=False, start=START):
    return SimpleNamespace(
        pid=pid, comm="server", exe="/usr/bin/server", argv=("server", "--token=abc"), is_ours=ours,
        container_id="c" * 64, cgroups=SimpleNamespace(path="/docker/c"),
        service=SimpleNamespace(name="shop", source=1), started_at=lambda ns: ns == start,
    )  # fmt: skip


class Processes:
    """/proc as a dictionary; counts reads."""

    def __init__(self, known=None):
        self.known = known or {}
        self.reads = 0

    def read_process(self, pid):
        self.reads += 1
        return self.known.get(pid)


@pytest.fixture
def clock():
    return SimpleNamespace(now=0.0)


def make(known, clock, ours=None, **limits):
    processes = Processes(known)
    excluded = [] if ours is None else ours
    return ProcessDictionary(processes, excluded.append, lambda: clock.now, **limits), processes


def rows(*upids):
    made = np.zeros(len(upids), ROW)
    made["pid"] = [pid for pid, _ in upids]
    made["start_boottime_ns"] = [start for _, start in upids]
    made["comm"] = b"said"
    return made


def filled(dictionary, some):
    envelope = raw_pb2.RawBatch()
    dictionary.fill(envelope, some, b"", np.zeros(len(some), np.int64))
    return [(process.pid, process.start_boottime_ns, process.comm) for process in envelope.processes]


def test_describe_known_process_is_read_and_its_arguments_masked(clock):
    dictionary, _ = make({7: info()}, clock)
    process = dictionary.describe(7, START, b"comm")
    assert (process.pid, process.start_boottime_ns, process.exe) == (7, START, "/usr/bin/server")
    assert (process.service_name, process.service_name_source) == ("shop", raw_pb2.SERVICE_NAME_SOURCE_OTEL_ENV)
    assert process.command_line == "server --token=***"
    assert process.container_id == "c" * 64


@pytest.mark.parametrize("known", [{}, {7: info(start=START + 10**9)}])
def test_describe_vanished_or_replaced_process_keeps_what_the_kernel_said(clock, known):
    dictionary, _ = make(known, clock)
    process = dictionary.describe(7, START, b"server")
    assert (process.comm, process.service_name, process.exe) == ("server", "server", "")
    assert process.service_name_source == raw_pb2.SERVICE_NAME_SOURCE_COMM


def test_describe_own_process_is_told_and_not_described(clock):
    ours = []
    dictionary, _ = make({7: info(ours=True)}, clock, ours)
    assert dictionary.describe(7, START, b"x") is None
    assert (ours, len(dictionary)) == ([7], 0)


def test_describe_again_soon_reads_proc_once_and_later_again(clock):
    dictionary, processes = make({7: info()}, clock)
    for _ in range(100):
        dictionary.describe(7, START, b"x")
    assert processes.reads == 1
    clock.now = 3.0
    dictionary.describe(7, START, b"x")
    assert processes.reads == 2


def test_describe_process_gone_later_keeps_what_was_known(clock):
    dictionary, processes = make({7: info()}, clock)
    dictionary.describe(7, START, b"x")
    processes.known.clear()
    clock.now = 3.0
    assert dictionary.describe(7, START, b"x").service_name == "shop"


def test_learn_a_feature_knows_a_process_that_proc_never_showed(clock):
    dictionary, _ = make({}, clock)
    dictionary.learn(raw_pb2.Process(pid=9, start_boottime_ns=START, service_name="job"))
    assert dictionary.describe(9, START, b"x").service_name == "job"


def test_exited_forgets_every_process_of_the_pid(clock):
    dictionary, _ = make({}, clock)
    for start in (START, START + 1):
        dictionary.describe(7, start, b"x")
    dictionary.describe(8, START, b"x")
    dictionary.exited(7)
    assert len(dictionary) == 1


def test_describe_more_than_fit_forgets_the_first(clock):
    dictionary, _ = make({}, clock, most=2)
    for pid in (1, 2, 3):
        dictionary.describe(pid, START, b"x")
    assert len(dictionary) == 2


def test_fill_each_process_once_and_none_for_rows_without(clock):
    dictionary, _ = make({}, clock)
    some = rows((7, START), (8, START), (7, START), (0, 0), (7, START + 5))
    assert sorted(filled(dictionary, some)) == [(7, START, "said"), (7, START + 5, "said"), (8, START, "said")]


def test_fill_the_last_name_of_a_process_counts(clock):
    dictionary, _ = make({}, clock)
    some = rows((7, START), (7, START))
    some["comm"] = [b"before", b"after"]
    assert filled(dictionary, some) == [(7, START, "after")]


def test_fill_nothing_for_no_rows(clock):
    dictionary, _ = make({}, clock)
    assert filled(dictionary, rows()) == []


def test_inherit_a_forked_process_is_what_its_parent_is(clock):
    dictionary, processes = make({7: info()}, clock)
    dictionary.inherit((7, START), b"server", 9, START + 5, b"worker")
    child = dictionary.describe(9, START + 5, b"x")
    assert (child.pid, child.start_boottime_ns, child.comm) == (9, START + 5, "worker")
    assert (child.exe, child.container_id, child.service_name) == ("/usr/bin/server", "c" * 64, "shop")
    assert processes.reads == 2  # the child is looked for as soon as it is asked for


def test_inherit_from_a_process_of_ours_is_nothing(clock):
    dictionary, _ = make({7: info(ours=True)}, clock)
    dictionary.inherit((7, START), b"x", 9, START, b"y")
    assert len(dictionary) == 0


def test_ended_process_is_not_looked_for_though_its_pid_is_used_again_in_the_same_tick(clock):
    dictionary, processes = make({9: info(9)}, clock)
    dictionary.learn(raw_pb2.Process(pid=9, start_boottime_ns=START, service_name="job"))
    dictionary.ended(9, START, b"job")
    clock.now = 30.0
    assert dictionary.describe(9, START, b"x").service_name == "job"
    assert processes.reads == 0


def test_ended_process_is_forgotten_when_its_rows_must_have_gone(clock):
    dictionary, _ = make({}, clock)
    dictionary.ended(9, START, b"job")
    clock.now = 59.0
    dictionary.ended(10, START, b"job")
    assert len(dictionary) == 2
    clock.now = 61.0
    dictionary.ended(11, START, b"job")
    assert len(dictionary) == 2
