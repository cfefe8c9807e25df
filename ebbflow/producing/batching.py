"""Gathers the rows of one process bucket into RawBatches.

Rows are appended as arrays, payloads as bytes; nothing is looked at one by one. The dictionaries of a batch hold
exactly the processes and connections that its rows refer to, so that it can be read alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, cast

import numpy as np

from ebbflow.kernel.layout import Layout
from ebbflow.records import encode
from ebbflow.v1 import raw_pb2

Rows = np.ndarray[tuple[int], np.dtype[np.void]]
Ends = np.ndarray[tuple[int], np.dtype[np.int64]]
_END_BYTES = 4
# Kafka takes records of 1,000,000 bytes by default; its own framing needs some.
_LARGEST_VALUE_BYTES = 950_000


@dataclass(frozen=True, slots=True)
class Built:
    """An encoded RawBatch, the events in it, and the losses it tells."""

    value: bytes
    events: int
    losses: tuple[raw_pb2.Loss, ...]


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
            raw_pb2.Loss(stage=cast("raw_pb2.Loss.Stage", stage), cpu=cpu, events=events)
            for (stage, cpu), events in sorted(self.events.items())
        ]
        self.events.clear()
        return losses

    def restore(self, losses: Iterable[raw_pb2.Loss]) -> None:
        for loss in losses:
            self.add(loss.stage, loss.cpu, loss.events)


class Dictionary(Protocol):
    """What rows refer to."""

    def fill(self, envelope: raw_pb2.RawBatch, rows: Rows, heap: bytes, ends: Ends, /) -> None:
        """Write into the envelope what these rows need to be read alone.

        `heap` holds the rows' payload, one behind the other; `ends`, int64, shape (n,), where each of them ends.
        """


class Dictionaries:
    """Processes and connections that rows may refer to, by generation.

    Args:
        most: connections kept; beyond that the one announced first is forgotten (its end was lost, or there are more
            than the kernel tracks).
    """

    def __init__(self, most: int = 200_000) -> None:
        self._most = most
        self._connections: dict[int, tuple[raw_pb2.Connection, raw_pb2.Process]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, generation: int) -> bool:
        return generation in self._connections

    def put(self, connection: raw_pb2.Connection, process: raw_pb2.Process) -> None:
        self._connections[connection.generation] = (connection, process)
        if len(self._connections) > self._most:
            del self._connections[next(iter(self._connections))]

    def forget(self, generations: Iterable[int]) -> None:
        for generation in generations:
            self._connections.pop(generation, None)

    def fill(self, envelope: raw_pb2.RawBatch, rows: Rows, _heap: bytes, _ends: Ends) -> None:
        """Write the entries of the rows' generations, each process once."""
        indices: dict[int, int] = {}
        for generation in np.unique(rows["generation"]).tolist():
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
        batch_bytes: a batch's rows and payload come to no more than this.
    """

    def __init__(
        self,
        origin: Origin,
        bucket: int,
        layout: Layout,
        dictionary: Dictionary,
        clock: Callable[[], raw_pb2.ClockPoint],
        *,
        batch_bytes: int,
    ) -> None:
        self._origin = origin
        self._bucket = bucket
        self._layout = layout
        self._dictionary = dictionary
        self._clock = clock
        self._batch_bytes = batch_bytes
        self._sequence = 0
        self.key = f"{origin.host_id}/{bucket}".encode()
        self._reset()

    def _reset(self) -> None:
        self._rows: list[Rows] = []
        self._heap: list[bytes] = []
        self._lengths: list[Ends] = []
        self._events = 0
        self._bytes = 0

    @property
    def events(self) -> int:
        return self._events

    @property
    def size_bytes(self) -> int:
        """Rows, heap ends and heap; the dictionaries come on top."""
        return self._bytes

    def add(self, rows: Rows, payloads: Sequence[bytes], lengths: Ends) -> None:
        """Append rows, shape (n,), the n payloads that go with them, and the payloads' lengths, shape (n,)."""
        self._rows.append(rows)
        self._heap += payloads
        self._lengths.append(lengths)
        self._events += len(rows)
        self._bytes += rows.nbytes + _END_BYTES * len(rows) + int(lengths.sum())

    def build(self, losses: Iterable[raw_pb2.Loss] = ()) -> list[Built]:
        """Encode what was added, and start anew; the losses go with the first batch.

        Nothing added gives one batch without rows, a heartbeat: it carries the clock and the losses.
        """
        rows = np.concatenate(self._rows) if self._rows else np.empty(0, self._layout.dtype)
        ends = np.cumsum(np.concatenate(self._lengths) if self._lengths else (), dtype=np.int64)
        heap = b"".join(self._heap)
        self._reset()
        cuts = cut_points(ends + np.arange(1, len(ends) + 1) * (self._layout.size + _END_BYTES), self._batch_bytes)
        built: list[Built] = []
        for first, last in pairwise(cuts):
            built += self._encode(rows, ends, heap, (first, last), () if built else tuple(losses))
        return built

    def _encode(
        self, rows: Rows, ends: Ends, heap: bytes, part: tuple[int, int], losses: tuple[raw_pb2.Loss, ...]
    ) -> list[Built]:
        """Encode rows [first, last). The dictionaries' size is only known then: what came out too large is halved."""
        first, last = part
        base = int(ends[first - 1]) if first else 0
        mine, until = rows[first:last], int(ends[last - 1]) if last else 0
        my_heap, my_ends = heap[base:until], ends[first:last] - base
        envelope = self._envelope(mine, losses)
        self._dictionary.fill(envelope, mine, my_heap, my_ends)
        value = encode(envelope, self._layout, mine.tobytes(), my_ends.astype("<u4").tobytes(), my_heap)
        if len(value) > _LARGEST_VALUE_BYTES and last - first > 1:
            middle = (first + last) // 2
            return [
                *self._encode(rows, ends, heap, (first, middle), losses),
                *self._encode(rows, ends, heap, (middle, last), ()),
            ]
        self._sequence += 1
        return [Built(value, last - first, losses)]

    def _envelope(self, rows: Rows, losses: tuple[raw_pb2.Loss, ...]) -> raw_pb2.RawBatch:
        return raw_pb2.RawBatch(
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


def cut_points(sizes: Ends, limit: int) -> list[int]:
    """Where to cut a sequence whose cumulative sizes are given, so that no part is larger than `limit`.

    Returns:
        rising indices from 0 to the number of items; one item larger than the limit stands alone.
    """
    cuts = [0]
    if not len(sizes):
        return [0, 0]
    while cuts[-1] < len(sizes):
        base = int(sizes[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(sizes, base + limit, "right"))))
    return cuts


def cpu_ranges(rows: Rows) -> list[raw_pb2.CpuRange]:
    """First, last and number of the event sequences of each CPU in these rows."""
    ranges = []
    cpus, all_sequences = rows["cpu"], rows["sequence"]
    for cpu in np.flatnonzero(np.bincount(cpus)).tolist():
        sequences = all_sequences[cpus == cpu]
        first, last = int(sequences.min()), int(sequences.max())
        ranges.append(raw_pb2.CpuRange(cpu=cpu, first=first, last=last, count=len(sequences)))
    return ranges
