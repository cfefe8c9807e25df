"""What the cpu producer works out without a kernel: arguments of a tracepoint, stacks by hash, rows of waits.

Arrays in, arrays out; nothing here is read from the machine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_TASK = "task_struct *"
_NS = 1_000_000_000
NO_STATE = -1
# In place of a stack's hash.
_SHORT, _NOT_TAKEN = 0, 1
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


@dataclass(frozen=True, slots=True)
class KeptStack:
    """How many addresses of kernel and user there are, whether there were more; the addresses as rows have them."""

    kernel_frames: int
    user_frames: int
    truncated: bool
    addresses: bytes


class StackCache:
    """Stacks by their hash, the longest unused forgotten first.

    Args:
        most: stacks kept. A thread that sleeps for longer than its stack is kept has lost it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[int, KeptStack] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, hashes: Array, stacks: Array) -> None:
        """Remember `struct cpu_stack`, shape (n,), under their hashes, uint64, shape (n,)."""
        columns = (stacks[name].tolist() for name in ("kernel_frames", "user_frames", "truncated"))
        addresses = stacks["addresses"]
        for at, (key, kernel, user, truncated) in enumerate(zip(hashes.tolist(), *columns, strict=True)):
            if key not in self._known:
                self._known[key] = KeptStack(kernel, user, bool(truncated), addresses[at, : kernel + user].tobytes())
            self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def get(self, key: int) -> KeptStack | None:
        if key not in self._known:
            return None
        self._known.move_to_end(key)
        return self._known[key]


def off_rows(
    keys: Array, totals: Array, stacks: StackCache, head: np.dtype[Any], flags: Mapping[str, int]
) -> tuple[Array, list[bytes], Array]:
    """What the kernel summed up of waits, as rows: heads, what stands behind each, and their flags.

    Args:
        keys: struct cpu_off_key, shape (n,).
        totals: struct cpu_off_total, shape (n,).
        stacks: by the keys' hashes.
        head: dtype of struct cpu_off_head.
        flags: SHORT, NOT_TAKEN, LOST and TRUNCATED to their bits.
    """
    heads, marks = np.zeros(len(keys), head), np.zeros(len(keys), np.uint16)
    for name in ("waits", "total_ns", "longest_ns", "queued_ns"):
        heads[name] = totals[name]
    heads["state"] = keys["state"]
    tails = []
    for at, key in enumerate(keys["stack"].tolist()):
        stack = stacks.get(key)
        tails.append(stack.addresses if stack else b"")
        if stack is None:
            marks[at] = flags[{_SHORT: "SHORT", _NOT_TAKEN: "NOT_TAKEN"}.get(key, "LOST")]
            continue
        heads["kernel_frames"][at], heads["user_frames"][at] = stack.kernel_frames, stack.user_frames
        marks[at] = flags["TRUNCATED"] if stack.truncated else 0
    return heads, tails, marks


def expected_samples(duration_ns: int, frequency_hz: int, cpus: int) -> int:
    """Ticks that the clocks of all CPUs make in this time; the kernel's period is a whole number of ns."""
    return round(duration_ns * cpus / (_NS // frequency_hz))
