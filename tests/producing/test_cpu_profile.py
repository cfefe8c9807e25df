"""What the cpu producer works out without a kernel."""

import numpy as np
import pytest

from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.producing.cpu_profile import StackCache, expected_samples, off_rows, switch_arguments

STRUCTS = {name: layout.dtype for name, layout in read_header(BPF_DIRECTORY / "cpu.h").structs.items()}
FLAGS = {"SHORT": 16, "NOT_TAKEN": 32, "LOST": 4, "TRUNCATED": 2}
TASK = "task_struct *"


@pytest.mark.parametrize(
    ("parameters", "preempt", "prev", "following", "state"),
    [
        (["bool", TASK, TASK], 0, 1, 2, -1),  # 5.8 to 5.17
        (["bool", "unsigned int", TASK, TASK], 0, 2, 3, 1),  # 5.18
        (["bool", TASK, TASK, "unsigned int"], 0, 1, 2, 3),
    ],
)
def test_switch_arguments_are_found_by_their_types(parameters, preempt, prev, following, state):
    assert switch_arguments(["void *", *parameters]) == {
        "ARG_PREEMPT": preempt, "ARG_PREV": prev, "ARG_NEXT": following, "ARG_STATE": state,
    }  # fmt: skip


def stacks(*pairs):
    """(kernel, user) addresses as struct cpu_stack, shape (n,)."""
    made = np.zeros(len(pairs), STRUCTS["cpu_stack"])
    for at, (kernel, user) in enumerate(pairs):
        made[at]["kernel_frames"], made[at]["user_frames"] = len(kernel), len(user)
        made[at]["addresses"][: len(kernel) + len(user)] = [*kernel, *user]
    return made


def hashes(*values):
    return np.array(values, np.uint64)


def test_cache_keeps_the_addresses_that_there_are():
    cache = StackCache(2)
    cache.add(hashes(11), stacks(([1, 2], [3])))
    kept = cache.get(11)
    assert (kept.kernel_frames, kept.user_frames, kept.truncated) == (2, 1, False)
    assert np.frombuffer(kept.addresses, "<u8").tolist() == [1, 2, 3]


def test_cache_forgets_the_stack_unused_for_longest():
    cache = StackCache(2)
    cache.add(hashes(11, 12), stacks(([1], []), ([2], [])))
    assert cache.get(11) is not None
    cache.add(hashes(13), stacks(([3], [])))
    assert (len(cache), cache.get(12)) == (2, None)
    assert [cache.get(key).addresses[0] for key in (11, 13)] == [1, 3]


def test_off_rows_have_the_stack_of_their_hash_or_say_why_not():
    cache = StackCache(9)
    known = stacks(([1, 2], [3]), ([4], []))
    known["truncated"] = [0, 1]
    cache.add(hashes(21, 22), known)
    keys, totals = np.zeros(5, STRUCTS["cpu_off_key"]), np.zeros(5, STRUCTS["cpu_off_total"])
    keys["stack"], keys["state"] = [21, 22, 0, 1, 99], [1, 0, 1, 1, 2]
    totals["waits"], totals["total_ns"] = [5, 6, 7, 8, 9], [50, 60, 70, 80, 90]
    totals["longest_ns"], totals["queued_ns"] = [30, 40, 50, 60, 70], [1, 2, 3, 4, 5]
    heads, tails, flags = off_rows(keys, totals, cache, STRUCTS["cpu_off_head"], FLAGS)
    assert flags.tolist() == [0, FLAGS["TRUNCATED"], FLAGS["SHORT"], FLAGS["NOT_TAKEN"], FLAGS["LOST"]]
    assert [np.frombuffer(tail, "<u8").tolist() for tail in tails] == [[1, 2, 3], [4], [], [], []]
    assert heads["kernel_frames"].tolist() == [2, 1, 0, 0, 0]
    assert heads["user_frames"].tolist() == [1, 0, 0, 0, 0]
    for name in ("waits", "total_ns", "longest_ns", "queued_ns"):
        assert heads[name].tolist() == totals[name].tolist()
    assert heads["state"].tolist() == [1, 0, 1, 1, 2]


def test_off_rows_of_nothing_are_none():
    nothing = np.zeros(0, STRUCTS["cpu_off_key"]), np.zeros(0, STRUCTS["cpu_off_total"])
    heads, tails, flags = off_rows(*nothing, StackCache(1), STRUCTS["cpu_off_head"], FLAGS)
    assert (len(heads), tails, len(flags)) == (0, [], 0)


def test_expected_samples_are_those_of_all_cpus():
    assert expected_samples(10_000_000_000, 49, 2) == 980
    assert expected_samples(0, 99, 4) == 0
