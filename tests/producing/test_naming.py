"""Rows with stacks on their way through the thread that names them."""

import struct
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from ebbflow.producing.frames import ENDS_EARLY, KERNEL, LOST, TRUNCATED, UNRESOLVED
from ebbflow.producing.naming import Chunk, Naming, Waiting
from ebbflow.symbols import Frame, FrameKind

START, STACK, TRACED, REPLACED, OTHER = 123_456_789, 1, 2, 3, 4
ROW = np.dtype([
    ("start_boottime_ns", "<u8"), ("pid", "<u4"), ("captured", "<u4"), ("kind", "u1"), ("cpu", "u1"), ("flags", "<u2"),
])  # fmt: skip
UNMAPPED = 0x66
FUNCTIONS = {0x10: "leaf", 0x20: "main", 0x30: "_start", 0xF1: "bpf_trace_run4", 0xF2: "__schedule", 0xF3: "schedule"}


class Stacks:
    """The addresses alone: those from 0xf0 on are the kernel's."""

    kinds = frozenset({STACK, TRACED})

    def split(self, kind, payload):
        addresses = struct.unpack(f"<{len(payload) // 8}Q", payload)
        return [a for a in addresses if a >= 0xF0], [a for a in addresses if a < 0xF0]

    def cut(self, kind, payload, kernel, user):
        in_kernel, in_user = self.split(kind, payload)
        return stack(*in_kernel[kernel], *in_user[user])


class Symbolizer:
    def __init__(self):
        self.refreshed = []

    def user(self, pid, start, addresses, *, whole):
        assert not whole
        found = [Frame(FrameKind.NATIVE, FUNCTIONS.get(address, ""), address) for address in addresses]
        return found[: addresses.index(UNMAPPED)] if UNMAPPED in addresses else found

    def kernel(self, addresses):
        return [Frame(FrameKind.KERNEL, FUNCTIONS.get(address, ""), address) for address in addresses]

    def refresh(self, pid):
        self.refreshed.append(pid)


class Dictionary:
    def __init__(self):
        self.learned = {}

    def learn(self, upid, frames):
        self.learned.setdefault(upid, []).extend(frame.function for frame in frames)


def stack(*addresses):
    return struct.pack(f"<{len(addresses)}Q", *addresses)


def rows(*kinds, flags=0, pid=7):
    made = np.zeros(len(kinds), ROW)
    made["kind"], made["pid"], made["start_boottime_ns"], made["flags"] = kinds, pid, START, flags
    return made


def make(**options):
    symbolizer, dictionary = Symbolizer(), Dictionary()
    return Naming(symbolizer, dictionary, Stacks(), **options), symbolizer, dictionary


def resolve(naming, kind, payload, flags=0):
    marked, payloads = naming.resolve(Chunk(rows(kind, flags=flags), [payload]))
    return marked[0], payloads[0]


def test_resolve_teaches_the_dictionary_and_counts():
    naming, _, dictionary = make()
    assert resolve(naming, STACK, stack(0xF2, 0x10, 0x20, 0x30)) == (0, stack(0xF2, 0x10, 0x20, 0x30))
    assert dictionary.learned == {KERNEL: ["__schedule"], (7, START): ["leaf", "main", "_start"]}
    assert naming.counts == {"stacks": 1, "frames": 4, **dict.fromkeys(
        ("stacks_truncated", "stacks_ended_early", "frames_without_symbol"), 0
    )}  # fmt: skip


def test_resolve_marks_a_stack_that_ends_before_a_start_function():
    naming, _, _ = make()
    assert resolve(naming, STACK, stack(0x10, 0x99))[0] == ENDS_EARLY
    assert (naming.counts["stacks_ended_early"], naming.counts["frames_without_symbol"]) == (1, 1)


def test_resolve_does_not_call_a_truncated_or_a_kernel_stack_early():
    naming, _, _ = make()
    assert resolve(naming, STACK, stack(0x10), TRUNCATED)[0] == TRUNCATED
    assert resolve(naming, STACK, stack(0xF2))[0] == 0
    assert (naming.counts["stacks_ended_early"], naming.counts["stacks_truncated"]) == (0, 1)


def test_resolve_without_names_concludes_nothing():
    naming, _, dictionary = make(names=False)
    assert resolve(naming, STACK, stack(0xF2, 0x99)) == (0, stack(0xF2, 0x99))
    assert KERNEL not in dictionary.learned or not dictionary.learned[KERNEL]
    assert naming.counts["frames_without_symbol"] == 0


def test_resolve_counts_a_lost_stack_and_no_frames():
    naming, _, _ = make()
    assert resolve(naming, STACK, b"", LOST) == (LOST, b"")
    assert (naming.counts["stacks_lost"], naming.counts["stacks"]) == (1, 0)


