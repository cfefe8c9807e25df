"""Keeps a program's target maps in step with what the user asked for; the maps are the same in every feature.

targets         pid -> reasons           excluded         pid -> 1
target_exes     inode, device -> 1       ports            port -> 1 watched, 2 excluded
target_cgroups  cgroup id -> 1
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ebbflow.kernel.loader import Program
from ebbflow.kernel.targets import Targets, cgroup_ids, watched_now

_PORT_WATCHED, _PORT_EXCLUDED = 1, 2


class Watch:
    """The maps of one loaded program."""

    def __init__(self, program: Program, targets: Targets) -> None:
        self._program = program
        self._targets = targets
        self._cgroups: set[int] = set()

    def start(self, exclude_pids: Iterable[int], exclude_ports: Iterable[int]) -> None:
        """Fill every map. Exclusions first: nothing of ours may slip through."""
        for pid in exclude_pids:
            self.exclude(pid)
        ports = self._program.map("ports")
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
        """Find what the kernel does not announce: cgroups made since, and processes born into one."""
        if not self._targets.cgroups:
            return
        cgroups = self._program.map("target_cgroups")
        for cgroup in self._targets.cgroups:
            for number in cgroup_ids(cgroup) - self._cgroups:
                cgroups[ctypes.c_uint64(number)] = ctypes.c_uint8(1)
                self._cgroups.add(number)
        self._put_all(watched_now(Targets(cgroups=self._targets.cgroups)))

    def _put_all(self, reasons: dict[int, int]) -> None:
        targets = self._program.map("targets")
        for pid, mask in reasons.items():
            _put(targets, pid, mask)

    def exclude(self, pid: int) -> None:
        """Never capture this process, whatever the targets say."""
        self._program.map("excluded")[ctypes.c_uint32(pid)] = ctypes.c_uint8(1)
        self.forget(pid)

    def forget(self, pid: int) -> None:
        with suppress(KeyError):
            del self._program.map("targets")[ctypes.c_uint32(pid)]

    def add(self, pid: int, reasons: int) -> None:
        _put(self._program.map("targets"), pid, reasons)


def _put(targets: Any, pid: int, reasons: int) -> None:
    key = ctypes.c_uint32(pid)
    with suppress(KeyError):
        reasons |= targets[key].value
    targets[key] = ctypes.c_uint32(reasons)
