"""Block requests: bpf/disk.c to ebbflow.raw.disk.

Every interval one row for each operation of each device, whoever asked, and one for what each watched process asked
for: requests, bytes, errors, histograms of queue time, device time and size. What kernel threads write back for others
is of no process; devices without requests (zram, device mapper, md) show on the disks beneath them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from ebbflow.kernel.attach_points import tracepoints
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.kernel.maps import Map, Swapped
from ebbflow.kernel.offsets import Members
from ebbflow.producing.event_producer import Aggregate, EventProducer

_STRUCTS = read_header(BPF_DIRECTORY / "disk.h").structs
_KEY, _IO = _STRUCTS["disk_key"].dtype, _STRUCTS["disk_io"].dtype
_ERROR_KEY, _UNDER_WAY = _STRUCTS["disk_error_key"].dtype, _STRUCTS["disk_under_way"].dtype
_POINTER = _COUNT = np.dtype("<u8")
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
_PLACE, _OWNER = ("major", "minor", "operation"), ("pid", "start_boottime_ns")
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
        ends = [self.shared.btf.offset(*self.offsets[name]) + 8 for name in ("RQ_QUEUE", "RQ_FLAGS", "RQ_BYTES")]
        return {
            "HAS_IO_START": int(self._has_io_start),
            "MAX_REQUESTS": self.config.disk.max_requests,
            "HEAD_BYTES": -(-max(ends) // 8) * 8,
        }

    def attach_probes(self) -> None:
        self._devices = Swapped.of(self.program, "devices", _KEY, _IO)
        self._processes = Swapped.of(self.program, "processes", _KEY, _IO)
        self._errors = Swapped.of(self.program, "errors", _ERROR_KEY, _COUNT)
        self._requests = Map.of(self.program, "requests", _POINTER, _UNDER_WAY)
        for tracepoint, function in _HOOKS:
            self.program.probes.attach_raw_tracepoint(tracepoint, function)
        if self._has_io_start:
            self.program.probes.attach_raw_tracepoint("block_io_start", "disk_start")

    def aggregates(self, since_ns: int, now_ns: int) -> Iterable[Aggregate]:
        del since_ns, now_ns
        flying = self._flying()
        keys, io = with_flights(*self._devices.take(), flying, _PLACE)
        yield Aggregate(kind=self.layout.kind("device"), payload=finished(keys, io))
        owned = flying[flying["pid"] != 0]
        keys, io = with_flights(*self._processes.take(), owned, (*_PLACE, *_OWNER))
        yield self._of_processes("process", keys, finished(keys, io))
        keys, counts = self._errors.take()
        yield self._of_processes("errors", keys, error_rows(keys, counts, self.layout.payload("errors")))

    def _flying(self) -> Array:
        """Keys of the requests that are with a driver now, as many as there are."""
        return flights(self._requests.items()[1])

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


def flights(under_way: Array) -> Array:
    """Keys, struct disk_key of shape (m,), of the requests (struct disk_under_way) that are with a driver."""
    flying = under_way[under_way["issue_ns"] != 0]
    keys = np.zeros(len(flying), _KEY)
    for name in _PLACE:
        keys[name] = flying[name]
    keys["pid"], keys["start_boottime_ns"] = flying["owner_pid"], flying["owner_start_boottime_ns"]
    return keys


def with_flights(keys: Array, io: Array, flying: Array, by: tuple[str, ...]) -> tuple[Array, Array]:
    """Rows with their requests in flight; what only has those gets a row, too.

    Args:
        keys: struct disk_key, shape (n,).
        io: struct disk_io, shape (n,).
        flying: struct disk_key of each request in flight, shape (m,).
        by: the members of a key that count.
    """
    counts = Counter(_tuples(flying, by))
    alone = sorted(counts.keys() - set(_tuples(keys, by)))
    more: Array = np.zeros(len(alone), keys.dtype)
    for index, name in enumerate(by):
        more[name] = np.array([key[index] for key in alone], more.dtype[name])
    keys, io = np.concatenate([keys, more]), np.concatenate([io, np.zeros(len(alone), io.dtype)])
    io["in_flight"] = np.array([counts[key] for key in _tuples(keys, by)], np.int32)
    return keys, io


def _tuples(keys: Array, members: tuple[str, ...]) -> list[tuple[int, ...]]:
    return list(zip(*(keys[name].tolist() for name in members), strict=True))


def finished(keys: Array, io: Array) -> Array:
    """Rows that say of which device and operation they are, and how many requests they count."""
    for name in _PLACE:
        io[name] = keys[name]
    io["requests"] = io["untimed"] + io["device_slots"].sum(axis=1, dtype=np.uint64)
    return io


def error_rows(keys: Array, counts: Array, dtype: np.dtype[Any]) -> Array:
    """Rows `struct disk_errors`, shape (n,)."""
    rows = np.zeros(len(keys), dtype)
    for name in ("major", "minor", "operation", "status"):
        rows[name] = keys[name]
    rows["requests"] = counts
    return rows
