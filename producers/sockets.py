"""Socket payload and lifecycle: bpf/sockets.c to ebbflow.raw.sockets.

Drains the ring, redacts every payload, keeps the dictionaries of processes and connections, and gathers the rows of
each process bucket into RawBatches. Blind spots are said, not guessed: io_uring and 32-bit processes are counted,
sendfile and splice move the stream position without payload, buffers beyond the eighth of one call and bytes beyond
the capture limit are not copied.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import urlsplit

import numpy as np

from ebbflow.batching import BatchBuilder, Dictionaries, LossAccount, Origin, Rows
from ebbflow.clock import read_clock_point
from ebbflow.component import Batch, Producer
from ebbflow.config import CaptureConfig, Config
from ebbflow.errors import ConfigError
from ebbflow.identity import Processes, read_host
from ebbflow.kernel import selftest
from ebbflow.kernel.btf import Btf
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.kernel.loader import Program, tracepoint_has
from ebbflow.kernel.offsets import offset_flags
from ebbflow.kernel.ring import HEADER_BYTES, Ring, pages
from ebbflow.kernel.rows import Drained, rows_of, take
from ebbflow.kernel.spill import Spill
from ebbflow.kernel.targets import WATCHED_PID, Targets, parse_targets
from ebbflow.kernel.watch import Watch
from ebbflow.redaction import Redactor
from ebbflow.socket_dictionary import SocketDictionary
from ebbflow.topics import RAW_SOCKETS
from ebbflow.v1 import raw_pb2

_HEADER = read_header(BPF_DIRECTORY / "sockets.h")
ROW = _HEADER.structs["sockets_row"]
OPEN = _HEADER.structs["sockets_open"]
_KINDS = _HEADER.enums["sockets_kind"]
_DATA, _OPENED, _CLOSED, _EXITED = (_KINDS[f"SOCKETS_{name}"] for name in ("DATA", "OPEN", "CLOSE", "EXIT"))
# One drain handles at most this much, so that batches leave and signals are seen in between.
_DRAIN_BYTES = 16 << 20
_HEARTBEAT_S = 5.0
# Spreads consecutive pids over the buckets (Knuth's multiplicative hash).
_SPREAD = 2654435761
Pid = TypeVar("Pid", int, np.ndarray[Any, np.dtype[np.int64]])
# Blind spots, by the kernel program's counter.
_COUNTERS = ("sequence", "ring_lost", "map_lost", "unreadable", "io_uring_calls", "compat_calls", "unseen_bytes")


class SocketsProducer(Producer):
    """See the module's docstring.

    Args:
        targets: what to watch; nothing is watched without.
        exclude_ports: connections of these ports are never captured: Kafka's and the backend's, or the pipeline would
            observe itself for ever.
    """

    name: ClassVar[str] = "sockets"

    def __init__(self, config: Config, targets: Targets, exclude_ports: frozenset[int]) -> None:
        if not targets:
            raise ConfigError(
                "nothing to watch", hint="set capture.targets, or pass --pid, --exe, --cgroup, --port or --all"
            )
        self._capture = config.capture
        self._targets = targets
        self._exclude_ports = exclude_ports
        self._batch_bytes = config.producer.batch_bytes
        self._batch_age_s = config.producer.batch_age_s
        self._redactor = Redactor(config.redaction)
        self._losses = LossAccount()
        self._dictionaries = Dictionaries(2 * config.capture.max_connections)
        self._sockets = SocketDictionary(self._dictionaries, Processes(), self._exclude)
        self._builders = self._make_builders(config.producer.buckets)
        self._counters: dict[str, int] = dict.fromkeys(_COUNTERS, 0)
        self._invalid = 0
        self._ours = 0
        self._excluded: set[int] = set()
        self._ended: list[list[tuple[int, int, int]]] = [[] for _ in self._builders]
        self._ring_lost: dict[int, int] = {}
        self._look = False  # for what has spilled, whatever the ring looks like
        self._recursion_misses = 0
        self._first_held_s: list[float] = [0.0] * config.producer.buckets
        self._heartbeat_s = time.monotonic()

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(config, parse_targets(config.capture.targets), excluded_ports(config))

    def _make_builders(self, buckets: int) -> list[BatchBuilder]:
        host = read_host()
        origin = Origin(self.name, host.host_id, host.host_name, host.boot_id, time.time_ns())
        self.source = f"{host.host_id}/{origin.run_id}"
        return [
            BatchBuilder(origin, bucket, ROW, self._dictionaries, _clock_point, batch_bytes=self._batch_bytes)
            for bucket in range(buckets)
        ]

    def attach(self) -> None:
        self._program = Program(BPF_DIRECTORY / "sockets.c", definitions(self._capture, self._targets))
        self._watch = Watch(self._program, self._targets)
        self._ring = Ring(self._program.map("events").map_fd, self._capture.ring_bytes)
        self._spill = Spill(self._program.map("spilled"), ROW, _OPENED, largest_event_bytes(self._capture))
        self._program.set_tail("tails", 0, "sockets_messages")
        self._program.attach_raw_tracepoint("sys_exit", "sockets_exit")
        self._prove_offsets()
        self._watch.start([os.getpid()], self._exclude_ports)

    def _prove_offsets(self) -> None:
        self._watch.add(os.getpid(), WATCHED_PID)
        try:
            selftest.run(self._opened_now)
        finally:
            self._watch.forget(os.getpid())
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
            self._losses.add(raw_pb2.Loss.STAGE_INVALID, -1, drained.invalid)
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
        if self._excluded:
            drained = self._without_ours(drained)
            kinds = drained.rows["kind"]
        self._add(drained.rows, self._redact(drained))
        for index in np.flatnonzero((kinds == _CLOSED) | (kinds == _EXITED)).tolist():
            self._note_ended(drained.rows[index])
        return fill

    def _note_opened(self, drained: Drained, index: int) -> None:
        row = drained.rows[index]
        self._sockets.opened(int(row["pid"]), int(row["fd"]), int(row["generation"]), _opened(drained, index))

    def _without_ours(self, drained: Drained) -> Drained:
        """Leave out what processes of the pipeline did before the kernel was told to exclude them."""
        keep = ~np.isin(drained.rows["pid"], list(self._excluded))
        self._ours += int((~keep).sum())
        return drained.choose(keep)

    def _exclude(self, pid: int) -> None:
        self._excluded.add(pid)
        self._watch.exclude(pid)

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

    def _add(self, rows: Rows, payloads: list[bytes]) -> None:
        buckets = bucket_of(rows["pid"].astype(np.int64), len(self._builders))
        present = np.flatnonzero(np.bincount(buckets)).tolist()
        lengths = np.fromiter(map(len, payloads), np.int64, count=len(payloads))
        now_s = time.monotonic()
        for bucket in present:
            builder = self._builders[bucket]
            if not builder.events:
                self._first_held_s[bucket] = now_s
            if len(present) == 1:
                builder.add(rows, payloads, lengths)
            else:
                chosen = np.flatnonzero(buckets == bucket)
                builder.add(take(rows, chosen), [*map(payloads.__getitem__, chosen.tolist())], lengths[chosen])

    def _note_ended(self, row: np.void) -> None:
        """Nothing more can come of it; its dictionary entries stay until the batch that tells it is built."""
        pid = int(row["pid"])
        self._ended[bucket_of(pid, len(self._builders))].append((int(row["kind"]), pid, int(row["generation"])))

    def batches(self, *, everything: bool = False) -> list[Batch]:
        now_s = time.monotonic()
        due = [
            bucket
            for bucket, builder in enumerate(self._builders)
            if builder.events
            and (
                everything
                or builder.size_bytes >= self._batch_bytes
                or now_s - self._first_held_s[bucket] >= self._batch_age_s
            )
        ]
        if not due and (everything or now_s - self._heartbeat_s >= _HEARTBEAT_S):
            due = list(range(len(self._builders)))
        if due:
            self._heartbeat_s = now_s
        return [batch for bucket in due for batch in self._build(bucket)]

    def _build(self, bucket: int) -> list[Batch]:
        builder = self._builders[bucket]
        built = builder.build(self._losses.take())
        self._forget_ended(bucket)
        return [Batch(RAW_SOCKETS, builder.key, part.value, part.events, part.losses) for part in built]

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

    def give_back(self, batch: Batch, *, refused: bool) -> None:
        stage = raw_pb2.Loss.STAGE_PUBLISH if refused else raw_pb2.Loss.STAGE_BUFFER
        self._losses.restore(batch.losses)
        self._losses.add(stage, -1, batch.events)

    def housekeeping(self) -> None:
        self._look = True
        self._watch.refresh()
        self._excluded = {pid for pid in self._excluded if Path(f"/proc/{pid}").exists()}
        before = dict(self._counters)
        self._read_counters()
        self._losses.add(raw_pb2.Loss.STAGE_MAP, -1, self._counters["map_lost"] - before["map_lost"])
        misses = self._program.recursion_misses()
        self._losses.add(raw_pb2.Loss.STAGE_RECURSION, -1, misses - self._recursion_misses)
        self._recursion_misses = misses

    def _read_counters(self) -> None:
        per_cpu = self._program.map("cpus")[0]
        for cpu, counters in enumerate(per_cpu):
            before = self._ring_lost.get(cpu, 0)
            self._losses.add(raw_pb2.Loss.STAGE_RING, cpu, counters.ring_lost - before)
            self._ring_lost[cpu] = counters.ring_lost
        for name in _COUNTERS:
            self._counters[name] = sum(getattr(counters, name) for counters in per_cpu)

    def captured(self) -> int:
        return self._counters["sequence"] - self._ours

    def lost(self) -> int:
        return self._counters["ring_lost"] + self._invalid

    def held(self) -> int:
        return self._spill.waiting + sum(builder.events for builder in self._builders)

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

    def map_usage(self) -> dict[str, float]:
        """Fill of the maps that grow with the load, 0 to 1."""
        return {"events": self._ring.fill(), "connections": len(self._dictionaries) / self._capture.max_connections}

    def detach(self) -> None:
        self._program.detach()
        self._look = True

    def close(self) -> None:
        self._ring.close()
        self._program.close()


def bucket_of(pid: Pid, buckets: int) -> Pid:
    """Which of a host's buckets a process belongs to; of one pid, or of an int64 array of them."""
    return (pid * _SPREAD >> 16) % buckets


