"""How many events a second become RawBatches, by the size at which a batch is flushed.

    python -m bench.flush [ROUNDS]

Rows of struct event_row with 40 bytes of payload, 512 to an `add` as a busy ring gives them, encoded by BatchBuilder
with the dictionary of their 64 processes; the figure is events per second of processor time. Small batches pay for
their envelope more often: `bytes an event` says how much.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import orjson

from bench.figures import Figure
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.producing.batching import BatchBuilder, Ends, Origin, Rows
from ebbflow.v1 import raw_pb2

FLUSH_BYTES = (10_000, 30_000, 100_000, 300_000, 900_000)
EVENTS = 131_072
TO_AN_ADD = 512
PROCESSES = 64
PAYLOAD_BYTES = 40
ROW = read_header(BPF_DIRECTORY / "event.h").structs["event_row"]


class Processes:
    """The dictionary that every batch carries: whoever its rows are of."""

    def __init__(self) -> None:
        self._known = {
            pid: raw_pb2.Process(
                pid=pid,
                start_boottime_ns=pid * 1_000_000_007,
                comm="worker",
                exe="/usr/bin/worker",
                cgroup=f"/system.slice/worker-{pid}.service",
                service_name="worker",
                command_line="worker --listen 127.0.0.1:8080 --threads 4",
            )
            for pid in range(1, PROCESSES + 1)
        }

    def fill(self, envelope: raw_pb2.RawBatch, rows: Rows, _heap: bytes, _ends: Ends) -> None:
        envelope.processes.extend(self._known[pid] for pid in np.unique(rows["pid"]).tolist())


def rows_and_payloads() -> tuple[Rows, list[bytes], Ends]:
    rows = np.zeros(TO_AN_ADD, ROW.dtype)
    rows["time_ns"] = rows["since_ns"] = np.arange(TO_AN_ADD) * 1000 + 10**12
    rows["sequence"] = np.arange(TO_AN_ADD)
    rows["pid"] = 1 + np.arange(TO_AN_ADD) % PROCESSES
    rows["kind"], rows["captured"], rows["comm"] = 1, PAYLOAD_BYTES, b"worker"
    payload = np.random.default_rng(1).integers(0, 256, (TO_AN_ADD, PAYLOAD_BYTES), np.uint8)
    return rows, [one.tobytes() for one in payload], np.full(TO_AN_ADD, PAYLOAD_BYTES)


def build_all(flush_bytes: int) -> tuple[float, float]:
    """Events per second of processor time, and bytes an event."""
    clock = raw_pb2.ClockPoint(monotonic_ns=10**12, unix_ns=10**18, uncertainty_ns=100)
    origin = Origin("bench", "0123456789abcdef0123456789abcdef", Path(__file__).stem, bytes(16), 1)
    builder = BatchBuilder(origin, 0, ROW, Processes(), lambda: clock, batch_bytes=flush_bytes)
    rows, payloads, lengths = rows_and_payloads()
    size = events = 0
    started = time.process_time()
    while events < EVENTS:
        builder.add(rows, payloads, lengths)
        if builder.size_bytes >= flush_bytes:
            built = builder.build()
            size += sum(len(one.value) for one in built)
            events += sum(one.events for one in built)
    return events / (time.process_time() - started), size / events


def figures(rounds: int = 3) -> list[Figure]:
    """Sizes take turns within each round."""
    found: dict[int, list[tuple[float, float]]] = {flush_bytes: [] for flush_bytes in FLUSH_BYTES}
    for _ in range(rounds):
        for flush_bytes, measured in found.items():
            measured.append(build_all(flush_bytes))
    rates = [
        Figure(f"flush at {flush_bytes:,} bytes", [rate for rate, _ in measured], "events/s/core")
        for flush_bytes, measured in found.items()
    ]
    sizes = [
        Figure(f"record at {flush_bytes:,} bytes", [size for _, size in measured], "bytes an event")
        for flush_bytes, measured in found.items()
    ]
    return rates + sizes


if __name__ == "__main__":
    made = figures(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    print(orjson.dumps([figure.to_json() for figure in made], option=orjson.OPT_INDENT_2).decode())
