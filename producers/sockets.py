"""Socket payload and lifecycle: bpf/sockets.c to ebbflow.raw.sockets.

Drains the ring, redacts every payload, keeps the dictionaries of processes and connections, and gathers the rows of
each process bucket into RawBatches. Blind spots are said, not guessed: io_uring and 32-bit processes are counted,
sendfile and splice move the stream position without payload, buffers beyond the eighth of one call and bytes beyond
the capture limit are not copied.
"""

from __future__ import annotations

import os
from typing import ClassVar, Self

import numpy as np

from ebbflow.component import Batch, DeadLetter, Producer
from ebbflow.config import CaptureConfig, Config
from ebbflow.errors import RowInvalid
from ebbflow.kernel import selftest
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.kernel.loader import Program
from ebbflow.kernel.ring import HEADER_BYTES, Ring, pages
from ebbflow.kernel.rows import Drained, rows_of
from ebbflow.kernel.spent import measured_time_ns
from ebbflow.kernel.spill import Spill
from ebbflow.kernel.targets import WATCHED_PID
from ebbflow.producing.batching import Dictionaries
from ebbflow.producing.buckets import Buckets
from ebbflow.producing.shared import Shared
from ebbflow.producing.socket_dictionary import SocketDictionary
from ebbflow.redaction import Redactor
from ebbflow.topics import RAW_SOCKETS
from ebbflow.v1 import raw_pb2

_HEADER = read_header(BPF_DIRECTORY / "sockets.h")
ROW = _HEADER.structs["sockets_row"]
OPEN = _HEADER.structs["sockets_open"]
_KINDS = _HEADER.enums["sockets_kind"]
_DATA, _OPENED, _CLOSED, _EXITED = (_KINDS[f"SOCKETS_{name}"] for name in ("DATA", "OPEN", "CLOSE", "EXIT"))
# One drain handles at most this much, so that batches leave and signals are seen in between.
_DRAIN_BYTES = 16 << 20
# Blind spots, by the kernel program's counter.
_COUNTERS = ("sequence", "ring_lost", "map_lost", "unreadable", "io_uring_calls", "compat_calls", "unseen_bytes")


