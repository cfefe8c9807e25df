r"""Made-up socket events, and batches of them: for tests and benchmarks, without a kernel.

    wire = Wire(generation=1 << 20)
    wire.receive(b"GET / HTTP/1.1\\r\\n\\r\\n")
    wire.send(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
    value = encode_batch(wire.events, [wire], sequence=0)

Times are monotonic ns and rise by `step_ns` with each event of a wire.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ebbflow.protocols.http1_connection import RECEIVE, SEND
from ebbflow.records import encode
from ebbflow.requests.validate import CLOSE, DATA, EOF, ERROR, EXIT, LAYOUT, SHUTDOWN
from ebbflow.v1 import raw_pb2

BOOT_ID = bytes(range(16))
UNIX_OFFSET_NS = 1_700_000_000_000_000_000
_TOTALS = struct.Struct("<QQII")


@dataclass(frozen=True, slots=True)
class Event:
    """A row with its payload; `sequence` is given by `encode_batch` where it is None."""

    time_ns: int
    generation: int
    kind: int = DATA
    direction: int = RECEIVE
    position: int = 0
    size: int = 0
    nth: int = 0
    aux: int = 0
    pid: int = 77
    payload: bytes = b""
    captured: int = 0


@dataclass(slots=True)
class Wire:
    """One connection, seen from one end."""

    generation: int
    role: raw_pb2.Role = raw_pb2.ROLE_SERVER
    origin: raw_pb2.Origin = raw_pb2.ORIGIN_SEEN
    time_ns: int = 1_000_000_000
    step_ns: int = 1000
    pid: int = 77
    family: raw_pb2.Family = raw_pb2.FAMILY_INET
    events: list[Event] = field(default_factory=list)
    moved: list[int] = field(default_factory=lambda: [0, 0])
    counts: list[int] = field(default_factory=lambda: [0, 0])

    def receive(self, data: bytes, **known: int | None) -> None:
        self._data(RECEIVE, data, **known)

    def send(self, data: bytes, **known: int | None) -> None:
        self._data(SEND, data, **known)

    def ask(self, data: bytes, **known: int | None) -> None:
        """Move bytes in the direction of requests."""
        self._data(SEND if self.role == raw_pb2.ROLE_CLIENT else RECEIVE, data, **known)

    def answer(self, data: bytes, **known: int | None) -> None:
        """Move bytes in the direction of responses."""
        self._data(RECEIVE if self.role == raw_pb2.ROLE_CLIENT else SEND, data, **known)

    def _data(self, direction: int, data: bytes, *, seen: int | None = None, size: int | None = None) -> None:
        """`seen` bytes of `data` are in the payload; `size` bytes moved, len(data) where it is None."""
        size = len(data) if size is None else size
        payload = data[:seen]
        self._add(DATA, direction, size=size, payload=payload, captured=len(payload))
        self.moved[direction] += size
        self.counts[direction] += 1

    def eof(self) -> None:
        self._add(EOF, RECEIVE)

    def shutdown(self, how: int = 1) -> None:
        self._add(SHUTDOWN, SEND, aux=how)

    def error(self, number: int) -> None:
        self._add(ERROR, RECEIVE, aux=number)

    def close(self) -> None:
        totals = _TOTALS.pack(*self.moved, *self.counts)
        self._add(CLOSE, RECEIVE, payload=totals, captured=len(totals), position=0, nth=0)

    def exit(self) -> None:
        self.time_ns += self.step_ns
        self.events.append(Event(self.time_ns, 0, EXIT, pid=self.pid))

    def _add(self, kind: int, direction: int, **values: object) -> None:
        self.time_ns += self.step_ns
        place = {"position": self.moved[direction], "nth": self.counts[direction], "pid": self.pid}
        self.events.append(Event(self.time_ns, self.generation, kind, direction, **{**place, **values}))  # type: ignore[arg-type]

    def entry(self, process: int) -> raw_pb2.Connection:
        """The dictionary's word on it."""
        return raw_pb2.Connection(
            generation=self.generation,
            process=process,
            fd=5,
            family=self.family,
            socket_type=1,
            local_address=bytes([10, 0, 0, 1]),
            local_port=8080,
            remote_address=bytes([10, 0, 0, 2]),
            remote_port=40000,
            role=self.role,
            origin=self.origin,
        )


def process_entry(pid: int) -> raw_pb2.Process:
    return raw_pb2.Process(
        pid=pid,
        start_boottime_ns=pid * 1000,
        comm="shop",
        exe="/usr/bin/shop",
        cgroup="/system.slice/shop.service",
        service_name=f"shop-{pid}",
        service_name_source=raw_pb2.SERVICE_NAME_SOURCE_OTEL_ENV,
        command_line="shop --serve",
    )


def encode_batch(
    events: Sequence[Event],
    wires: Iterable[Wire],
    *,
    sequence: int,
    run_id: int = 1,
    host_id: str = "host-1",
    unix_offset_ns: int = UNIX_OFFSET_NS,
) -> bytes:
    """A RawBatch of these events in this order, with the dictionaries for them."""
    rows = np.zeros(len(events), LAYOUT.dtype)
    for name in ("time_ns", "generation", "kind", "direction", "position", "size", "nth", "aux", "pid", "captured"):
        rows[name] = [getattr(event, name) for event in events]
    rows["tid"], rows["fd"] = rows["pid"], 5
    rows["sequence"] = np.arange(len(events))
    last_ns = max((event.time_ns for event in events), default=1_000_000_000)
    envelope = raw_pb2.RawBatch(
        feature="sockets",
        host_id=host_id,
        host_name="host-one",
        boot_id=BOOT_ID,
        run_id=run_id,
        sequence=sequence,
        clock=raw_pb2.ClockPoint(monotonic_ns=last_ns, unix_ns=last_ns + unix_offset_ns, uncertainty_ns=100),
    )
    if events:
        envelope.cpus.add(cpu=0, first=0, last=len(events) - 1, count=len(events))
    _fill_dictionaries(envelope, {event.generation for event in events}, wires)
    ends = np.cumsum([len(event.payload) for event in events], dtype=np.int64).astype("<u4").tobytes()
    return encode(envelope, LAYOUT, rows.tobytes(), ends, b"".join(event.payload for event in events))


def encode_heartbeat(monotonic_ns: int, *, sequence: int) -> bytes:
    """A RawBatch without rows: it tells the time."""
    envelope = raw_pb2.RawBatch.FromString(encode_batch([], [], sequence=sequence))
    envelope.clock.monotonic_ns = monotonic_ns
    envelope.clock.unix_ns = monotonic_ns + UNIX_OFFSET_NS
    return envelope.SerializeToString()


def _fill_dictionaries(envelope: raw_pb2.RawBatch, generations: set[int], wires: Iterable[Wire]) -> None:
    pids: list[int] = []
    for wire in wires:
        if wire.generation not in generations:
            continue
        if wire.pid not in pids:
            pids.append(wire.pid)
            envelope.processes.append(process_entry(wire.pid))
        envelope.connections.append(wire.entry(pids.index(wire.pid)))


def interleave(wires: Iterable[Wire]) -> list[Event]:
    """All events of all wires, by time."""
    return sorted((event for wire in wires for event in wire.events), key=lambda event: event.time_ns)
