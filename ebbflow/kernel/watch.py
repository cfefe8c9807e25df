"""The watched processes and ports: fills the maps of bpf/watch.c, which every feature of this process shares.

watch_targets   pid -> reasons           watch_excluded   pid -> 1
target_exes     inode, device -> 1       watch_ports      port -> 1 watched, 2 excluded
target_cgroups  cgroup id -> 1
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ebbflow.kernel.layout import BPF_DIRECTORY
from ebbflow.kernel.loader import Program
from ebbflow.kernel.targets import Targets, cgroup_ids, watched_now

_PORT_WATCHED, _PORT_EXCLUDED = 1, 2


class Watch:
    """What is watched on this host, for all features of this process.

    Made before any feature's program is loaded, because that finds the maps here; started after the last of them,
    because a process is forgotten by the last program that sees its end.

    Args:
        definitions: -D flags, the same as the features get.
    """

    def __init__(self, targets: Targets, definitions: Mapping[str, int]) -> None:
        self._targets = targets
        self._program = Program(BPF_DIRECTORY / "watch.c", definitions)
        self._cgroups: set[int] = set()
        self._excluded: set[int] = set()

    @property
    def excluded(self) -> frozenset[int]:
        """Processes that are left out, whatever the targets say."""
        return frozenset(self._excluded)

    def start(self, exclude_pids: Iterable[int], exclude_ports: Iterable[int]) -> None:
        """Fill every map. Exclusions first: nothing of ours may slip through."""
        self._program.probes.attach_raw_tracepoint("sched_process_exit", "watch_exit")
        for pid in exclude_pids:
            self.exclude(pid)
        ports = self._program.map("watch_ports")
        for port in self._targets.ports:
            ports[ctypes.c_uint16(port)] = ctypes.c_uint8(_PORT_WATCHED)
        for port in exclude_ports:
            ports[ctypes.c_uint16(port)] = ctypes.c_uint8(_PORT_EXCLUDED)
        exes = self._program.map("target_exes")
        for executable in self._targets.executables:
            key = exes.Key(executable.inode, executable.device)
            exes[key] = ctypes.c_uint8(1)
        # Twice: a child born while /proc was read, of a parent not yet in the map, was not announced to anyone.
        for _ in range(2):
            self._put_all(watched_now(self._targets))
        self.refresh()

    def refresh(self) -> None:
        """Find what the kernel does not announce: cgroups made since, processes born into one, new listeners."""
        self._excluded = {pid for pid in self._excluded if Path(f"/proc/{pid}").exists()}
        if not self._targets.cgroups and not self._targets.ports:
            return
        cgroups = self._program.map("target_cgroups")
        for cgroup in self._targets.cgroups:
            for number in cgroup_ids(cgroup) - self._cgroups:
                cgroups[ctypes.c_uint64(number)] = ctypes.c_uint8(1)
                self._cgroups.add(number)
        self._put_all(watched_now(Targets(cgroups=self._targets.cgroups, ports=self._targets.ports)))

    def _put_all(self, reasons: dict[int, int]) -> None:
        targets = self._program.map("watch_targets")
        for pid, mask in reasons.items():
            if pid not in self._excluded:
                _put(targets, pid, mask)

    def exclude(self, pid: int) -> None:
        """Never capture this process, whatever the targets say."""
        self._excluded.add(pid)
        self._program.map("watch_excluded")[ctypes.c_uint32(pid)] = ctypes.c_uint8(1)
        self.forget(pid)

    def add(self, pid: int, reasons: int) -> None:
        _put(self._program.map("watch_targets"), pid, reasons)

    def forget(self, pid: int) -> None:
        with suppress(KeyError):
            del self._program.map("watch_targets")[ctypes.c_uint32(pid)]

    def pids(self) -> list[int]:
        """Processes in the map now; with `all` as the target, only those that have another reason."""
        return [pid.value for pid in self._program.map("watch_targets")]

    def lost(self) -> int:
        """Times the kernel found no room to note a process."""
        return int(self._program.map("watch_lost")[ctypes.c_int(0)].value)

    def detach(self) -> None:
        self._program.detach()

    def close(self) -> None:
        self._program.close()


def _put(targets: Any, pid: int, reasons: int) -> None:
    key = ctypes.c_uint32(pid)
    with suppress(KeyError):
        reasons |= targets[key].value
    targets[key] = ctypes.c_uint32(reasons)
