"""RawBatch: the envelope that producers write and processors read, decoded to arrays without touching single rows.

    RawBatch (protobuf)
     ├─ who and which      host, boot, run, bucket, sequence; schema version, layout hash
     ├─ clock              one point that turns monotonic stamps into unix time, with its uncertainty
     ├─ cpus, losses       which events are here, and which are nowhere
     ├─ processes, connections   the dictionaries that the rows refer to
     └─ rows | heap_ends | heap  fixed C structs; where each payload ends; the payloads

`encode` and `decode` are inverse to the byte for everything but protobuf's unknown fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from google.protobuf.message import DecodeError

from ebbflow.errors import BatchInvalid
from ebbflow.kernel.layout import Layout
from ebbflow.v1 import raw_pb2

SCHEMA_VERSION = 1
_ENDS = np.dtype("<u4")
_UUID_BYTES = 16


@dataclass(slots=True)
class Batch:
    """A decoded RawBatch.

    Attributes:
        envelope: everything but rows and heap.
        rows: structured array of the feature's row struct, shape (n,), read-only.
        ends: uint32, shape (n,): where in the heap each row's payload ends.
        heap: payload bytes of all rows, one after the other.
    """

    envelope: raw_pb2.RawBatch
    rows: np.ndarray[tuple[int], np.dtype[np.void]]
    ends: np.ndarray[tuple[int], np.dtype[np.uint32]]
    heap: bytes
    source: tuple[str, bytes, int, int] = field(init=False)

    def __post_init__(self) -> None:
        e = self.envelope
        self.source = (e.host_id, e.boot_id, e.run_id, e.bucket)

    @property
    def starts(self) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        """Where in the heap each row's payload begins, shape (n,)."""
        starts = np.empty_like(self.ends)
        starts[:1] = 0
        starts[1:] = self.ends[:-1]
        return starts

    def payload(self, index: int) -> bytes:
        """One row's payload; for tools and tests, not for loops over rows."""
        start = int(self.ends[index - 1]) if index else 0
        return self.heap[start : int(self.ends[index])]

    @property
    def unix_offset_ns(self) -> int:
        """What to add to a monotonic stamp to get unix time."""
        return self.envelope.clock.unix_ns - self.envelope.clock.monotonic_ns


def encode(envelope: raw_pb2.RawBatch, layout: Layout, rows: bytes, ends: bytes, heap: bytes) -> bytes:
    """Complete an envelope with its rows and serialise it. The envelope is changed."""
    envelope.schema_version = SCHEMA_VERSION
    envelope.layout_hash = layout.hash
    envelope.row_count = len(rows) // layout.size
    envelope.rows = rows
    envelope.heap_ends = ends
    envelope.heap = heap
    return envelope.SerializeToString()


def decode(value: bytes, layout: Layout) -> Batch:
    """Parse a Kafka record's value.

    Raises:
        BatchInvalid: not a RawBatch, another schema version or layout, or sizes that contradict each other.
    """
    try:
        envelope = raw_pb2.RawBatch.FromString(value)
    except DecodeError as error:
        raise BatchInvalid(f"not a RawBatch: {error}") from None
    _check_versions(envelope, layout)
    _check_sizes(envelope, layout)
    _check_references(envelope)
    rows = np.frombuffer(envelope.rows, layout.dtype)
    ends = np.frombuffer(envelope.heap_ends, _ENDS)
    heap = envelope.heap
    _check_ends(ends, heap)
    for name in ("rows", "heap_ends", "heap"):
        envelope.ClearField(name)
    return Batch(envelope, rows, ends, heap)


def _check_versions(envelope: raw_pb2.RawBatch, layout: Layout) -> None:
    hint = "run producer and processors of the same release"
    if envelope.schema_version != SCHEMA_VERSION:
        raise BatchInvalid(f"schema version {envelope.schema_version}, this reader knows {SCHEMA_VERSION}", hint=hint)
    if envelope.layout_hash != layout.hash:
        known = f"{layout.name} {layout.hash:016x}"
        raise BatchInvalid(f"rows of layout {envelope.layout_hash:016x}, this reader knows {known}", hint=hint)


def _check_sizes(envelope: raw_pb2.RawBatch, layout: Layout) -> None:
    count = envelope.row_count
    if len(envelope.rows) != count * layout.size:
        raise BatchInvalid(f"{len(envelope.rows)} bytes of rows for {count} rows of {layout.size}")
    if len(envelope.heap_ends) != count * _ENDS.itemsize:
        raise BatchInvalid(f"{len(envelope.heap_ends)} bytes of heap ends for {count} rows")
    if not envelope.host_id or len(envelope.boot_id) != _UUID_BYTES:
        raise BatchInvalid("no host or boot id")


def _check_references(envelope: raw_pb2.RawBatch) -> None:
    for connection in envelope.connections:
        if connection.process >= len(envelope.processes):
            raise BatchInvalid(
                f"connection {connection.generation} of process {connection.process}, which is not there"
            )


def _check_ends(ends: np.ndarray[tuple[int], np.dtype[np.uint32]], heap: bytes) -> None:
    if len(ends) and (int(ends[-1]) != len(heap) or bool((ends[1:] < ends[:-1]).any())):
        raise BatchInvalid(f"payload ends do not rise to the heap's {len(heap)} bytes")
    if not len(ends) and heap:
        raise BatchInvalid(f"{len(heap)} bytes of heap without rows")