def test_resolve_leaves_out_the_frames_of_the_tracing_itself():
    naming, _, dictionary = make(traced="__schedule", traced_kinds=frozenset({TRACED}))
    assert resolve(naming, TRACED, stack(0xF1, 0xF2, 0xF3, 0x30)) == (0, stack(0xF2, 0xF3, 0x30))
    assert resolve(naming, STACK, stack(0xF1, 0xF2, 0x30)) == (0, stack(0xF1, 0xF2, 0x30))
    assert resolve(naming, TRACED, stack(0xF3, 0x30)) == (0, stack(0xF3, 0x30))
    assert "bpf_trace_run4" in dictionary.learned[KERNEL]


def test_resolve_cuts_off_what_a_broken_chain_led_to():
    naming, _, dictionary = make()
    payload = stack(0xF2, 0x10, 0x20, UNMAPPED, 0x30)
    assert resolve(naming, STACK, payload, TRUNCATED) == (ENDS_EARLY, stack(0xF2, 0x10, 0x20))
    assert dictionary.learned[7, START] == ["leaf", "main"]
    assert (naming.counts["stacks_truncated"], naming.counts["stacks_ended_early"]) == (0, 1)


def test_resolve_forgets_a_process_that_began_another_program():
    naming, symbolizer, _ = make(replaced_kind=REPLACED)
    naming.resolve(Chunk(rows(OTHER, REPLACED, OTHER), [b"", b"", b""]))
    assert symbolizer.refreshed == [7]


@pytest.fixture
def clock():
    return SimpleNamespace(now=100.0)


@pytest.fixture
def waiting(clock):
    made = []

    def start(work, **options):
        made.append(Waiting(work, Stacks.kinds, now_s=lambda: clock.now, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def unchanged(chunk):
    return [0] * len(chunk.rows), chunk.payloads


def shorter(chunk):
    return [ENDS_EARLY] * len(chunk.rows), [payload[8:] for payload in chunk.payloads]


def test_ready_gives_everything_resolved_and_in_order(waiting):
    made = waiting(shorter)
    for pid in (7, 8, 9):
        made.put(rows(STACK, pid=pid), [stack(1, 2)])
    assert made.held == 3
    chunks = made.ready(everything=True)
    assert [int(chunk.rows["pid"][0]) for chunk in chunks] == [7, 8, 9]
    assert [(int(c.rows["flags"][0]), int(c.rows["captured"][0]), c.payloads) for c in chunks] == [
        (ENDS_EARLY, 8, [stack(2)])
    ] * 3
    assert made.held == 0


def test_ready_waits_for_company(waiting, clock):
    made = waiting(unchanged)
    made.put(rows(OTHER), [b""])
    assert made.ready() == []
    clock.now += 1.0
    assert len(made.ready()) == 1


def test_ready_does_not_wait_when_there_is_company_enough(waiting, monkeypatch):
    monkeypatch.setattr("ebbflow.producing.naming._GATHERED_ROWS", 2)
    made = waiting(unchanged)
    made.put(rows(OTHER, OTHER), [b"", b""])
    assert len(made.ready()) == 1


def test_ready_holds_back_what_is_not_resolved_until_patience_ends(waiting, clock):
    release = threading.Event()

    def hang(chunk):
        release.wait(10)
        return shorter(chunk)

    made = waiting(hang, patience_s=5.0)
    made.put(rows(STACK, OTHER), [stack(1, 2), b""])
    made.put(rows(OTHER), [b""])
    clock.now += 4.0
    assert made.ready() == []
    clock.now += 1.0
    chunks = made.ready()
    assert [chunk.rows["flags"].tolist() for chunk in chunks] == [[UNRESOLVED, 0], [0]]
    assert made.unresolved == 1
    release.set()
    made.put(rows(STACK), [stack(3, 4)])
    assert made.ready(everything=True)[0].payloads == [stack(4)]
    assert [chunk.rows["flags"].tolist() for chunk in chunks] == [[UNRESOLVED, 0], [0]]


def test_ready_tells_what_ended_the_thread(waiting):
    def fail(chunk):
        raise ZeroDivisionError

    made = waiting(fail)
    made.put(rows(STACK), [stack(1)])
    with pytest.raises(ZeroDivisionError):
        made.ready(everything=True)


def test_put_beyond_what_may_wait_leaves_unresolved(waiting, clock, monkeypatch):
    monkeypatch.setattr("ebbflow.producing.naming._MOST_WAITING", 1)
    release = threading.Event()
    made = waiting(lambda chunk: release.wait(10) and unchanged(chunk), patience_s=0.0)
    for _ in range(3):
        made.put(rows(STACK), [stack(1)])
    clock.now += 1.0
    assert sum(len(chunk.rows) for chunk in made.ready()) == 3
    assert made.unresolved == 3
    release.set()


def test_close_without_a_thread_and_twice_does_nothing(waiting):
    made = waiting(unchanged)
    made.close()
    made.close()
