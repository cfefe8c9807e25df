"""Which rows of struct event_row keep to their contract, and their payload as arrays. Arrays in, arrays out.

    check_rows     of a ring's read, or of a batch: a mask
    payloads_of    all payloads of one kind as one structured array
    event_batch    a Kafka record of a feature's raw topic: sound rows, and the invalid ones with their bytes

A kind says what may follow its rows: a dtype (just as many bytes), a range of lengths, or None (any length up to
LARGEST_PAYLOAD_BYTES).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ebbflow.component import DeadLetter
from ebbflow.errors import BatchInvalid, RowInvalid
from ebbflow.kernel.layout import EventLayout
from ebbflow.records import decode
from ebbflow.v1 import raw_pb2

LARGEST_PAYLOAD_BYTES = 1 << 16
_LARGEST_PID = 1 << 22  # PID_MAX_LIMIT of linux/threads.h
_SECOND_NS = 1_000_000_000
# Programs that BCC attaches at once run while probes are still being attached; what is read is at most as old as that.
_EARLY_NS = 60 * _SECOND_NS
_LATE_NS = _SECOND_NS
# The boot clock runs on while the host sleeps; how long it slept is not known here.
_LONGEST_SLEEP_NS = 365 * 24 * 3600 * _SECOND_NS
# Of a batch: how far its rows may be behind and ahead of its clock point. The producer's buffer bounds the first.
_PAST_NS, _FUTURE_NS = 6 * 3600 * _SECOND_NS, 5 * _SECOND_NS
_LARGEST_TIME_NS = (1 << 63) - 1
_KIND_NUMBERS = 256

Kinds = Mapping[int, np.dtype[Any] | range | None]
Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Rows = np.ndarray[tuple[int], np.dtype[np.void]]


def check_rows(rows: Rows, lengths: npt.NDArray[Any], *, kinds: Kinds, now_ns: int, attached_ns: int) -> Bools:
    """Mask of the valid rows, shape (n,).

    Args:
        rows: struct event_row, shape (n,).
        lengths: bytes of payload that are there for each row, shape (n,).
        kinds: number to what may follow.
        now_ns: CLOCK_MONOTONIC; no row is of a later time, give or take.
        attached_ns: nor of an earlier one.
    """
    valid = np.ones(len(rows), np.bool_)
    for bad in rules(rows, lengths, kinds=kinds, now_ns=now_ns, attached_ns=attached_ns).values():
        valid &= ~bad
    return valid


def rules(rows: Rows, lengths: npt.NDArray[Any], *, kinds: Kinds, now_ns: int, attached_ns: int) -> dict[str, Bools]:
    """Every rule with the rows that break it, each of shape (n,); see `check_rows`."""
    time_ns, since_ns, start_ns = rows["time_ns"], rows["since_ns"], rows["start_boottime_ns"]
    pid, tid = rows["pid"], rows["tid"]
    known, least, most = _limits(tuple((number, _lengths_of(what)) for number, what in kinds.items()))
    kind = rows["kind"]
    return {
        "unknown kind": ~known[kind],
        "payload does not fit the kind": _outside(rows["captured"], least[kind], most[kind])
        | _outside(lengths, least[kind], most[kind]),
        "time out of range": _outside(time_ns, _time(attached_ns - _EARLY_NS), _time(now_ns + _LATE_NS)),
        "began after its time": since_ns > time_ns,
        "no such process id": (pid > _LARGEST_PID) | (tid > _LARGEST_PID),
        # A process may be known without its start. The kernel's idle threads have no number.
        "a start or a thread without its process": (pid == 0) & ((start_ns != 0) | (tid != 0)),
        "started after its time": start_ns > np.minimum(time_ns, _time(now_ns + _LATE_NS)) + _time(_LONGEST_SLEEP_NS),
    }


def _outside(values: Any, least: Any, most: Any) -> Bools:
    return np.asarray((values < least) | (values > most))


def _time(time_ns: int) -> np.uint64:
    return np.uint64(min(max(time_ns, 0), _LARGEST_TIME_NS))


def _lengths_of(what: np.dtype[Any] | range | None) -> tuple[int, int]:
    """Least and most bytes."""
    if what is None:
        return 0, LARGEST_PAYLOAD_BYTES
    if isinstance(what, range):
        return (what[0], what[-1]) if what else (1, 0)
    return what.itemsize, what.itemsize


@lru_cache(maxsize=64)
def _limits(kinds: tuple[tuple[int, tuple[int, int]], ...]) -> tuple[Bools, Numbers, Numbers]:
    """By kind, shape (256,): whether it is known, least and most bytes of payload."""
    known = np.zeros(_KIND_NUMBERS, np.bool_)
    least, most = np.zeros(_KIND_NUMBERS, np.int64), np.full(_KIND_NUMBERS, LARGEST_PAYLOAD_BYTES)
    for number, (shortest, longest) in kinds:
        known[number], least[number], most[number] = True, shortest, longest
    return known, least, most


def payloads_of(rows: Rows, starts: npt.NDArray[Any], heap: bytes, dtype: np.dtype[Any], kind: int) -> npt.NDArray[Any]:
    """The structs that follow the rows of one kind, in the rows' order; of a longer payload, its front.

    Args:
        rows: valid ones, shape (n,).
        starts: where each row's payload begins in the heap, shape (n,).
        heap: payload of all rows.
        dtype: of the kind's struct.
        kind: its number.

    Raises:
        BatchInvalid: a payload would reach beyond the heap: these rows were not checked.
    """
    wanted = starts[rows["kind"] == kind]
    if not len(wanted):
        return np.empty(0, dtype)
    if int(wanted.max()) + dtype.itemsize > len(heap) or int(wanted.min()) < 0:
        raise BatchInvalid(f"payload of kind {kind} beyond the heap's {len(heap)} bytes")
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(heap, np.uint8), dtype.itemsize)
    gathered: npt.NDArray[Any] = windows[wanted].reshape(-1).view(dtype)
    return gathered


@dataclass(slots=True)
class EventBatch:
    """A decoded record of a feature's raw topic.

    Attributes:
        envelope: everything but rows and heap.
        rows: the valid ones, shape (n,).
        starts, ends: int64, shape (n,): where each row's payload is in the heap.
        invalid: how many rows are not valid.
        letters: what is wrong with them, and their bytes: one for each reason.
    """

    layout: EventLayout
    envelope: raw_pb2.RawBatch
    rows: Rows
    starts: Numbers
    ends: Numbers
    heap: bytes
    invalid: int
    letters: list[DeadLetter]

    def payloads(self, kind: str) -> npt.NDArray[Any]:
        """All structs of a kind, by its name in lower case; see `payloads_of`."""
        return payloads_of(self.rows, self.starts, self.heap, self.layout.payload(kind), self.layout.kind(kind))

    def of_kind(self, kind: str) -> Rows:
        """The rows that go with `payloads`."""
        chosen: Rows = self.rows[self.rows["kind"] == self.layout.kind(kind)]
        return chosen

    def payload(self, index: int) -> bytes:
        """All that follows one row."""
        return self.heap[int(self.starts[index]) : int(self.ends[index])]

    @property
    def unix_offset_ns(self) -> int:
        """What to add to a monotonic stamp to get unix time."""
        return self.envelope.clock.unix_ns - self.envelope.clock.monotonic_ns


def event_batch(value: bytes, layout: EventLayout) -> EventBatch:
    """Decode a record's value; rows that break a rule are set aside.

    Raises:
        BatchInvalid: the record as a whole cannot be used.
    """
    batch = decode(value, layout.row)
    _check_envelope(batch.envelope, len(batch.rows))
    starts, ends = batch.starts.astype(np.int64), batch.ends.astype(np.int64)
    clock_ns = batch.envelope.clock.monotonic_ns
    broken = rules(
        batch.rows, ends - starts, kinds=layout.kinds, now_ns=clock_ns + _FUTURE_NS, attached_ns=clock_ns - _PAST_NS
    )
    valid = np.ones(len(batch.rows), np.bool_)
    letters = []
    for reason, bad in broken.items():
        first = np.flatnonzero(bad & valid)
        valid[first] = False
        if len(first):
            letters.append(DeadLetter(RowInvalid.code, reason, _bytes_of(batch, first, starts, ends), len(first)))
    return EventBatch(
        layout, batch.envelope, batch.rows[valid], starts[valid], ends[valid], batch.heap, int((~valid).sum()), letters
    )


def _check_envelope(envelope: raw_pb2.RawBatch, rows: int) -> None:
    """What a batch that was cut off between two fields lacks, and references to nothing."""
    told = sum(cpu.count for cpu in envelope.cpus)
    if told != rows:
        raise BatchInvalid(f"{rows} rows, but the CPUs' ranges tell of {told}")
    if not envelope.HasField("clock"):
        raise BatchInvalid("no clock point")
    processes, mappings = len(envelope.processes), len(envelope.mappings)
    for frame in envelope.frames:
        if frame.process > processes or frame.mapping > mappings:
            raise BatchInvalid(f"frame {frame.address:#x} of a process or a mapping that is not there")


def _bytes_of(batch: Any, indices: Numbers, starts: Numbers, ends: Numbers) -> bytes:
    """Each row and what follows it, as the kernel's program wrote them, up to the size of one payload."""
    parts, size = [], 0
    for index in indices.tolist():
        parts.append(batch.rows[index : index + 1].tobytes() + batch.heap[starts[index] : ends[index]])
        size += len(parts[-1])
        if size >= LARGEST_PAYLOAD_BYTES:
            break
    return b"".join(parts)[:LARGEST_PAYLOAD_BYTES]
