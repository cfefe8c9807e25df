"""Memory: bpf/memory.c to ebbflow.raw.memory.

Page faults, resident memory and OOM kills come from tracepoints. Allocations are followed when `memory.sampling` asks
for it, in single processes, by probes on the allocator's functions that only these processes pay for: one to two
microseconds a call, sampled or not. With the target `all` none is; name processes by pid, exe or cgroup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ebbflow.config import Config
from ebbflow.kernel.loader import tracepoint_has
from ebbflow.kernel.maps import Map, Swapped, reduce_cpus
from ebbflow.kernel.stacks import StackTraces
from ebbflow.producing.event_producer import Aggregate
from ebbflow.producing.followed import Followed
from ebbflow.producing.frames import LOST
from ebbflow.producing.shared import Shared
from ebbflow.producing.stack_producer import StackProducer

_UPID = np.dtype([("start", "<u8"), ("pid", "<u4"), ("pad", "<u4")])
_STACK_KEY = np.dtype([("process", _UPID), ("caller", "<u8"), ("stack", "<i4"), ("pad", "<u4")])
_STACK_TOTAL = np.dtype([(name, "<u8") for name in ("allocated_bytes", "allocated", "freed_bytes", "freed")])
_ALLOCATION_KEY = np.dtype([("address", "<u8"), ("pid", "<u4"), ("pad", "<u4")])
_ALLOCATION = np.dtype([("bytes", "<u8"), ("stack", _STACK_KEY)])
_CALLS_KEY = np.dtype([("process", _UPID), ("function", "<u4"), ("pad", "<u4")])
_CALLS_TOTAL = np.dtype([("calls", "<u8"), ("bytes", "<u8"), ("failed", "<u8")])
_RSS = np.dtype([("bytes", "<u8", (4,)), ("peak", "<u8"), ("seen", "<u4"), ("pad", "<u4")])
_RSS_NAMES = ("file_bytes", "anonymous_bytes", "swap_bytes", "shared_bytes")
# What /proc/PID/status calls them, in the same order.
_STATUS_NAMES = ("RssFile", "RssAnon", "VmSwap", "RssShmem")
_KIB = 1024
# From this fill of the map of stacks on, those that nothing refers to are forgotten.
_STACKS_FULL = 0.5


class MemoryProducer(StackProducer):
    """See the module's docstring."""

    name: ClassVar[str] = "memory"
    replaced: ClassVar[str] = "replaced"
    # Uprobes in processes that start later.
    capabilities: ClassVar[frozenset[str]] = StackProducer.capabilities | {"SYS_ADMIN"}

    def __init__(self, config: Config, shared: Shared) -> None:
        super().__init__(config, shared)
        self._told_stacks: dict[bytes, bytes] = {}
        self._told_rss: dict[bytes, bytes] = {}

    def definitions(self) -> Mapping[str, int]:
        memory = self.config.memory
        return {
            "SAMPLING": max(memory.sampling, 1),
            "MAX_ALLOCATIONS": memory.max_allocations,
            "MAX_STACKS": memory.max_stacks,
            "HAS_OOM_FIGURES": int(tracepoint_has("oom", "mark_victim", "anon_rss")),
        }

    def attach_probes(self) -> None:
        program = self.program
        self._calls = Swapped.of(program, "calls", _CALLS_KEY, _CALLS_TOTAL)
        self._faults = Swapped.of(program, "faults", _UPID, self.layout.payload("faults"))
        self._by_stack = Map.of(program, "by_stack", _STACK_KEY, _STACK_TOTAL)
        self._allocations = Map.of(program, "allocations", _ALLOCATION_KEY, _ALLOCATION)
        self._resident = Map.of(program, "resident", _UPID, _RSS)
        self._gone = Map.of(program, "gone", _UPID, np.dtype("u1"))
        self._stacks = StackTraces.of(program, "stacks")
        self._followed = Followed(program.probes, self.config.memory.max_processes)

    def started(self) -> None:
        self._followed.refresh(self._pids())

    def _pids(self) -> list[int]:
        is_asked_for = self.config.memory.sampling and not self.shared.targets.everything
        return self.shared.watch.pids() if is_asked_for else []

    def housekeeping(self) -> None:
        gone = self._gone.take()[0]
        if len(gone):
            self.aggregate()
            self._bury(gone)
        if not self._detached:
            self._followed.refresh(self._pids())
        if self._followed.fresh:
            self.aggregate()
        super().housekeeping()

    def aggregates(self, since_ns: int, now_ns: int) -> Iterator[Aggregate]:
        del since_ns, now_ns
        keys, values = self._calls.take()
        yield self._following(keys["process"])
        yield self._called(keys, values)
        yield self._faulted()
        yield self._resided()
        yield self._stacked()

    def _following(self, upids: np.ndarray[Any, Any]) -> Aggregate:
        """Of processes that allocate for the first time: what they execute from is looked at while they live."""
        upids = np.unique(upids)
        upids = upids[np.isin(upids["pid"], list(self._followed.fresh))]
        begun = [self._followed.fresh.pop(pid) for pid in upids["pid"].tolist()]
        payload = np.zeros(len(begun), self.layout.payload("followed"))
        payload["probes"] = [one.probes for one in begun]
        payload["frames"] = [len(one.addresses) for one in begun]
        aggregate = self._aggregate_of("followed", upids, payload)
        return replace(aggregate, tails=[np.array(one.addresses, np.uint64).tobytes() for one in begun])

    def _called(self, keys: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> Aggregate:
        totals = reduce_cpus(values)
        payload = np.zeros(len(keys), self.layout.payload("calls"))
        for name in _CALLS_TOTAL.names or ():
            payload[name] = totals[name]
        payload["function"] = keys["function"]
        return self._aggregate_of("calls", keys["process"], payload)

    def _faulted(self) -> Aggregate:
        keys, values = self._faults.take()
        return self._aggregate_of("faults", keys, reduce_cpus(values))

    def _resided(self) -> Aggregate:
        """Of processes whose resident memory is another than when it was told last."""
        keys, values = self._resident.items()
        changed = self._changed(self._told_rss, keys, values)
        payload = np.zeros(len(changed), self.layout.payload("rss"))
        for at, index in enumerate(changed):
            payload[at] = self._rss(int(keys[index]["pid"]), values[index])
        return self._aggregate_of("rss", keys[changed], payload)

    def _rss(self, pid: int, rss: np.void) -> tuple[int, ...]:
        """The kernel tells a member when it changes: those that have not yet are read once."""
        seen = int(rss["seen"])
        known = status_bytes(pid) if seen != (1 << len(_RSS_NAMES)) - 1 else {}
        amounts = [
            int(rss["bytes"][member]) if seen >> member & 1 else known.get(name, 0)
            for member, name in enumerate(_STATUS_NAMES)
        ]
        file, anonymous, _, shared = amounts
        return (*amounts, max(int(rss["peak"]), file + anonymous + shared))

    def _stacked(self) -> Aggregate:
        """Of stacks that have allocated or freed since they were told last."""
        keys, values = self._by_stack.items()
        chosen = self._changed(self._told_stacks, keys, values)
        keys, values = keys[chosen], values[chosen]
        stacks = self._stacks.read(np.maximum(keys["stack"], 0))
        tails = [
            with_caller(addresses, int(key["caller"])).tobytes() if key["stack"] >= 0 else b""
            for key, addresses in zip(keys, stacks, strict=True)
        ]
        payload = np.zeros(len(keys), self.layout.payload("stack"))
        for name in _STACK_TOTAL.names or ():
            payload[name] = values[name]
        payload["sampling"] = self.config.memory.sampling
        payload["frames"] = [len(tail) // 8 for tail in tails]
        aggregate = self._aggregate_of("stack", keys["process"], payload)
        return replace(aggregate, tails=tails, flags=np.array([0 if tail else LOST for tail in tails], np.uint16))

    @staticmethod
    def _changed(told: dict[bytes, bytes], keys: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> list[int]:
        """Indices of what is new or another than it was told; it counts as told from now on."""
        changed = []
        for index, (key, value) in enumerate(zip(keys, values, strict=True)):
            name, content = key.tobytes(), value.tobytes()
            if told.get(name) != content:
                told[name] = content
                changed.append(index)
        return changed

    def _aggregate_of(self, kind: str, upids: np.ndarray[Any, Any], payload: np.ndarray[Any, Any]) -> Aggregate:
        return Aggregate(kind=self.layout.kind(kind), payload=payload, pids=upids["pid"], starts=upids["start"])

    def _bury(self, gone: np.ndarray[Any, Any]) -> None:
        """Forget processes that ended or began another program: their last figures have just been told."""
        for pid in gone["pid"].tolist():
            self._followed.forget(pid)
        keys = self._by_stack.items()[0]
        mine = keys[np.isin(keys["process"], gone)]
        if len(mine):
            self._by_stack.delete(mine)
            allocations = self._allocations.items()[0]
            self._allocations.delete(allocations[np.isin(allocations["pid"], gone["pid"])])
            self._forget_stacks(self._by_stack.items()[0]["stack"])
        self._resident.delete(gone)
        for upid in gone:
            prefix = upid.tobytes()
            self._told_rss.pop(prefix, None)
            for key in [key for key in self._told_stacks if key.startswith(prefix)]:
                del self._told_stacks[key]

    def _forget_stacks(self, used: np.ndarray[Any, Any]) -> None:
        """Make room for new stacks when there is little left."""
        if self._stacks.usage() > _STACKS_FULL:
            self._stacks.forget(np.setdiff1d(np.arange(self.config.memory.max_stacks), used))

    def blind_spots(self) -> dict[str, int]:
        return super().blind_spots() | {"unfollowed_processes": len(self._followed.unfollowed)}

    def map_usage(self) -> dict[str, float]:
        return super().map_usage() | {
            "calls": self._calls.usage(),
            "faults": self._faults.usage(),
            "by_stack": self._by_stack.usage(),
            "resident": self._resident.usage(),
        }


def with_caller(addresses: np.ndarray[Any, Any], caller: int) -> np.ndarray[Any, Any]:
    """A stack taken at a function's entry, leaf first, with the caller that the frame chain does not have yet.

    Kernels since 6.11 put it there themselves.
    """
    if not caller or caller in addresses[1:2]:
        return addresses
    return np.insert(addresses, 1, caller)


def status_bytes(pid: int, proc: Path = Path("/proc")) -> dict[str, int]:
    """The sizes in /proc/PID/status, in bytes; none of a process that is gone."""
    try:
        lines = (proc / str(pid) / "status").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(amount) * _KIB for name, amount, _ in fields}