class SocketsProducer(Producer):
    """See the module's docstring."""

    name: ClassVar[str] = "sockets"

    def __init__(self, config: Config, shared: Shared) -> None:
        self._capture = config.capture
        self._shared = shared
        self._redactor = Redactor(config.redaction)
        self._dictionaries = Dictionaries(2 * config.capture.max_connections)
        self._sockets = SocketDictionary(self._dictionaries, shared.processes)
        self.source = shared.source
        self._buckets = Buckets(
            shared.origin(self.name), RAW_SOCKETS, ROW, self._dictionaries, config.producer,
            on_built=self._forget_ended,
        )  # fmt: skip
        self._counters: dict[str, int] = dict.fromkeys(_COUNTERS, 0)
        self._invalid = 0
        self._letters: list[DeadLetter] = []
        self._ours = 0
        self._ended: list[list[tuple[int, int, int]]] = [[] for _ in range(config.producer.buckets)]
        self._ring_lost: dict[int, int] = {}
        self._look = False  # for what has spilled, whatever the ring looks like
        self._recursion_misses = 0

    @classmethod
    def from_config(cls, config: Config, shared: Shared) -> Self:
        return cls(config, shared)

    def attach(self) -> None:
        flags = definitions(self._capture) | self._shared.definitions()
        self._program = Program(BPF_DIRECTORY / "sockets.c", flags)
        self._ring = Ring(self._program.map("events").map_fd, self._capture.ring_bytes)
        self._spill = Spill(self._program.map("spilled"), ROW, _OPENED, largest_event_bytes(self._capture))
        self._program.set_tail("tails", 0, "sockets_messages")
        self._program.probes.attach_raw_tracepoint("sys_exit", "sockets_exit")
        self._prove_offsets()

    def _prove_offsets(self) -> None:
        self._shared.watch.add(os.getpid(), WATCHED_PID)
        try:
            selftest.run(self._opened_now)
        finally:
            self._shared.watch.forget(os.getpid())
            self._ours += len(self._read().rows)

    def _opened_now(self) -> list[np.void]:
        drained = self._read()
        self._ours += len(drained.rows)
        mine = (drained.rows["kind"] == _OPENED) & (drained.rows["pid"] == os.getpid())
        return [_opened(drained, index) for index in np.flatnonzero(mine).tolist()]

    def _read(self) -> Drained:
        drained = rows_of(self._ring.read(_DRAIN_BYTES), ROW)
        if drained.invalid:
            self._invalid += drained.invalid
            reason = "records of the kernel program that make no sense"
            self._letters.append(DeadLetter(RowInvalid.code, reason, drained.rejected, drained.invalid))
            self._buckets.losses.add(raw_pb2.Loss.STAGE_INVALID, -1, drained.invalid)
        return drained

    def drain(self) -> float:
        fill = self._ring.fill()
        look, self._look = self._look or self._spill.may_hold(self._ring), False
        drained = self._read()
        if look:
            drained = self._spill.around(drained, self._ring)
        if not len(drained.rows):
            return fill
        kinds = drained.rows["kind"]
        opened = np.flatnonzero(kinds == _OPENED).tolist()
        for index in opened:
            self._note_opened(drained, index)
        if self._shared.watch.excluded:
            drained = self._without_ours(drained)
            kinds = drained.rows["kind"]
        self._buckets.add(drained.rows, self._redact(drained))
        for index in np.flatnonzero((kinds == _CLOSED) | (kinds == _EXITED)).tolist():
            self._note_ended(drained.rows[index])
        return fill

    def _note_opened(self, drained: Drained, index: int) -> None:
        row = drained.rows[index]
        self._sockets.opened(int(row["pid"]), int(row["fd"]), int(row["generation"]), _opened(drained, index))

    def _without_ours(self, drained: Drained) -> Drained:
        """Leave out what processes of the pipeline did before the kernel was told to exclude them."""
        keep = ~np.isin(drained.rows["pid"], list(self._shared.watch.excluded))
        self._ours += int((~keep).sum())
        return drained.choose(keep)

    def _redact(self, drained: Drained) -> list[bytes]:
        """Payloads that may leave. What opens a connection is in the dictionaries; what closes one is numbers."""
        kinds = drained.rows["kind"]
        data = np.flatnonzero(kinds == _DATA)
        if len(data) == len(kinds):
            return self._redact_data(drained)
        payloads = [b""] * len(kinds)
        for index in np.flatnonzero(kinds == _CLOSED).tolist():
            payloads[index] = drained.data[drained.starts[index] : drained.ends[index]]
        for index, payload in zip(data.tolist(), self._redact_data(drained.choose(data)), strict=True):
            payloads[index] = payload
        return payloads

    def _redact_data(self, drained: Drained) -> list[bytes]:
        rows = drained.rows
        streams = rows["generation"] << np.uint64(1) | rows["direction"]
        columns = (drained.starts, drained.ends, streams, rows["position"], rows["size"])
        return self._redactor.redact(drained.data, *(column.tolist() for column in columns))

    def _note_ended(self, row: np.void) -> None:
        """Nothing more can come of it; its dictionary entries stay until the batch that tells it is built."""
        pid = int(row["pid"])
        self._ended[self._buckets.of(pid)].append((int(row["kind"]), pid, int(row["generation"])))

    def batches(self, *, everything: bool = False, pressure: float = 0.0) -> list[Batch]:
        return self._buckets.batches(everything=everything, pressure=pressure)

    def _forget_ended(self, bucket: int) -> None:
        for kind, pid, generation in self._ended[bucket]:
            if kind == _CLOSED:
                self._sockets.closed(pid, generation)
                self._redactor.forget((generation << 1, generation << 1 | 1))
            else:
                self._redactor.forget(
                    stream for ended in self._sockets.exited(pid) for stream in (ended << 1, ended << 1 | 1)
                )
        self._ended[bucket].clear()

    def dead_letters(self) -> list[DeadLetter]:
        letters, self._letters = self._letters, []
        return letters

    def give_back(self, batch: Batch, *, refused: bool) -> None:
        self._buckets.give_back(batch, refused=refused)

    def housekeeping(self) -> None:
        self._look = True
        before = dict(self._counters)
        self._read_counters()
        losses = self._buckets.losses
        losses.add(raw_pb2.Loss.STAGE_MAP, -1, self._counters["map_lost"] - before["map_lost"])
        misses = self._program.recursion_misses()
        losses.add(raw_pb2.Loss.STAGE_RECURSION, -1, misses - self._recursion_misses)
        self._recursion_misses = misses

    def _read_counters(self) -> None:
        per_cpu = self._program.map("cpus")[0]
        for cpu, counters in enumerate(per_cpu):
            before = self._ring_lost.get(cpu, 0)
            self._buckets.losses.add(raw_pb2.Loss.STAGE_RING, cpu, counters.ring_lost - before)
            self._ring_lost[cpu] = counters.ring_lost
        for name in _COUNTERS:
            self._counters[name] = sum(getattr(counters, name) for counters in per_cpu)

    def captured(self) -> int:
        return self._counters["sequence"] - self._ours

    def lost(self) -> int:
        return self._counters["ring_lost"] + self._invalid

    def held(self) -> int:
        return self._spill.waiting + self._buckets.held

    def losses_by_cpu(self) -> dict[tuple[str, int], int]:
        return {("ring", cpu): lost for cpu, lost in self._ring_lost.items()}

    def blind_spots(self) -> dict[str, int]:
        """What went by without being seen, since the start."""
        return {
            "io_uring_calls": self._counters["io_uring_calls"],
            "compat_calls": self._counters["compat_calls"],
            "unseen_bytes": self._counters["unseen_bytes"],
            "unreadable_payloads": self._counters["unreadable"],
            "untracked_connections": self._counters["map_lost"],
            "skipped_recursions": self._recursion_misses,
        }

    def program_time_ns(self) -> int | None:
        return measured_time_ns(self._program)

    def map_usage(self) -> dict[str, float]:
        """Fill of the maps that grow with the load, 0 to 1."""
        return {"events": self._ring.fill(), "connections": len(self._dictionaries) / self._capture.max_connections}

    def detach(self) -> None:
        self._program.detach()
        self._look = True

    def close(self) -> None:
        if hasattr(self, "_ring"):
            self._ring.close()
        if hasattr(self, "_program"):
            self._program.close()


def _opened(drained: Drained, index: int) -> np.void:
    """The `struct sockets_open` behind a row."""
    start = int(drained.starts[index])
    opened: np.void = np.frombuffer(drained.data, OPEN.dtype, count=1, offset=start)[0]
    return opened


def largest_event_bytes(capture: CaptureConfig) -> int:
    """What an event with its payload takes of the ring."""
    return HEADER_BYTES + ROW.size + max(capture.payload_bytes, capture.first_payload_bytes, OPEN.size)


def definitions(capture: CaptureConfig) -> dict[str, int]:
    """The program's own -D flags."""
    largest = max(capture.payload_bytes, capture.first_payload_bytes, 256)
    return {
        "PAYLOAD_LIMIT": 1 << (largest - 1).bit_length(),
        "PAYLOAD_BYTES": capture.payload_bytes,
        "FIRST_PAYLOAD_BYTES": capture.first_payload_bytes,
        "MAX_CONNECTIONS": capture.max_connections,
        "RING_PAGES": pages(capture.ring_bytes),
    }
