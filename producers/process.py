"""The life of processes: bpf/process.c to ebbflow.raw.process.

Forks, execs with their arguments, ends with code or signal and who sent it, out-of-memory kills, and an inventory of
what ran before. What an exec shows goes into the dictionaries of all features, so that processes which are gone before
/proc can be read have their executable, command line and container in every batch.

Arguments are masked here, before anything leaves the process (ebbflow/redaction/arguments.py); the environment is never
read. Blind spots are said, not guessed: docs/process.md.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from ebbflow.config import Config
from ebbflow.kernel.cgroup_members import NO_SUBSYSTEM, subsystem_number
from ebbflow.kernel.loader import tracepoint_has
from ebbflow.kernel.maps import Map
from ebbflow.kernel.offsets import Members
from ebbflow.kernel.rows import Drained
from ebbflow.producing.cgroup_paths import CgroupPaths, parse_mounts
from ebbflow.producing.event_producer import EventProducer
from ebbflow.producing.executions import parse_execution, payload_with, process_of_execution
from ebbflow.producing.shared import Shared
from ebbflow.redaction import ArgumentMasker

_RAW_TRACEPOINTS = {
    "sched_process_fork": "process_forked",
    "sched_process_exec": "process_executed",
    "sched_process_exit": "process_exited",
    "signal_generate": "process_signalled",
    "cgroup_attach_task": "process_joined",
    "task_rename": "process_renamed",
}


_KEY = np.dtype("<u4")
_ORDER = np.dtype([("pid", "<u4"), ("complete", "<u4")])
# One walk passes 4,096 processes or tells of 512; the next one passes over what has been told.
_MOST_WALKS = 16


class ProcessProducer(EventProducer):
    """See the module's docstring."""

    name: ClassVar[str] = "process"
    unseen: ClassVar[tuple[str, ...]] = ("unreadable_arguments",)
    offsets: ClassVar[Members] = {
        "TASK_PARENT": ("task_struct", "real_parent"),
        "TASK_SIGNAL": ("task_struct", "signal"),
        "TASK_FLAGS": ("task_struct", "flags"),
        "TASK_CGROUPS": ("task_struct", "cgroups"),
        "TASK_CREDENTIALS": ("task_struct", "cred"),
        "TASK_EXIT_CODE": ("task_struct", "exit_code"),
        "TASK_EXIT_STATE": ("task_struct", "exit_state"),
        "TASK_START_TIME": ("task_struct", "start_time"),
        "TASK_USER": ("task_struct", "utime"),
        "TASK_SYSTEM": ("task_struct", "stime"),
        "TASK_RUN": ("task_struct", "se.sum_exec_runtime"),
        "TASK_LIST": ("task_struct", "tasks"),
        "TASK_THREAD_NODE": ("task_struct", "thread_node"),
        "SIGNAL_FLAGS": ("signal_struct", "flags"),
        "SIGNAL_EXIT_CODE": ("signal_struct", "group_exit_code"),
        "SIGNAL_LIVE": ("signal_struct", "live"),
        "SIGNAL_THREADS": ("signal_struct", "thread_head"),
        "SIGNAL_USER": ("signal_struct", "utime"),
        "SIGNAL_SYSTEM": ("signal_struct", "stime"),
        "SIGNAL_RUN": ("signal_struct", "sum_sched_runtime"),
        "SIGNAL_MAXRSS": ("signal_struct", "maxrss"),
        "MM_ARG_START": ("mm_struct", "arg_start"),
        "MM_ARG_END": ("mm_struct", "arg_end"),
        "CREDENTIALS_UID": ("cred", "uid"),
        "CREDENTIALS_GID": ("cred", "gid"),
        "CREDENTIALS_EUID": ("cred", "euid"),
        "BINARY_FILENAME": ("linux_binprm", "filename"),
        "BINARY_INTERP": ("linux_binprm", "interp"),
        "BINARY_ARGC": ("linux_binprm", "argc"),
        "SET_SUBSYSTEMS": ("css_set", "subsys"),
        "SET_DEFAULT": ("css_set", "dfl_cgrp"),
        "STATE_CGROUP": ("cgroup_subsys_state", "cgroup"),
        "CGROUP_NODE": ("cgroup", "kn"),
        "NODE_ID": ("kernfs_node", "id"),
        "INFO_CODE": ("kernel_siginfo", "si_code"),
    }

    def __init__(self, config: Config, shared: Shared) -> None:
        super().__init__(config, shared)
        self._cgroups = CgroupPaths(parse_mounts(Path("/proc/self/mountinfo").read_text("utf-8", "replace")))
        redaction = config.redaction
        masker = ArgumentMasker([*redaction.headers, *redaction.parameters])
        self._mask = masker.mask if redaction.enabled else _as_they_are
        self._masked: dict[int, bytes] = {}
        self._fork, self._head = self.layout.payload("fork"), self.layout.payload("exec")
        self._handlers = {
            "fork": self._note_fork,
            "exec": self._note_exec,
            "exit": self._note_exit,
            "inventory": self._note_inventory,
        }
        self._listed = False
        self._unfinished = 0

    def definitions(self) -> Mapping[str, int]:
        legacy = self._cgroups.hierarchies.legacy
        return {
            "ARGUMENTS_BYTES": self.config.process.arguments_bytes,
            "MAX_PROCESSES": self.config.process.max_processes,
            "THREADS": int(self.config.process.threads),
            "PAGE_BYTES": os.sysconf("SC_PAGE_SIZE"),
            "LEGACY_SUBSYSTEM": subsystem_number(self.shared.btf, legacy.controller) if legacy else NO_SUBSYSTEM,
            "HAS_VICTIM_MEMORY": int(tracepoint_has("oom", "mark_victim", "anon_rss")),
        }

    def attach_probes(self) -> None:
        for index, function in enumerate(("process_found", "process_told")):
            self.program.set_tail("tails", index, function)
        self._orders = Map.of(self.program, "inventory_orders", _KEY, _ORDER)
        self._followed = Map.of(self.program, "followed", _KEY, np.dtype("<i8"))
        for tracepoint, function in _RAW_TRACEPOINTS.items():
            self.program.probes.attach_raw_tracepoint(tracepoint, function)

    def drain(self) -> float:
        if not self._listed:
            self._list()
        return super().drain()

    def _list(self) -> None:
        """Have the kernel tell of every watched process that it has not told of: it does so when we rename a thread."""
        self._listed = True
        comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        for _ in range(_MOST_WALKS):
            self._orders.write([0], np.array([(os.getpid(), 0)], _ORDER))
            comm.write_bytes(comm.read_bytes().rstrip(b"\n"))
            if self._orders.get(0)["complete"]:
                return
        self._unfinished += 1

    def housekeeping(self) -> None:
        # Those born into a watched cgroup, and new listeners on a watched port, are found by looking (Watch.refresh).
        targets = self.shared.targets
        if not self._detached and (targets.cgroups or targets.ports):
            self._list()
        super().housekeeping()

    def noticed(self, drained: Drained) -> None:
        """In the order in which they came: what ended is not looked for in /proc any more."""
        self._masked.clear()
        names = self.layout.names
        for index, kind in enumerate(drained.rows["kind"].tolist()):
            handle = self._handlers.get(names[kind])
            if handle is not None:
                row = drained.rows[index]
                handle(index, row, drained.data[drained.starts[index] : drained.ends[index]])

    def _note_fork(self, _index: int, row: np.void, payload: bytes) -> None:
        fork = np.frombuffer(payload, self._fork, count=1)[0]
        parent = int(fork["parent_pid"]), int(fork["parent_start_boottime_ns"])
        self.shared.processes.inherit(parent, fork["parent_comm"], *_upid(row), row["comm"])

    def _note_exit(self, _index: int, row: np.void, _payload: bytes) -> None:
        self.shared.processes.ended(*_upid(row), row["comm"])

    def _note_inventory(self, _index: int, row: np.void, _payload: bytes) -> None:
        """It may end before the batch is built."""
        self.shared.processes.describe(*_upid(row), row["comm"])

    def _note_exec(self, index: int, row: np.void, payload: bytes) -> None:
        execution = parse_execution(payload, self._head)
        masked = self._mask(execution.argv, cut=execution.is_cut)
        self._masked[index] = payload_with(execution, masked)
        cgroups = self._cgroups.find(int(execution.head["cgroup_id"]), int(execution.head["legacy_cgroup_id"]))
        self.shared.processes.learn(process_of_execution(row, execution, masked, cgroups))

    def release(self, drained: Drained) -> list[bytes]:
        """Payloads as they are, but for arguments, which leave masked."""
        payloads = super().release(drained)
        for index, payload in self._masked.items():
            payloads[index] = payload
        return payloads

    def blind_spots(self) -> dict[str, int]:
        return super().blind_spots() | {"unfinished_inventories": self._unfinished}

    def map_usage(self) -> dict[str, float]:
        followed = max(0, int(self._followed.get(0)))
        return super().map_usage() | {"lives": followed / self.config.process.max_processes}


def _upid(row: np.void) -> tuple[int, int]:
    return int(row["pid"]), int(row["start_boottime_ns"])


def _as_they_are(argv: tuple[str, ...], *, cut: bool = False) -> list[str]:
    del cut
    return list(argv)
