"""What the cpu producer works out without a kernel: arguments of a tracepoint, stacks by hash, rows of waits.

Arrays in, arrays out; nothing here is read from the machine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_TASK = "task_struct *"
_NS = 1_000_000_000
NO_STATE = -1
Array = np.ndarray[Any, Any]


def switch_arguments(parameters: Sequence[str]) -> dict[str, int]:
    """Where sched_switch has its arguments, as -D flags; from the types of `btf_trace_sched_switch`.

    Linux 5.8 to 5.17 have (void *, bool preempt, prev, next), 5.18 (…, preempt, unsigned prev_state, prev, next), later
    ones (…, preempt, prev, next, unsigned prev_state); a program does not see the void pointer.
    """
    seen = list(parameters[1:])
    prev = seen.index(_TASK)
    state = seen.index("unsigned int") if "unsigned int" in seen else NO_STATE
    return {
        "ARG_PREEMPT": seen.index("bool"),
        "ARG_PREV": prev,
        "ARG_NEXT": seen.index(_TASK, prev + 1),
        "ARG_STATE": state,
    }


class StackCache:
    """Addresses of stacks by their hash, the longest unused forgotten first.

    Args:
        most: stacks kept. A thread that sleeps for longer than its stack is kept has lost it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[int, np.void] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, hashes: Array, stacks: Array) -> None:
        """Remember `struct cpu_stack`, shape (n,), under their hashes, uint64, shape (n,)."""
        for at, key in enumerate(hashes.tolist()):
            if key not in self._known:
                self._known[key] = stacks[at].copy()
            self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def get(self, key: int) -> np.void | None:
        stack = self._known.get(key)
        if stack is not None:
            self._known.move_to_end(key)
        return stack


def tail_of(stack: np.void | None) -> bytes:
    """The addresses of a `struct cpu_stack` as they stand behind a row's head."""
    if stack is None:
        return b""
    return bytes(stack["addresses"][: int(stack["kernel_frames"]) + int(stack["user_frames"])].tobytes())


def off_rows(
    keys: Array, totals: Array, stacks: StackCache, head: np.dtype[Any], flags: Mapping[str, int]
) -> tuple[Array, list[bytes], Array]:
    """What the kernel summed up of waits, as rows: heads, what stands behind each, and their flags.

    Args:
        keys: struct cpu_off_key, shape (n,).
        totals: struct cpu_off_total, shape (n,).
        stacks: by the keys' hashes.
        head: dtype of struct cpu_off_head.
        flags: SHORT, LOST and TRUNCATED to their bits.
    """
    heads, marks = np.zeros(len(keys), head), np.zeros(len(keys), np.uint16)
    for name in ("waits", "total_ns", "longest_ns", "queued_ns"):
        heads[name] = totals[name]
    heads["state"] = keys["state"]
    tails = []
    for at, key in enumerate(keys["stack"].tolist()):
        stack = stacks.get(key)
        tails.append(tail_of(stack))
        if stack is None:
            marks[at] = flags["LOST"] if key else flags["SHORT"]
            continue
        heads["kernel_frames"][at], heads["user_frames"][at] = stack["kernel_frames"], stack["user_frames"]
        marks[at] = flags["TRUNCATED"] if stack["truncated"] else 0
    return heads, tails, marks


def expected_samples(duration_ns: int, frequency_hz: int, cpus: int) -> int:
    """Ticks that the clocks of all CPUs make in this time; the kernel's period is a whole number of ns."""
    return round(duration_ns * cpus / (_NS // frequency_hz))
