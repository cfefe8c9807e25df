"""What capture costs the server and the host, and whether it counts every request.

    python -m bench.capture [ROUNDS]

nginx with one worker serves an empty page; Kafka, the producer and the client share the host's cores with it. The cases
take turns within each round, so that a machine that drifts drifts for all:

    base      wrk at full speed, nothing captured
    server    the same, nginx captured
    both      the same, nginx and wrk captured
    paced     a client at 10,000 requests/s, both ends captured

Requests are nginx's own count (stub_status). CPU is utime and stime of /proc/PID/stat: of nginx's worker, which pays
for the probes, and of the producer. Whether every request was counted is read from Kafka afterwards, by the processor.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiokafka import TopicPartition
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from bench.figures import Figure
from ebbflow.broker import LocalKafka, free_port
from ebbflow.component import Record
from ebbflow.config import KafkaConfig
from ebbflow.kafka import create_topics, make_consumer
from ebbflow.topics import RAW_SOCKETS
from processors.requests import Requests

SECONDS = 5.0
PACED_RATE = 10_000
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_NGINX = """
daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "hello\\n"; }}
    location /status {{ stub_status; }}
  }}
}}
"""


@dataclass
class Case:
    """Measurements of one case, one entry a round."""

    rps: list[float] = field(default_factory=list)
    nginx_us: list[float] = field(default_factory=list)
    producer_share: list[float] = field(default_factory=list)
    producer_s_per_100k: list[float] = field(default_factory=list)
    counted: list[float] = field(default_factory=list)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


@dataclass
class Nginx:
    port: int
    master: int
    worker: int

    def requests(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=5) as answer:
            return int(re.findall(rb"^ \d+ \d+ (\d+)", answer.read(), re.MULTILINE)[0])


@contextmanager
def nginx(directory: Path) -> Iterator[Nginx]:
    port = free_port()
    conf = directory / "nginx.conf"
    conf.write_text(_NGINX.format(dir=directory, port=port))
    process = subprocess.Popen(["nginx", "-c", str(conf)])
    try:
        worker = 0
        while not worker:
            time.sleep(0.05)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            worker = int(children[0]) if children else 0
        server = Nginx(port, process.pid, worker)
        server.requests()
        yield server
    finally:
        process.terminate()
        process.wait()


@contextmanager
def producer(
    bootstrap: str,
    targets: list[str],
    log: Path,
    features: Sequence[str] = ("sockets",),
    more: Mapping[str, object] = MappingProxyType({}),
) -> Iterator[int]:
    """The pid of a producer that is watching; stopped and flushed in the end."""
    settings = {"kafka.bootstrap": bootstrap, "capture.targets": ",".join(targets), "log.format": "json", **more}
    command = [sys.executable, "-m", "ebbflow.cli", *(f"--set={key}={value}" for key, value in settings.items())]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "produce", *features], stderr=out, stdout=out)
    try:
        deadline = time.monotonic() + 60
        while b'"watching"' not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the producer did not start: {log.read_text()}")
            time.sleep(0.05)
        yield process.pid
        if process.poll() is not None:
            raise SystemExit(f"the producer ended under load: {log.read_text()}")
    finally:
        process.terminate()
        process.wait(30)


class Wrk:
    """As many requests as go through."""

    target = "exe:wrk"

    def run(self, port: int) -> None:
        command = ["wrk", "-t1", "-c16", f"-d{int(SECONDS)}s", f"http://127.0.0.1:{port}/hello"]
        subprocess.run(command, check=True, capture_output=True)


class Paced:
    """A fixed rate; the client exists before the producer, which is told its pid, and waits for the start."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-m", "bench.paced", str(port), str(PACED_RATE), str(SECONDS)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.target = f"pid:{self._process.pid}"

    def run(self, _port: int) -> None:
        out = json.loads(self._process.communicate(b"\n")[0])
        if out["rate"] < 0.98 * PACED_RATE:
            print(f"  the client reached only {out['rate']:.0f} requests/s", file=sys.stderr)


