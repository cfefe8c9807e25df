"""Where processes run, wait and queue: bpf/cpu.c to ebbflow.raw.cpu.

Samples come through the ring, one row each; waits, wake-ups and queueing are summed up in the kernel and become rows
once in capture.interval_s, with a row that says what the interval held and what it cost. Frames are named on the way
out (ebbflow/producing/stack_producer.py). The clock of a processor that goes online later is started within a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ebbflow.config import Config
from ebbflow.kernel.attach_points import cpus_online
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.kernel.maps import Map, Swapped
from ebbflow.kernel.probes import Probe
from ebbflow.kernel.system_calls import ProgramType
from ebbflow.producing.cpu_profile import NO_STATE, StackCache, expected_samples, off_rows, switch_arguments
from ebbflow.producing.event_producer import Aggregate
from ebbflow.producing.frames import LOST, TRUNCATED
from ebbflow.producing.shared import Shared
from ebbflow.producing.stack_producer import STACK_COUNTS, StackProducer

_HEADER = read_header(BPF_DIRECTORY / "cpu.h")
_FLAGS = {"LOST": LOST, "TRUNCATED": TRUNCATED} | {
    name.removeprefix("CPU_"): flag for name, flag in _HEADER.enums["cpu_flags"].items()
}
_NS = 1_000_000_000
_U4, _U8 = np.dtype("<u4"), np.dtype("<u8")
# Stacks that are remembered, as a multiple of what the kernel holds in one interval.
_REMEMBERED = 8
_SWITCHING = {"sched_switch": "cpu_switch", "sched_waking": "cpu_waking", "sched_wakeup_new": "cpu_wakeup_new"}


class CpuProducer(StackProducer):
    """See the module's docstring."""

    name: ClassVar[str] = "cpu"
    # Starting the clock of a CPU that comes later.
    capabilities: ClassVar[frozenset[str]] = StackProducer.capabilities | {"PERFMON"}
    unseen: ClassVar[tuple[str, ...]] = ("untracked_threads",)
    replaced: ClassVar[str] = "exec"
    traced: ClassVar[str] = "__schedule"
    traced_kinds: ClassVar[tuple[str, ...]] = ("off",)

    def __init__(self, config: Config, shared: Shared) -> None:
        super().__init__(config, shared)
        self._cpu = config.cpu
        self._known_stacks = StackCache(_REMEMBERED * config.cpu.max_stacks)
        self._clocks: dict[int, Probe] = {}
        self._programs: list[int] = []
        self._usage: dict[str, float] = {}
        self._told: dict[str, int] = {}
        self._told_the_end = False

    def has_names(self) -> bool:
        return self.config.cpu.symbols

    @cached_property
    def _arguments(self) -> dict[str, int]:
        return switch_arguments(self.shared.btf.parameters("btf_trace_sched_switch"))

    def definitions(self) -> Mapping[str, int]:
        """The program's own -D flags."""
        flags = {
            "PERIOD_NS": _NS // self._cpu.frequency_hz,
            "OFF_MIN_NS": int(self._cpu.off_cpu_min_s * _NS),
            "STACK_GAP_NS": _NS // self._cpu.off_cpu_stacks_per_s,
            "PREEMPTED_STACKS": int(self._cpu.preempted_stacks),
            "MAX_STACKS": self._cpu.max_stacks,
            "MAX_THREADS": self._cpu.max_threads,
        } | self._arguments
        if self._arguments["ARG_STATE"] == NO_STATE:
            btf = self.shared.btf
            member = "__state" if btf.has("task_struct", "__state") else "state"
            flags["OFFSET_TASK_STATE"] = btf.offset("task_struct", member)
        return flags

    def attach_probes(self) -> None:
        """Waits first, so that nothing that a sample sees is older than what follows it."""
        program, struct = self.program, {name: layout.dtype for name, layout in _HEADER.structs.items()}
        self._ticks = Map.of(program, "ticks", _U4, struct["cpu_ticks"])
        self._threads = Map.of(program, "threads", _U4, _thread_dtype())
        self._stacks = Swapped.of(program, "stacks", _U8, struct["cpu_stack"])
        self._offs = Swapped.of(program, "offs", struct["cpu_off_key"], struct["cpu_off_total"])
        self._wakes = Swapped.of(program, "wakes", struct["cpu_wake_key"], struct["cpu_wake_total"])
        self._queues = Swapped.of(program, "queues", struct["cpu_queue_key"], struct["cpu_queue"])
        hooks = _SWITCHING if self._cpu.off_cpu else {}
        for tracepoint, function in {**hooks, "sched_process_exec": "cpu_exec"}.items():
            program.probes.attach_raw_tracepoint(tracepoint, function)
            self._programs.append(program.load(function, ProgramType.RAW_TRACEPOINT))
        self._programs.append(program.load("cpu_sample", ProgramType.PERF_EVENT))
        self._follow_cpus()
        self._told = self._so_far()

    def _follow_cpus(self) -> None:
        """Start the clocks of CPUs that came, let go of those that went."""
        online = set(cpus_online())
        for cpu in self._clocks.keys() - online:
            self.program.probes.detach(self._clocks.pop(cpu))
        for cpu in online - self._clocks.keys():
            self._clocks[cpu] = self.program.probes.attach_perf_event(
                "cpu_sample", frequency_hz=self._cpu.frequency_hz, cpu=cpu
            )

    def housekeeping(self) -> None:
        super().housekeeping()
        if not self._detached:
            self._follow_cpus()

    def aggregates(self, since_ns: int, now_ns: int) -> Iterator[Aggregate]:
        if self._cpu.off_cpu:
            # Waits before stacks: the stack of a wait that is over was kept when it began.
            keys, totals = self._offs.take()
            self._known_stacks.add(*self._stacks.take())
            yield self._waited(keys, totals)
            yield self._woken()
            keys, queues = self._queues.take()
            yield Aggregate(kind=self.layout.kind("queue"), payload=queues, **_upids(keys))
        if not self._told_the_end:
            self._told_the_end = self._detached
            yield self._run(now_ns - since_ns)

    def _waited(self, keys: np.ndarray[Any, Any], totals: np.ndarray[Any, Any]) -> Aggregate:
        heads, tails, flags = off_rows(keys, totals, self._known_stacks, self.layout.payload("off"), _FLAGS)
        return Aggregate(kind=self.layout.kind("off"), payload=heads, flags=flags, tails=tails, **_upids(keys))

    def _woken(self) -> Aggregate:
        keys, totals = self._wakes.take()
        payload = np.zeros(len(keys), self.layout.payload("wake"))
        for name in ("waits", "total_ns", "longest_ns"):
            payload[name] = totals[name]
        payload["waker_comm"] = totals["comm"]
        for name in ("waker_pid", "waker_start_boottime_ns"):
            payload[name] = keys[name]
        return Aggregate(kind=self.layout.kind("wake"), payload=payload, **_upids(keys))

    def _run(self, duration_ns: int) -> Aggregate:
        """The interval's figures: what rose since the last one."""
        so_far = self._so_far()
        payload = np.zeros(1, self.layout.payload("run"))
        for name, value in so_far.items():
            payload[name] = value - self._told[name]
        self._told = so_far
        frequency_hz, cpus = self._cpu.frequency_hz, len(self._clocks)
        payload["period_ns"], payload["frequency_hz"], payload["cpus"] = _NS // frequency_hz, frequency_hz, cpus
        payload["expected"] = expected_samples(duration_ns, frequency_hz, cpus)
        tables = {"stacks": self._stacks, "offs": self._offs, "wakes": self._wakes, "queues": self._queues}
        self._usage = {name: table.usage() for name, table in tables.items()} | {"threads": self._threads.usage()}
        return Aggregate(kind=self.layout.kind("run"), payload=payload)

    def _so_far(self) -> dict[str, int]:
        """Figures of CPU_RUN that only rise."""
        ticks = self._ticks.get(0)
        runs, run_ns = run_statistics(self._programs)
        return {
            **{name: int(ticks[name].sum()) for name in ("taken", "idle", "unwatched", "switches")},
            "producer_cpu_ns": time.process_time_ns(),
            "programs_cpu_ns": run_ns,
            "programs_runs": runs,
            **{name: self.stack_counts()[name] for name in STACK_COUNTS},
        }

    def map_usage(self) -> dict[str, float]:
        return super().map_usage() | self._usage


def _upids(keys: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"pids": keys["pid"], "starts": keys["start_boottime_ns"]}


def _thread_dtype() -> np.dtype[Any]:
    """The struct thread of bpf/cpu.c; only counted here."""
    words = [(name, "<u8") for name in ("out_ns", "waking_ns", "stack", "due_ns", "start", "waker_start")]
    halves = [(name, "<u4") for name in ("pid", "waker_pid", "state", "pad")]
    return np.dtype([*words, *halves, ("waker_comm", "S16")])


def run_statistics(programs: list[int], fdinfo: Path = Path("/proc/self/fdinfo")) -> tuple[int, int]:
    """Runs and run time in ns of loaded programs; zeros while kernel.bpf_stats_enabled is 0."""
    runs = run_ns = 0
    for descriptor in programs:
        fields = dict(line.split(":", 1) for line in (fdinfo / str(descriptor)).read_text("ascii").splitlines())
        runs += int(fields.get("run_cnt", 0))
        run_ns += int(fields.get("run_time_ns", 0))
    return runs, run_ns
