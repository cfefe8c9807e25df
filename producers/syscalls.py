"""System calls by process: bpf/syscalls.c to ebbflow.raw.syscalls.

Every interval one row for each call of each process that made it (count, errors, time, histogram) and one for each
errno; slow calls and those of a watch list are rows of their own with arguments and result. Blind spots: calls of
32-bit programs are counted, not told; io_uring works without system calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from ebbflow.config import Config
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.kernel.maps import Map, Swapped
from ebbflow.kernel.offsets import Members
from ebbflow.kernel.syscall_choices import CALLS, choices
from ebbflow.producing.event_producer import Aggregate, EventProducer
from ebbflow.producing.shared import Shared

_STRUCTS = read_header(BPF_DIRECTORY / "syscalls.h").structs
_KEY, _COUNTS = _STRUCTS["syscalls_key"].dtype, _STRUCTS["syscalls_counts"].dtype
_ERROR_KEY = _STRUCTS["syscalls_error_key"].dtype
_NUMBER, _BYTE, _COUNT = np.dtype("<u4"), np.dtype("u1"), np.dtype("<u8")
Array = np.ndarray[Any, Any]


class SyscallsProducer(EventProducer):
    """See the module's docstring."""

    name: ClassVar[str] = "syscalls"
    unseen: ClassVar[tuple[str, ...]] = ("compat_calls",)
    offsets: ClassVar[Members] = {
        "TASK_STORAGE": ("task_struct", "bpf_storage"),
        "TASK_STATUS": ("task_struct", "thread_info.status"),
        "REGS_NUMBER": ("pt_regs", "orig_ax"),
        "FDT_MAX": ("fdtable", "max_fds"),
        "FDT_FD": ("fdtable", "fd"),
    }

    def __init__(self, config: Config, shared: Shared) -> None:
        super().__init__(config, shared)
        self._choices = choices(config.syscalls.watch, config.syscalls.slow_except)

    def definitions(self) -> Mapping[str, int]:
        settings = self.config.syscalls
        return {
            "SLOW_NS": round(settings.slow_s * 1e9),
            "SLOW_WAITS": int(settings.slow_waits),
            "MAX_ENTRIES": settings.max_entries,
        }

    def attach_probes(self) -> None:
        Map.of(self.program, "choices", _NUMBER, _BYTE).write(np.arange(CALLS), self._choices)
        self._totals = Swapped.of(self.program, "totals", _KEY, _COUNTS)
        self._errnos = Swapped.of(self.program, "errnos", _ERROR_KEY, _COUNT)
        attach = self.program.probes.attach_raw_tracepoint
        attach("sched_process_exit", "syscalls_end")
        attach("sys_exit", "syscalls_exit")
        attach("sys_enter", "syscalls_enter")

    def aggregates(self, since_ns: int, now_ns: int) -> Iterable[Aggregate]:
        del since_ns, now_ns
        keys, counts = self._totals.take()
        payload = totals(keys, counts, self.layout.payload("total"))
        yield self._of(keys, "total", payload, counts["comm"])
        keys, calls = self._errnos.take()
        yield self._of(keys, "errors", errors(keys, calls, self.layout.payload("errors")))

    def _of(self, keys: Array, kind: str, payload: Array, comms: Array | None = None) -> Aggregate:
        return Aggregate(
            kind=self.layout.kind(kind),
            payload=payload,
            pids=keys["pid"],
            starts=keys["start_boottime_ns"],
            comms=comms,
        )

    def map_usage(self) -> dict[str, float]:
        return super().map_usage() | {"totals": self._totals.usage(), "errnos": self._errnos.usage()}


def totals(keys: Array, counts: Array, dtype: np.dtype[Any]) -> Array:
    """Rows `struct syscalls_total`, shape (n,), of the program's keys and counts."""
    rows = np.zeros(len(keys), dtype)
    for name in ("total_ns", "max_ns", "errors", "slots"):
        rows[name] = counts[name]
    rows["number"] = keys["number"]
    rows["calls"] = counts["untimed"] + counts["slots"].sum(axis=1, dtype=np.uint64)
    return rows


def errors(keys: Array, calls: Array, dtype: np.dtype[Any]) -> Array:
    """Rows `struct syscalls_errors`, shape (n,)."""
    rows = np.zeros(len(keys), dtype)
    rows["calls"], rows["number"], rows["error"] = calls, keys["number"], keys["error"]
    return rows