def _opened(drained: Drained, index: int) -> np.void:
    """The `struct sockets_open` behind a row."""
    start = int(drained.starts[index])
    opened: np.void = np.frombuffer(drained.data, OPEN.dtype, count=1, offset=start)[0]
    return opened


def _clock_point() -> raw_pb2.ClockPoint:
    point = read_clock_point()
    return raw_pb2.ClockPoint(
        monotonic_ns=point.monotonic_ns, unix_ns=point.unix_ns, uncertainty_ns=point.uncertainty_ns
    )


def excluded_ports(config: Config) -> frozenset[int]:
    """Ports of what the pipeline itself talks to, and those of the configuration."""
    ports = set(config.capture.exclude_ports) | {config.store.port}
    for address in config.kafka.bootstrap.split(","):
        _, _, port = address.strip().rpartition(":")
        if port.isdecimal():
            ports.add(int(port))
    for url in (config.otlp.endpoint, config.otlp.traces_endpoint):
        port_of_url = urlsplit(url).port if "//" in url else None
        if port_of_url:
            ports.add(port_of_url)
    return frozenset(ports)


def largest_event_bytes(capture: CaptureConfig) -> int:
    """What an event with its payload takes of the ring."""
    return HEADER_BYTES + ROW.size + max(capture.payload_bytes, capture.first_payload_bytes, OPEN.size)


def definitions(capture: CaptureConfig, targets: Targets) -> dict[str, int]:
    """The program's -D flags."""
    largest = max(capture.payload_bytes, capture.first_payload_bytes, 256)
    return {
        "PAYLOAD_LIMIT": 1 << (largest - 1).bit_length(),
        "PAYLOAD_BYTES": capture.payload_bytes,
        "FIRST_PAYLOAD_BYTES": capture.first_payload_bytes,
        "MAX_CONNECTIONS": capture.max_connections,
        "RING_PAGES": pages(capture.ring_bytes),
        "WATCH_ALL": int(targets.everything),
        "WATCH_PORTS": int(bool(targets.ports)),
        "HAS_GROUP_DEAD": int(tracepoint_has("sched", "sched_process_exit", "group_dead")),
        **offset_flags(Btf.load()),
    }
