"""The base of producers whose rows are `struct event_row` (bpf/event.h): tcp, process, syscalls, cpu, memory, disk.

    ring (bpf/emit.h) ─ rows ─ validation ─ payload as it may leave ─┐
    maps, every capture.interval_s ─ aggregates as rows ─────────────┴─ Buckets ─ RawBatches

A feature is one file: which program with which flags, which probes, how its maps become rows. It says so by overriding
`definitions`, `attach_probes`, `aggregates`, and where payload must be changed before it leaves, `release`.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ebbflow.component import Batch, DeadLetter, Producer
from ebbflow.config import Config
from ebbflow.errors import RowInvalid
from ebbflow.kernel.event_rows import check_rows
from ebbflow.kernel.layout import BPF_DIRECTORY, EventLayout, event_layout
from ebbflow.kernel.loader import Program
from ebbflow.kernel.offsets import Members
from ebbflow.kernel.ring import Ring, pages
from ebbflow.kernel.rows import REJECTED_BYTES, Drained, Rows, rows_of, take
from ebbflow.kernel.spent import measured_time_ns
from ebbflow.producing.batching import Dictionary
from ebbflow.producing.buckets import Buckets
from ebbflow.producing.shared import Shared
from ebbflow.topics import raw_topic
from ebbflow.v1 import raw_pb2

_DRAIN_BYTES = 4 << 20
NO_CPU = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """Rows of one kind that were summed up in the kernel.

    Attributes:
        kind: as in the feature's header.
        payload: structured array of the kind's struct, shape (n,).
        pids, starts: uint32 and uint64, shape (n,): the upid of each; None when they are of no process.
        tids, flags, comms: shape (n,), where there are any; a comm is the process's name of 16 bytes.
        tails: what follows each payload, where the kind's struct is only a head: n pieces of bytes.
    """

    kind: int
    payload: np.ndarray[Any, Any]
    pids: np.ndarray[Any, Any] | None = None
    starts: np.ndarray[Any, Any] | None = None
    tids: np.ndarray[Any, Any] | None = None
    flags: np.ndarray[Any, Any] | None = None
    comms: np.ndarray[Any, Any] | None = None
    tails: Sequence[bytes] | None = None

    def payloads(self) -> list[bytes]:
        """What follows each row."""
        heads = [head.tobytes() for head in self.payload]
        return heads if self.tails is None else [head + tail for head, tail in zip(heads, self.tails, strict=True)]


class EventProducer(Producer):
    """See the module's docstring. `unseen` names the blind spots that the program counts, in its order."""

    unseen: ClassVar[tuple[str, ...]] = ()
    offsets: ClassVar[Members] = {}

    def __init__(self, config: Config, shared: Shared) -> None:
        self.config = config
        self.shared = shared
        self.source = shared.source
        self.buckets = Buckets(
            shared.origin(self.name), raw_topic(self.name), self.layout.row, self.dictionary(), config.producer
        )
        self._counters: dict[str, int] = dict.fromkeys((*_COUNTERS, *self.unseen), 0)
        self._ring_lost: dict[int, int] = {}
        self._letters: list[DeadLetter] = []
        self._invalid = self._ours = self._aggregated = 0
        self._attached_ns = self._aggregated_ns = time.monotonic_ns()
        self._detached = False
        self._recursion_misses = 0

    @classmethod
    def from_config(cls, config: Config, shared: Shared) -> Self:
        return cls(config, shared)

    @cached_property
    def layout(self) -> EventLayout:
        """Rows and payload structs of bpf/NAME.h."""
        return event_layout(BPF_DIRECTORY / f"{self.name}.h")

    def dictionary(self) -> Dictionary:
        """What fills the batches' dictionaries: the rows' processes."""
        return self.shared.processes

    def source_file(self) -> Path:
        return BPF_DIRECTORY / f"{self.name}.c"

    def definitions(self) -> Mapping[str, int]:
        """The program's own -D flags."""
        return {}

    @abstractmethod
    def attach_probes(self) -> None:
        """Attach what BCC does not attach by itself, through `self.program.probes`."""

    def aggregates(self, since_ns: int, now_ns: int) -> Iterable[Aggregate]:
        """Take from the maps what was summed up since the last call, between these times."""
        del since_ns, now_ns
        return ()

    def release(self, drained: Drained) -> list[bytes]:
        """The payload of each row as it may leave this process."""
        data = drained.data
        return [data[start:end] for start, end in zip(drained.starts.tolist(), drained.ends.tolist(), strict=True)]

    def publish(self, rows: Rows, payloads: list[bytes]) -> None:
        """Rows and their payloads that may leave: into the buckets."""
        self.buckets.add(rows, payloads)

    def noticed(self, drained: Drained) -> None:
        """Valid rows, before they are released: for features that act on what they see."""

    def attach(self) -> None:
        ring_bytes = self.config.capture.event_ring_bytes
        flags = self.shared.definitions(self.offsets) | {"RING_PAGES": pages(ring_bytes)} | dict(self.definitions())
        self.program = Program(self.source_file(), flags)
        self._ring = Ring(self.program.map("events").map_fd, ring_bytes)
        self.attach_probes()
        self._attached_ns = self._aggregated_ns = time.monotonic_ns()

    def drain(self) -> float:
        fill = self._ring.fill()
        drained = self._check(rows_of(self._ring.read(_DRAIN_BYTES), self.layout.row))
        drained = self._without_ours(drained)
        if len(drained.rows):
            self.noticed(drained)
            self.publish(drained.rows, self.release(drained))
        return fill

    def _check(self, drained: Drained) -> Drained:
        """Rows that make sense; what does not is counted, and goes to the dead letters."""
        sound = check_rows(
            drained.rows,
            drained.ends - drained.starts,
            kinds=self.layout.kinds,
            now_ns=time.monotonic_ns(),
            attached_ns=self._attached_ns,
        )
        bad = int((~sound).sum())
        if not bad + drained.invalid:
            return drained
        self._invalid += bad + drained.invalid
        self.buckets.losses.add(raw_pb2.Loss.STAGE_INVALID, -1, bad + drained.invalid)
        self._letters.append(_letter(drained, np.flatnonzero(~sound), bad + drained.invalid))
        return drained.choose(sound)

    def _without_ours(self, drained: Drained) -> Drained:
        """Leave out what processes of the pipeline did before the kernel was told to exclude them."""
        excluded = self.shared.watch.excluded
        if not excluded or not len(drained.rows):
            return drained
        keep = ~np.isin(drained.rows["pid"], list(excluded))
        self._ours += int((~keep).sum())
        return drained if keep.all() else drained.choose(keep)

    def aggregate(self) -> None:
        """Tell what the maps hold, now."""
        now_ns = time.monotonic_ns()
        for aggregate in self.aggregates(self._aggregated_ns, now_ns):
            if len(aggregate.payload):
                self._add(aggregate, now_ns)
        self._aggregated_ns = now_ns

    def _add(self, aggregate: Aggregate, now_ns: int) -> None:
        payloads = aggregate.payloads()
        rows = self._rows(aggregate, payloads, now_ns)
        keep = np.flatnonzero(~np.isin(rows["pid"], list(self.shared.watch.excluded)))
        if len(keep):
            self._aggregated += len(keep)
            self.publish(take(rows, keep), [payloads[index] for index in keep.tolist()])

    def _rows(self, aggregate: Aggregate, payloads: Sequence[bytes], now_ns: int) -> Rows:
        count = len(payloads)
        rows = np.zeros(count, self.layout.row.dtype)
        rows["time_ns"], rows["since_ns"] = now_ns, self._aggregated_ns
        rows["sequence"] = np.arange(self._aggregated, self._aggregated + count)
        rows["captured"] = [len(payload) for payload in payloads]
        rows["kind"], rows["cpu"] = aggregate.kind, NO_CPU
        columns = {
            "pid": aggregate.pids, "start_boottime_ns": aggregate.starts, "tid": aggregate.tids,
            "flags": aggregate.flags, "comm": aggregate.comms,
        }  # fmt: skip
        for name, column in columns.items():
            if column is not None:
                rows[name] = column
        return rows

    def batches(self, *, everything: bool = False, pressure: float = 0.0) -> list[Batch]:
        return self.buckets.batches(everything=everything, pressure=pressure)

    def dead_letters(self) -> list[DeadLetter]:
        letters, self._letters = self._letters, []
        return letters

    def give_back(self, batch: Batch, *, refused: bool) -> None:
        self.buckets.give_back(batch, refused=refused)

    def housekeeping(self) -> None:
        if self._detached or time.monotonic_ns() - self._aggregated_ns >= self.config.capture.interval_s * 1e9:
            self.aggregate()
        before = self._counters["map_lost"]
        self._read_counters()
        # Read once a round: the ledger and the metrics both ask, and it is a file for every function.
        self._recursion_misses = self.program.recursion_misses()
        self.buckets.losses.add(raw_pb2.Loss.STAGE_MAP, -1, self._counters["map_lost"] - before)

    def _read_counters(self) -> None:
        per_cpu = self.program.map("counters")[0]
        for cpu, counters in enumerate(per_cpu):
            lost = counters.ring_lost
            self.buckets.losses.add(raw_pb2.Loss.STAGE_RING, cpu, lost - self._ring_lost.get(cpu, 0))
            self._ring_lost[cpu] = lost
        for name in _COUNTERS:
            self._counters[name] = sum(getattr(counters, name) for counters in per_cpu)
        for index, name in enumerate(self.unseen):
            self._counters[name] = sum(counters.unseen[index] for counters in per_cpu)

    def captured(self) -> int:
        return self._counters["sequence"] + self._aggregated - self._ours

    def lost(self) -> int:
        return self._counters["ring_lost"] + self._invalid

    def losses_by_cpu(self) -> dict[tuple[str, int], int]:
        return {("ring", cpu): lost for cpu, lost in self._ring_lost.items()}

    def held(self) -> int:
        return self.buckets.held

    def blind_spots(self) -> dict[str, int]:
        named = {name: self._counters[name] for name in self.unseen}
        return named | {"map_lost": self._counters["map_lost"], "skipped_recursions": self._recursion_misses}

    def program_time_ns(self) -> int | None:
        return measured_time_ns(self.program)

    def map_usage(self) -> dict[str, float]:
        return {"events": self._ring.fill()}

    def detach(self) -> None:
        self.program.detach()
        self._detached = True

    def close(self) -> None:
        if hasattr(self, "_ring"):
            self._ring.close()
        if hasattr(self, "program"):
            self.program.close()


_COUNTERS = ("sequence", "ring_lost", "map_lost")


def _letter(drained: Drained, bad: np.ndarray[Any, Any], count: int) -> DeadLetter:
    """The bytes of the rows at these indices, as many as fit, and what follows each."""
    size = drained.rows.dtype.itemsize
    spans = zip(drained.starts[bad].tolist(), drained.ends[bad].tolist(), strict=True)
    value = (drained.rejected + b"".join(drained.data[start - size : end] for start, end in spans))[:REJECTED_BYTES]
    return DeadLetter(RowInvalid.code, "rows of the kernel program that make no sense", value, count)