class Bench:
    """One nginx and one Kafka for all rounds."""

    def __init__(self, server: Nginx, bootstrap: str, directory: Path) -> None:
        self.server = server
        self.bootstrap = bootstrap
        self.directory = directory
        self.cases = {name: Case() for name in ("base", "server", "both", "paced_base", "paced")}
        self.offsets: dict[int, int] = {}

    def round(self) -> None:
        self._load("base", Wrk(), None)
        self._captured("server", Wrk(), both_ends=False)
        self._captured("both", Wrk(), both_ends=True)
        self._load("paced_base", Paced(self.server.port), None)
        self._captured("paced", Paced(self.server.port), both_ends=True)

    def _captured(self, name: str, load: Wrk | Paced, *, both_ends: bool) -> None:
        targets = [f"pid:{self.server.master}", *([load.target] if both_ends else [])]
        with producer(self.bootstrap, targets, self.directory / "producer.log") as pid:
            before = self.server.requests()
            self._load(name, load, pid)
            # Every look at the count is a request too; the one that ends the difference is in it.
            served = self.server.requests() - before
        counted = asyncio.run(self._count())
        self.cases[name].counted.append(counted / (served + 1))

    def _load(self, name: str, load: Wrk | Paced, pid: int | None) -> None:
        case = self.cases[name]
        served, worker, own = self.server.requests(), cpu_s(self.server.worker), cpu_s(pid) if pid else 0.0
        start = time.monotonic()
        load.run(self.server.port)
        took = time.monotonic() - start
        served = self.server.requests() - served - 1
        case.rps.append(served / SECONDS)
        case.nginx_us.append((cpu_s(self.server.worker) - worker) / served * 1e6)
        if pid:
            # What is still in the ring belongs to the load: wait until it is drained.
            time.sleep(0.5)
            spent = cpu_s(pid) - own
            case.producer_share.append(100 * spent / took)
            case.producer_s_per_100k.append(spent / served * 1e5)

    async def _count(self) -> int:
        """Server requests in what Kafka got since the last call: spans, and losses that the processor reports."""
        consumer = make_consumer(KafkaConfig(bootstrap=self.bootstrap))
        await consumer.start()
        try:
            partitions = [TopicPartition(RAW_SOCKETS, number) for number in range(KafkaConfig().partitions)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            total = 0
            for partition in partitions:
                consumer.seek(partition, self.offsets.get(partition.partition, 0))
            processors = {partition: Requests() for partition in partitions}
            while any([await consumer.position(p) < ends[p] for p in partitions]):
                for partition, messages in (await consumer.getmany(timeout_ms=500)).items():
                    for message in messages:
                        total += _server_requests(processors[partition], message)
            self.offsets = {p.partition: ends[p] for p in partitions}
            return total
        finally:
            await consumer.stop()


def _server_requests(processor: Requests, message: Any) -> int:
    record = Record(message.topic, message.partition, message.offset, message.timestamp, message.key, message.value)
    result = processor.process(record)
    servers = sum(
        span.kind == Span.SPAN_KIND_SERVER
        for output in result.outputs
        for resource in TracesData.FromString(output.value).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )
    return servers + result.counters["lost_exchanges"]


def measure(rounds: int = 3) -> Bench:
    with tempfile.TemporaryDirectory(prefix="ebbflow-bench-") as name:
        directory = Path(name)
        kafka = LocalKafka(directory / "kafka", free_port(), free_port())
        kafka.start()
        try:
            kafka.wait_ready()
            asyncio.run(create_topics(KafkaConfig(bootstrap=kafka.bootstrap)))
            with nginx(directory) as server:
                bench = Bench(server, kafka.bootstrap, directory)
                for number in range(rounds):
                    bench.round()
                    print(f"  capture round {number + 1} of {rounds} done", file=sys.stderr)
                return bench
        finally:
            kafka.stop()


def figures(rounds: int = 3) -> list[Figure]:
    cases = measure(rounds).cases
    base, server, both, paced = (cases[name] for name in ("base", "server", "both", "paced"))
    made = [
        Figure("nginx_rps_base", base.rps, "requests/s"),
        Figure("nginx_rps_server_captured", server.rps, "requests/s", baseline=base.rps),
        Figure("nginx_rps_both_captured", both.rps, "requests/s", baseline=base.rps),
        Figure("nginx_rps_kept_server_captured", _kept(server, base), "%", at_least=75),
        Figure("nginx_rps_kept_both_captured", _kept(both, base), "%", at_least=65),
        Figure("nginx_cpu_base", base.nginx_us, "us/request"),
        Figure("nginx_cpu_server_captured", server.nginx_us, "us/request", baseline=base.nginx_us),
        Figure("nginx_cpu_both_captured", both.nginx_us, "us/request", baseline=base.nginx_us),
        Figure("nginx_cpu_paced_base", cases["paced_base"].nginx_us, "us/request"),
        Figure("nginx_cpu_paced_captured", paced.nginx_us, "us/request", baseline=cases["paced_base"].nginx_us),
        Figure("producer_cpu_at_10k_rps", paced.producer_share, "% of a core", at_most=5),
        Figure("producer_cpu_per_100k_at_10k_rps", paced.producer_s_per_100k, "s"),
        Figure("producer_cpu_per_100k_server", server.producer_s_per_100k, "s"),
        Figure("producer_cpu_per_100k_both", both.producer_s_per_100k, "s"),
    ]
    for name, case in (("server", server), ("both", both), ("paced", paced)):
        counted = [100 * share for share in case.counted]
        made.append(Figure(f"requests_counted_{name}", counted, "%", at_least=100))
    return made


def _kept(case: Case, base: Case) -> list[float]:
    return [100 * with_it / without for with_it, without in zip(case.rps, base.rps, strict=True)]


if __name__ == "__main__":
    for figure in figures(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        print(figure.line())
