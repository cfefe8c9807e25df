"""Block requests: bpf/disk.c to ebbflow.raw.disk.

Every interval one row for each operation of each device, whoever asked, and one for what each watched process asked
for: requests, bytes, errors, histograms of queue time, device time and size. What kernel threads write back for others
is of no process; devices without requests (zram, device mapper, md) show on the disks beneath them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from ebbflow.event_producer import Aggregate, EventProducer
from ebbflow.kernel.attach_points import tracepoints
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.kernel.maps import Map, Swapped
from ebbflow.kernel.offsets import Members

_STRUCTS = read_header(BPF_DIRECTORY / "disk.h").structs
_KEY, _IO = _STRUCTS["disk_key"].dtype, _STRUCTS["disk_io"].dtype
_ERROR_KEY, _FLIGHT_KEY = _STRUCTS["disk_error_key"].dtype, _STRUCTS["disk_flight_key"].dtype
_POINTER, _STATE = np.dtype("<u8"), np.dtype("V40")
_SIGNED, _COUNT = np.dtype("<i8"), np.dtype("<u8")
_IO_START = "block:block_io_start"
# What ends before what begins: a beginning whose end is missed would be under way for ever.
_HOOKS = (
    ("block_rq_complete", "disk_complete"),
    ("block_rq_merge", "disk_merge"),
    ("block_rq_requeue", "disk_requeue"),
    ("block_bio_backmerge", "disk_bio_merge"),
    ("block_bio_frontmerge", "disk_bio_merge"),
    ("block_split", "disk_bio_split"),
    ("block_rq_issue", "disk_issue"),
    ("block_rq_insert", "disk_insert"),
)
Array = np.ndarray[Any, Any]


class DiskProducer(EventProducer):
    """See the module's docstring."""

    name: ClassVar[str] = "disk"
    unseen: ClassVar[tuple[str, ...]] = ("unseen_issues", "unseen_completions")
    offsets: ClassVar[Members] = {
        "TASK_FLAGS": ("task_struct", "flags"),
        "RQ_QUEUE": ("request", "q"),
        "RQ_FLAGS": ("request", "cmd_flags"),
        "RQ_BYTES": ("request", "__data_len"),
        "QUEUE_DISK": ("request_queue", "disk"),
        "DISK_MAJOR": ("gendisk", "major"),
        "DISK_MINOR": ("gendisk", "first_minor"),
        "DISK_NAME": ("gendisk", "disk_name"),
        "BIO_DEVICE": ("bio", "bi_bdev"),
        "BIO_FLAGS": ("bio", "bi_opf"),
        "DEVICE_DISK": ("block_device", "bd_disk"),
    }

    def definitions(self) -> Mapping[str, int]:
        self._has_io_start = _IO_START in tracepoints()
        return {"HAS_IO_START": int(self._has_io_start), "MAX_REQUESTS": self.config.disk.max_requests}

    def attach_probes(self) -> None:
        self._devices = Swapped.of(self.program, "devices", _KEY, _IO)
        self._processes = Swapped.of(self.program, "processes", _KEY, _IO)
        self._errors = Swapped.of(self.program, "errors", _ERROR_KEY, _COUNT)
        self._flights = Map.of(self.program, "flights", _FLIGHT_KEY, _SIGNED)
        self._requests = Map(self.program.map("requests").map_fd, _POINTER, _STATE)
        for tracepoint, function in _HOOKS:
            self.program.probes.attach_raw_tracepoint(tracepoint, function)
        if self._has_io_start:
            self.program.probes.attach_raw_tracepoint("block_io_start", "disk_start")

    def aggregates(self, since_ns: int, now_ns: int) -> Iterable[Aggregate]:
        del since_ns, now_ns
        keys, io = self._devices.take()
        keys, io = with_flights(keys, io, *self._flights.items())
        yield Aggregate(kind=self.layout.kind("device"), payload=placed(keys, io))
        keys, io = self._processes.take()
        yield self._of_processes("process", keys, placed(keys, io))
        keys, counts = self._errors.take()
        yield self._of_processes("errors", keys, error_rows(keys, counts, self.layout.payload("errors")))

    def _of_processes(self, kind: str, keys: Array, payload: Array) -> Aggregate:
        return Aggregate(
            kind=self.layout.kind(kind), payload=payload, pids=keys["pid"], starts=keys["start_boottime_ns"]
        )

    def map_usage(self) -> dict[str, float]:
        return super().map_usage() | {
            "requests": self._requests.usage(),
            "devices": self._devices.usage(),
            "processes": self._processes.usage(),
            "errors": self._errors.usage(),
        }


def with_flights(keys: Array, io: Array, flight_keys: Array, flights: Array) -> tuple[Array, Array]:
    """Devices' rows with their requests in flight; a device that only has those gets a row, too.

    Args:
        keys: struct disk_key, shape (n,).
        io: struct disk_io, shape (n,).
        flight_keys: struct disk_flight_key, shape (m,).
        flights: int64, shape (m,).
    """
    if not len(flights):
        return keys, io
    rows = {place: index for index, place in enumerate(zip(*_places(keys), strict=True))}
    known = np.array([rows.get(place, -1) for place in zip(*_places(flight_keys), strict=True)])
    io["in_flight"][known[known >= 0]] = flights[known >= 0]
    alone = (known < 0) & (flights != 0)
    more_keys, more_io = np.zeros(alone.sum(), keys.dtype), np.zeros(alone.sum(), io.dtype)
    for name in ("major", "minor", "operation"):
        more_keys[name] = flight_keys[name][alone]
    more_io["in_flight"] = flights[alone]
    return np.concatenate([keys, more_keys]), np.concatenate([io, more_io])


def _places(keys: Array) -> tuple[list[int], list[int], list[int]]:
    return keys["major"].tolist(), keys["minor"].tolist(), keys["operation"].tolist()


def placed(keys: Array, io: Array) -> Array:
    """Rows that say of which device and operation they are."""
    for name in ("major", "minor", "operation"):
        io[name] = keys[name]
    return io


def error_rows(keys: Array, counts: Array, dtype: np.dtype[Any]) -> Array:
    """Rows `struct disk_errors`, shape (n,)."""
    rows = np.zeros(len(keys), dtype)
    for name in ("major", "minor", "operation", "status"):
        rows[name] = keys[name]
    rows["requests"] = counts
    return rows
