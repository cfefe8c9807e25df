"""Who a process is, for the dictionaries of batches: what the kernel says first, and /proc adds while it lives.

The kernel says what only it knows in time (pid, start, command); /proc has the rest: executable, command line, cgroup,
container, service name. A process that is gone before it could be read keeps what the kernel said, or what a feature
has learned of it (`learn`). One dictionary serves all features of a producer.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ebbflow.containers import container_runtime, pod_uid, systemd_unit
from ebbflow.identity import Processes, ProcessInfo
from ebbflow.redaction import mask_arguments
from ebbflow.v1 import raw_pb2

# A program may replace itself (exec): what is known of it is read again when it is asked for after this time.
_FRESH_S = 2.0
# Rows of a process that has ended may still be on their way into batches for this long.
_ENDED_S = 60.0
_COMMAND_LINE_CHARACTERS = 4096
Upid = tuple[int, int]


@dataclass(slots=True)
class _Known:
    process: raw_pb2.Process
    read_s: float


class ProcessDictionary:
    """Processes by upid: pid and start in ns of the boot clock.

    Args:
        processes: reads /proc.
        on_ours: called with the pid of a process of ebbflow itself, which must not be watched.
        most: processes remembered; beyond that the one met first is forgotten.
    """

    def __init__(
        self,
        processes: Processes,
        on_ours: Callable[[int], None],
        now_s: Callable[[], float] = time.monotonic,
        *,
        most: int = 65_536,
    ) -> None:
        self._processes = processes
        self._on_ours = on_ours
        self._now_s = now_s
        self._most = most
        self._known: dict[Upid, _Known] = {}
        self._ended: deque[tuple[float, Upid]] = deque()

    def __len__(self) -> int:
        return len(self._known)

    def describe(self, pid: int, start_boottime_ns: int, comm: bytes) -> raw_pb2.Process | None:
        """The entry of one process; None when it belongs to ebbflow itself."""
        upid = (pid, start_boottime_ns)
        known = self._known.get(upid)
        if known is not None and self._now_s() - known.read_s < _FRESH_S:
            return known.process
        info = self._processes.read_process(pid)
        if info is not None and info.is_ours:
            self._on_ours(pid)
            return None
        if info is not None and info.started_at(start_boottime_ns):
            process = process_of(info, start_boottime_ns)
        else:
            process = known.process if known is not None else bare_process(pid, start_boottime_ns, comm)
        self._remember(upid, process)
        return process

    def learn(self, process: raw_pb2.Process) -> None:
        """Take a feature's word for a process, as that of an exec; /proc, while it is there, knows more."""
        self._remember((process.pid, process.start_boottime_ns), process, -_FRESH_S)

    def inherit(self, parent: Upid, parent_comm: bytes, pid: int, start_boottime_ns: int, comm: bytes) -> None:
        """A process that was forked is what its parent is, until it executes something or /proc says more."""
        known = self.describe(*parent, parent_comm)
        if known is None:
            return
        child = raw_pb2.Process()
        child.CopyFrom(known)
        child.pid, child.start_boottime_ns, child.comm = pid, start_boottime_ns, comm.decode("utf-8", "replace")
        self.learn(child)

    def ended(self, pid: int, start_boottime_ns: int, comm: bytes) -> None:
        """Never look for it in /proc again, where its pid may be another's; forget it when its rows must have gone."""
        upid = (pid, start_boottime_ns)
        known = self._known.get(upid)
        process = known.process if known is not None else bare_process(pid, start_boottime_ns, comm)
        self._remember(upid, process, math.inf)
        now_s = self._now_s()
        self._ended.append((now_s, upid))
        while self._ended[0][0] < now_s - _ENDED_S:
            self._known.pop(self._ended.popleft()[1], None)

    def _remember(self, upid: Upid, process: raw_pb2.Process, read_s: float | None = None) -> None:
        self._known[upid] = _Known(process, self._now_s() if read_s is None else read_s)
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]

    def exited(self, pid: int) -> None:
        """Forget all processes that ever had this pid."""
        for upid in [upid for upid in self._known if upid[0] == pid]:
            del self._known[upid]

    def fill(self, envelope: raw_pb2.RawBatch, rows: np.ndarray[Any, Any], _heap: bytes, _ends: object) -> None:
        """Write the processes that `struct event_row` rows refer to, each once."""
        for pid, start, comm in _upids(rows):
            process = self.describe(pid, start, comm)
            if process is not None:
                envelope.processes.append(process)


def _upids(rows: np.ndarray[Any, Any]) -> list[tuple[int, int, bytes]]:
    """Distinct (pid, start, comm) of rows that have a process; the last comm of each counts."""
    mine = rows[rows["pid"] != 0]
    _, last = np.unique(np.stack([mine["pid"], mine["start_boottime_ns"]])[:, ::-1], axis=1, return_index=True)
    chosen = mine[len(mine) - 1 - last]
    return list(zip(chosen["pid"].tolist(), chosen["start_boottime_ns"].tolist(), chosen["comm"].tolist(), strict=True))


def process_of(info: ProcessInfo, start_boottime_ns: int) -> raw_pb2.Process:
    """The entry of a process that /proc shows; arguments are masked."""
    return raw_pb2.Process(
        pid=info.pid,
        start_boottime_ns=start_boottime_ns,
        comm=info.comm,
        exe=info.exe,
        cgroup=info.cgroups.path,
        container_id=info.container_id,
        service_name=info.service.name,
        service_name_source=cast("raw_pb2.ServiceNameSource", int(info.service.source)),
        command_line=command_line_of(mask_arguments(info.argv)),
        **placed(info.cgroups.path),
    )


def command_line_of(masked: Sequence[str]) -> str:
    """Words, masked already, as the dictionaries hold them."""
    return " ".join(masked)[:_COMMAND_LINE_CHARACTERS]


def placed(cgroup: str) -> dict[str, str]:
    """The fields of an entry that say what a cgroup's path says beside the container's id."""
    return {
        "container_runtime": container_runtime(cgroup),
        "pod_uid": pod_uid(cgroup),
        "systemd_unit": systemd_unit(cgroup),
    }


def bare_process(pid: int, start_boottime_ns: int, comm: bytes) -> raw_pb2.Process:
    """The entry of a process of which only the kernel has told."""
    name = comm.decode("utf-8", "replace")
    return raw_pb2.Process(
        pid=pid,
        start_boottime_ns=start_boottime_ns,
        comm=name,
        service_name=name,
        service_name_source=raw_pb2.SERVICE_NAME_SOURCE_COMM,
    )
