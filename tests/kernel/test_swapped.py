"""Totals taken while programs count: every call of two busy processes, once."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ebbflow.errors import MapMismatch
from ebbflow.kernel.loader import Program
from ebbflow.kernel.maps import Map, Swapped, reduce_cpus
from ebbflow.kernel.stacks import StackTraces

pytestmark = pytest.mark.bpf

SOURCE = Path(__file__).with_name("swapped.c")
CALLS = (500_009, 499_994)
ALL = 1_000_003
KEY = np.dtype([("pid", "<u4"), ("some", "<u4")])
COUNTED = np.dtype([("calls", "<u8"), ("others", "<u4"), ("reserved", "<u4")])
ROUNDS = 23
# Calls in so many rounds, each when it is told to; at the end it waits, so that what it is can be looked at.
CALLER = """
import os, sys
calls, rounds = map(int, sys.argv[1:])
print("ready", flush=True)
for done in range(rounds):
    sys.stdin.readline()
    for _ in range(calls * done // rounds, calls * (done + 1) // rounds):
        os.getppid()
    print("done", flush=True)
sys.stdin.readline()
"""


@contextmanager
def callers(*calls):
    """Processes that make so many calls each, at the first line they are sent."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, str(count), str(ROUNDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for count in calls
    ]
    try:
        for process in running:
            assert process.stdout.readline() == "ready\n"
        yield running
    finally:
        for process in running:
            process.communicate("\n" * (ROUNDS + 1))


@pytest.fixture
def counting():
    """The processes, and the program that counts them."""
    with callers(*CALLS) as running:
        program = Program(SOURCE, {"FIRST_PID": running[0].pid, "SECOND_PID": running[1].pid})
        yield running, program
        program.close()


def begin(running):
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()


def wait_done(running):
    for process in running:
        assert process.stdout.readline() == "done\n"


def call_all(running):
    for _ in range(ROUNDS):
        begin(running)
        wait_done(running)


def test_swapped_totals_of_a_million_calls_are_exact_across_many_takes(counting):
    running, program = counting
    totals = {
        "shared": Swapped.of(program, "shared", KEY, COUNTED),
        "split": Swapped.of(program, "split", KEY, COUNTED),
        "slots": Swapped.of(program, "slots", np.dtype("<i4"), COUNTED),
    }
    counted = dict.fromkeys(totals, 0)

    def take():
        for name, swapped in totals.items():
            _, values = swapped.take()
            counted[name] += int((reduce_cpus(values) if swapped.is_per_cpu else values)["calls"].sum())

    program.probes.attach_raw_tracepoint("sys_enter", "on_call")
    for _ in range(ROUNDS):
        begin(running)
        take()  # while they call
        wait_done(running)
    take()
    assert int(program.map("lost")[0].value) == program.recursion_misses() == 0
    assert counted == dict.fromkeys(totals, ALL)
    assert totals["slots"].usage() == 1.0
    # BCC's own view of what nobody took.
    assert sum(value.calls for value in program.map("plain").values()) == ALL
    plain = Map.of(program, "plain", KEY, COUNTED)
    by_pid = {running[index].pid: CALLS[index] for index in (0, 1)}
    keys, values = plain.items()
    assert {pid: int(values["calls"][keys["pid"] == pid].sum()) for pid in by_pid} == by_pid


def test_swapped_after_take_the_tables_are_empty(counting):
    running, program = counting
    totals = Swapped.of(program, "split", KEY, COUNTED)
    other = Swapped.of(program, "shared", KEY, COUNTED)
    program.probes.attach_raw_tracepoint("sys_enter", "on_call")
    call_all(running)
    keys, values = totals.take()
    assert int(reduce_cpus(values)["calls"].sum()) == ALL
    assert totals.usage() == pytest.approx(len(keys) / (4 * 1024))
    for swapped in (totals, other, totals):
        swapped.take()
    assert len(totals.take()[0]) == len(other.take()[0]) == 0
    assert [len(program.map(name)) for name in ("split_0", "split_1", "shared_0", "shared_1")] == [0, 0, 0, 0]


def test_swapped_of_tables_that_evict_is_refused(counting):
    _, program = counting
    with pytest.raises(MapMismatch, match="lru_hash forgets"):
        Swapped.of(program, "forgetful", np.dtype("<u4"), np.dtype("<u8"))


def test_map_of_a_program_compares_the_members(counting):
    _, program = counting
    with pytest.raises(MapMismatch, match="value of plain: the program's has no hits"):
        Map.of(program, "plain", KEY, np.dtype([("calls", "<u8"), ("hits", "<u4"), ("reserved", "<u4")]))
    with pytest.raises(MapMismatch, match=r"value of split_0: others is \(8, 8\)"):
        Map.of(program, "split_0", KEY, np.dtype([("calls", "<u8"), ("others", "<u8")]))
    with pytest.raises(MapMismatch, match="key of plain: 4 bytes"):
        Map.of(program, "plain", np.dtype("<u4"), COUNTED)


def test_stack_traces_are_those_that_bcc_reads(counting):
    running, program = counting
    traces = StackTraces.of(program, "traces")
    program.probes.attach_raw_tracepoint("sys_enter", "on_stack")
    call_all(running)
    program.detach()
    ids, counts = Map.of(program, "stacks", np.dtype("<i4"), np.dtype("<u8")).items()
    assert int(counts.sum()) == CALLS[0]
    known = ids[ids >= 0]
    assert len(known)
    table = program.map("traces")
    stacks = traces.read(np.append(ids, [-17, 1023 if 1023 not in ids else 1022]))
    assert [stack.tolist() for stack in stacks[: len(ids)]] == [
        list(table.walk(stack_id)) if stack_id >= 0 else [] for stack_id in ids.tolist()
    ]
    assert [len(stack) for stack in stacks[-2:]] == [0, 0]
    assert traces.count() == len(known)
    assert traces.usage() == pytest.approx(len(known) / 1024)
    assert traces.forget(ids) == len(known)
    assert traces.count() == 0


def test_stack_traces_of_another_map_is_refused(counting):
    _, program = counting
    with pytest.raises(MapMismatch, match="type hash, not stack_trace"):
        StackTraces.of(program, "stacks")


DROPPED = """
import os, sys
from pathlib import Path
import numpy as np
from ebbflow.kernel.capabilities import KEPT_FOR_DRAINING, drop_all_but
from ebbflow.kernel.loader import Program
from ebbflow.kernel.maps import Swapped
from ebbflow.kernel.stacks import StackTraces

program = Program(Path(sys.argv[1]), {"FIRST_PID": os.getpid(), "SECOND_PID": os.getpid()})
totals = Swapped.of(program, "shared", np.dtype([("pid", "<u4"), ("some", "<u4")]),
                    np.dtype([("calls", "<u8"), ("others", "<u4"), ("reserved", "<u4")]))
program.probes.attach_raw_tracepoint("sys_enter", "on_call")
drop_all_but(KEPT_FOR_DRAINING)
for _ in range(1009):
    os.getppid()
print(sum(int(totals.take()[1]["calls"].sum()) for _ in range(3)), StackTraces.of(program, "traces").count())
"""


def test_swapped_take_needs_no_capability_any_more():
    ran = subprocess.run([sys.executable, "-c", DROPPED, str(SOURCE)], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["1009", "0"]
