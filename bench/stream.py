"""The stream layer alone: records/s through Faust and a processor that does nothing, with checkpoints and commits.

    python -m bench.stream [ROUNDS]

The topic is filled beforehand (200 MB in 4 partitions, records of 200 kB and of 10 kB); a worker process reads it from
the beginning, each round as a new consumer group. The clock runs from its first record to its last, both seen on its
own /metrics. CPU is the worker's, over the same time. Broker and worker share the machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

import httpx
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bench.figures import Figure
from ebbflow.broker import LocalKafka, free_port
from ebbflow.component import Processor, Record, Result
from ebbflow.config import Config, load
from ebbflow.stream.worker import run_processors
from ebbflow.telemetry import setup_logging

PARTITIONS = 4
TOTAL_BYTES = 200_000_000
SIZES = {"200 kB": 200_000, "10 kB": 10_000}
_TICKS = os.sysconf("SC_CLK_TCK")
_RECORDS = re.compile(r"^ebbflow_processor_records_total\{.*\} ([\d.e+]+)$", re.MULTILINE)


class Empty(Processor):
    """Takes records and gives nothing."""

    name: ClassVar[str] = "empty"
    inputs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_config(cls, config: Config) -> Self:
        del config
        return cls()

    def process(self, record: Record) -> Result:
        del record
        return Result()

    def snapshot(self) -> bytes:
        return b""

    def restore(self, state: bytes) -> None: ...


def fill(bootstrap: str, topic: str, size_bytes: int) -> int:
    """Write the input; returns how many records it has."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        future.result(20)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "queue.buffering.max.kbytes": 65536})
    count = TOTAL_BYTES // size_bytes
    for number in range(count):
        while True:
            try:
                producer.produce(topic, os.urandom(size_bytes), partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    return count


@contextmanager
def worker(bootstrap: str, topic: str, name: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A worker on the topic as a new consumer group; yields it and the address of its metrics."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.stream", "worker", bootstrap, topic, name, str(port)])
    try:
        yield process, f"http://127.0.0.1:{port}/metrics"
    finally:
        process.terminate()
        process.wait(10)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def done(client: httpx.Client, url: str) -> int:
    try:
        found = _RECORDS.search(client.get(url).text)
    except httpx.TransportError:
        return 0
    return int(float(found[1])) if found else 0


def measure(bootstrap: str, topic: str, name: str, count: int) -> tuple[float, float]:
    """Records a second, and records a second of CPU."""
    with worker(bootstrap, topic, name) as (process, url), httpx.Client(trust_env=False) as client:
        while not (first := done(client, url)):
            time.sleep(0.01)
        began_s, began_cpu_s = time.monotonic(), cpu_s(process.pid)
        while (last := done(client, url)) < count:
            if process.poll() is not None or time.monotonic() - began_s > 300:
                raise RuntimeError(f"the worker stopped at {last} of {count} records")
            time.sleep(0.02)
        seconds, used_s = time.monotonic() - began_s, cpu_s(process.pid) - began_cpu_s
        return (count - first) / seconds, (count - first) / used_s


def figures(rounds: int) -> list[Figure]:
    """Sizes take turns within each round."""
    found: dict[str, list[tuple[float, float]]] = {label: [] for label in SIZES}
    with tempfile.TemporaryDirectory() as directory:
        kafka = LocalKafka(Path(directory), free_port(), free_port())
        kafka.start()
        try:
            kafka.wait_ready()
            topics = {label: f"bench.{size}" for label, size in SIZES.items()}
            counts = {label: fill(kafka.bootstrap, topics[label], size) for label, size in SIZES.items()}
            for number in range(rounds):
                for label, topic in topics.items():
                    name = f"empty-{SIZES[label]}-{number}"
                    found[label].append(measure(kafka.bootstrap, topic, name, counts[label]))
        finally:
            kafka.stop()
    units = ("records/s", "records/s/core")
    return [
        Figure(f"stream, empty processor, {label}", [result[column] for result in results], unit)
        for label, results in found.items()
        for column, unit in enumerate(units)
    ]


def run_worker(bootstrap: str, topic: str, name: str, port: str) -> int:
    flags = {"kafka.bootstrap": bootstrap, "health.processor_port": port, "log.level": "warning"}
    config = load(flags=flags).config
    setup_logging(config.log, name)
    return run_processors([type("Empty", (Empty,), {"name": name, "inputs": (topic,)})], config)


def main() -> int:
    if sys.argv[1:2] == ["worker"]:
        return run_worker(*sys.argv[2:])
    for figure in figures(int(sys.argv[1]) if sys.argv[1:] else 3):
        print(figure.line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
