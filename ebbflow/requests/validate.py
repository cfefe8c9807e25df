"""Which rows of a batch keep to the contract of bpf/sockets.h. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ebbflow.component import DeadLetter
from ebbflow.errors import RowInvalid
from ebbflow.kernel.layout import BPF_DIRECTORY, Layout, read_header
from ebbflow.records import Batch

_HEADER = read_header(BPF_DIRECTORY / "sockets.h")
LAYOUT: Layout = _HEADER.structs["sockets_row"]
CLOSE_LAYOUT: Layout = _HEADER.structs["sockets_close"]
_KINDS = _HEADER.enums["sockets_kind"]
DATA, OPEN, CLOSE = _KINDS["SOCKETS_DATA"], _KINDS["SOCKETS_OPEN"], _KINDS["SOCKETS_CLOSE"]
SHUTDOWN, EOF = _KINDS["SOCKETS_SHUTDOWN"], _KINDS["SOCKETS_EOF"]
ERROR, EXIT = _KINDS["SOCKETS_ERROR"], _KINDS["SOCKETS_EXIT"]
_OPEN_BYTES = _HEADER.structs["sockets_open"].size
_LARGEST_POSITION = 1 << 62
_CPU_MASK = 0xFF
Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationLimits:
    """Attributes:
    future_ns: how far a row's time may be ahead of its batch's clock point.
    past_ns: how far behind; the producer's buffer bounds it.
    single_dead_letters: bad rows of a batch that get a dead letter each; the rest share one.
    """

    future_ns: int = 5_000_000_000
    past_ns: int = 6 * 3600 * 1_000_000_000
    single_dead_letters: int = 32


def find_invalid(batch: Batch, limits: ValidationLimits) -> dict[str, Bools]:
    """Reasons with the rows they hold for, each of shape (n,); rules that hold for no row are left out."""
    rows = batch.rows
    kind = rows["kind"]
    payload = (batch.ends - batch.starts).astype(np.int64)
    is_data, is_open, is_close, is_exit = (kind == which for which in (DATA, OPEN, CLOSE, EXIT))
    rules = {
        "unknown kind": (kind < DATA) | (kind > EXIT),
        "unknown direction": rows["direction"] > 1,
        "no process": rows["pid"] == 0,
        "no connection": (rows["generation"] == 0) & ~is_exit,
        "data without bytes": is_data & (rows["size"] == 0),
        "more captured than moved": is_data & (rows["captured"] > rows["size"]),
        "more payload than captured": payload > rows["captured"],
        "position out of range": rows["position"] > _LARGEST_POSITION,
        "payload does not fit the kind": ~_payload_fits(payload, is_data, is_open, is_close),
        "time out of range": _is_out_of_time(rows["time_ns"], batch.envelope.clock.monotonic_ns, limits),
        "sequence out of its CPU's range": _is_out_of_sequence(batch),
    }
    return {reason: bad for reason, bad in rules.items() if bad.any()}


def _payload_fits(payload: Numbers, is_data: Bools, is_open: Bools, is_close: Bools) -> Bools:
    structs = (is_open & (payload == _OPEN_BYTES)) | (is_close & (payload == CLOSE_LAYOUT.size))
    return np.asarray(is_data | structs | (payload == 0))


def _is_out_of_time(times: npt.NDArray[np.uint64], clock_ns: int, limits: ValidationLimits) -> Bools:
    behind = np.uint64(max(0, clock_ns - limits.past_ns))
    return (times > np.uint64(clock_ns + limits.future_ns)) | (times < behind)


def _is_out_of_sequence(batch: Batch) -> Bools:
    """Rows name the low 8 bits of their CPU: CPUs that share them share a range."""
    first = np.full(_CPU_MASK + 1, np.iinfo(np.uint64).max, np.uint64)
    last = np.zeros(_CPU_MASK + 1, np.uint64)
    for cpu in batch.envelope.cpus:
        low = cpu.cpu & _CPU_MASK
        first[low] = min(int(first[low]), cpu.first)
        last[low] = max(int(last[low]), cpu.last)
    sequence, low_cpu = batch.rows["sequence"], batch.rows["cpu"]
    return np.asarray((sequence < first[low_cpu]) | (sequence > last[low_cpu]))


def dead_letters(batch: Batch, invalid: dict[str, Bools], limits: ValidationLimits) -> Iterator[DeadLetter]:
    """The bad rows with their payload, each for its first reason."""
    first_reason: dict[int, str] = {}
    for reason, bad in invalid.items():
        for index in np.flatnonzero(bad).tolist():
            first_reason.setdefault(index, reason)
    indices = sorted(first_reason)
    single, rest = indices[: limits.single_dead_letters], indices[limits.single_dead_letters :]
    for index in single:
        yield DeadLetter(RowInvalid.code, f"row {index}: {first_reason[index]}", _original(batch, index))
    if rest:
        reasons = ", ".join(sorted({first_reason[index] for index in rest}))
        yield DeadLetter(RowInvalid.code, f"{len(rest)} more rows: {reasons}", batch.rows[rest].tobytes(), len(rest))


def _original(batch: Batch, index: int) -> bytes:
    return batch.rows[index : index + 1].tobytes() + batch.payload(index)
