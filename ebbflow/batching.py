"""Gathers the rows of one process bucket into RawBatches.

Rows are appended as arrays, payloads as bytes; nothing is looked at one by one. The dictionaries of a batch hold
exactly the processes and connections that its rows refer to, so that it can be read alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from ebbflow.kernel.layout import Layout
from ebbflow.records import encode
from ebbflow.v1 import raw_pb2

Rows = np.ndarray[tuple[int], np.dtype[np.void]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Who writes: the same in every batch of a run."""

    feature: str
    host_id: str
    host_name: str
    boot_id: bytes
    run_id: int


@dataclass(slots=True)
class LossAccount:
    """What was lost and not yet told, by stage and CPU (-1: no CPU)."""

    events: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, stage: int, cpu: int, events: int) -> None:
        if events:
            self.events[stage, cpu] = self.events.get((stage, cpu), 0) + events

    def take(self) -> list[raw_pb2.Loss]:
        """Everything untold; the caller tells it, or gives it back with `restore`."""
        losses = [
            raw_pb2.Loss(stage=raw_pb2.Loss.Stage.ValueType(stage), cpu=cpu, events=events)
            for (stage, cpu), events in sorted(self.events.items())
        ]
        self.events.clear()
        return losses

    def restore(self, losses: Iterable[raw_pb2.Loss]) -> None:
        for loss in losses:
            self.add(loss.stage, loss.cpu, loss.events)


class Dictionaries:
    """Processes and connections that rows may refer to, by generation."""

    def __init__(self) -> None:
        self._connections: dict[int, tuple[raw_pb2.Connection, raw_pb2.Process]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, generation: int) -> bool:
        return generation in self._connections

    def put(self, connection: raw_pb2.Connection, process: raw_pb2.Process) -> None:
        self._connections[connection.generation] = (connection, process)

    def forget(self, generations: Iterable[int]) -> None:
        for generation in generations:
            self._connections.pop(generation, None)

    def fill(self, envelope: raw_pb2.RawBatch, generations: Iterable[int]) -> None:
        """Write the entries of these generations, each process once."""
        indices: dict[int, int] = {}
        for generation in generations:
            known = self._connections.get(generation)
            if known is None:
                continue
            connection, process = known
            index = indices.get(id(process))
            if index is None:
                index = indices[id(process)] = len(envelope.processes)
                envelope.processes.append(process)
            connection.process = index
            envelope.connections.append(connection)


class BatchBuilder:
    """One bucket's batch under construction.

    Args:
        layout: of the rows.
        clock: gives the current clock point.
    """

    def __init__(
        self,
        origin: Origin,
        bucket: int,
        layout: Layout,
        dictionaries: Dictionaries,
        clock: Callable[[], raw_pb2.ClockPoint],
    ) -> None:
        self._origin = origin
        self._bucket = bucket
        self._layout = layout
        self._dictionaries = dictionaries
        self._clock = clock
        self._sequence = 0
        self.key = f"{origin.host_id}/{bucket}".encode()
        self._reset()

    def _reset(self) -> None:
        self._rows: list[Rows] = []
        self._heap: list[bytes] = []
        self._lengths: list[int] = []
        self._bytes = 0

    @property
    def events(self) -> int:
        return len(self._lengths)

    @property
    def size_bytes(self) -> int:
        """Rows, heap ends and heap; the dictionaries come on top."""
        return self._bytes

    def add(self, rows: Rows, payloads: list[bytes]) -> None:
        """Append rows, shape (n,), and the n payloads that go with them."""
        lengths = [len(payload) for payload in payloads]
        self._rows.append(rows)
        self._heap += payloads
        self._lengths += lengths
        self._bytes += rows.nbytes + 4 * len(lengths) + sum(lengths)

    def build(self, losses: Iterable[raw_pb2.Loss] = ()) -> bytes:
        """Encode what was added, and start anew. An empty batch is a heartbeat: it carries the clock and the losses."""
        rows = np.concatenate(self._rows) if self._rows else np.empty(0, self._layout.dtype)
        envelope = raw_pb2.RawBatch(
            feature=self._origin.feature,
            host_id=self._origin.host_id,
            host_name=self._origin.host_name,
            boot_id=self._origin.boot_id,
            run_id=self._origin.run_id,
            bucket=self._bucket,
            sequence=self._sequence,
            clock=self._clock(),
            cpus=cpu_ranges(rows),
            losses=losses,
        )
        self._dictionaries.fill(envelope, np.unique(rows["generation"]).tolist())
        ends = np.cumsum(self._lengths, dtype="<u4") if self._lengths else np.empty(0, "<u4")
        value = encode(envelope, self._layout, rows.tobytes(), ends.tobytes(), b"".join(self._heap))
        self._sequence += 1
        self._reset()
        return value


def cpu_ranges(rows: Rows) -> list[raw_pb2.CpuRange]:
    """First, last and number of the event sequences of each CPU in these rows."""
    ranges = []
    for cpu in np.unique(rows["cpu"]).tolist():
        sequences = rows["sequence"][rows["cpu"] == cpu]
        first, last = int(sequences.min()), int(sequences.max())
        ranges.append(raw_pb2.CpuRange(cpu=cpu, first=first, last=last, count=len(sequences)))
    return ranges
