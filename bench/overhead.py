"""What each producer costs the work that it watches, beside the tool of Debian that does the same.

    python -m bench.overhead [ROUNDS] [FEATURE ...]

Every feature has a workload that does little else than what the feature looks at (bench/work.c), so these are worst
cases. The cases take turns within each round: nothing attached, ours, the peer. Throughput is the workload's own count;
CPU is utime and stime of the producer, or of the peer, while the work ran. What the probes cost is in the throughput.

In the end all features watch an nginx that serves 10,000 requests/s, as on a busy machine: their producer's share of
the machine, and what nginx pays.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.capture import Nginx, Paced, cpu_s, nginx, producer
from bench.figures import Figure
from ebbflow.broker import LocalKafka, free_port
from ebbflow.config import KafkaConfig
from ebbflow.kafka import create_topics

SECONDS = 3.0
ALL = ("sockets", "tcp", "process", "syscalls", "cpu", "memory", "disk")
MOST_CPU_PERCENT = 3
_SOURCE = Path(__file__).with_name("work.c")
_PEER_START_S = 1.5


@dataclass(frozen=True)
class Subject:
    """A feature with its workload, and the command of the peer; `{pid}` is the workload's."""

    feature: str
    peer: tuple[str, ...]
    start_s: float = _PEER_START_S  # until the peer has attached: it says nothing
    settings: tuple[tuple[str, object], ...] = ()

    @property
    def peer_name(self) -> str:
        return self.peer[0]


SUBJECTS = (
    Subject("tcp", ("tcplife", "-p", "{pid}")),
    Subject("process", ("execsnoop",)),
    Subject("syscalls", ("syscount", "-L", "-p", "{pid}", "-i", "5")),
    Subject("cpu", ("offcputime", "-p", "{pid}")),
    Subject("memory", ("memleak-bpfcc", "-p", "{pid}", "-s", "100", "5"), 4.0, (("memory.sampling", 100),)),
    Subject("disk", ("biolatency", "-D", "5")),
)


@dataclass
class Case:
    """One entry a round."""

    per_s: list[float] = field(default_factory=list)
    cpu_percent: list[float] = field(default_factory=list)


class Workload:
    """The program, waiting for its start."""

    def __init__(self, binary: Path, kind: str) -> None:
        self.scratch = binary.with_name("scratch")
        command = [str(binary), kind, str(SECONDS), str(self.scratch)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid

    def run(self) -> float:
        """How often a second it did its thing."""
        out, _ = self._process.communicate(b"\n")
        if self._process.returncode:
            raise SystemExit(f"the workload failed with status {self._process.returncode}")
        return int(out) / SECONDS


@contextmanager
def peering(subject: Subject, pid: int) -> Iterator[int]:
    command = [word.format(pid=pid) for word in subject.peer]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=environment
    )
    try:
        time.sleep(subject.start_s)
        if process.poll() is not None:
            raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Bench:
    """One Kafka for all rounds."""

    def __init__(self, bootstrap: str, directory: Path) -> None:
        self._bootstrap = bootstrap
        self._log = directory / "producer.log"
        self._binary = directory / "work"
        subprocess.run(["gcc", "-O2", "-pthread", "-o", str(self._binary), str(_SOURCE)], check=True)
        self.cases: dict[tuple[str, str], Case] = {}

    def case(self, feature: str, name: str) -> Case:
        return self.cases.setdefault((feature, name), Case())

    def round(self, subject: Subject) -> None:
        feature = subject.feature
        self.case(feature, "base").per_s.append(self._workload(feature).run())
        work = self._workload(feature)
        with producer(self._bootstrap, [f"pid:{work.pid}"], self._log, [feature], dict(subject.settings)) as pid:
            self._measure(self.case(feature, "ours"), work, pid)
        if shutil.which(subject.peer_name):
            work = self._workload(feature)
            with peering(subject, work.pid) as pid:
                self._measure(self.case(feature, "peer"), work, pid)

    def _workload(self, feature: str) -> Workload:
        return Workload(self._binary, feature)

    @staticmethod
    def _measure(case: Case, work: Workload, watcher: int) -> None:
        before, start_s = cpu_s(watcher), time.monotonic()
        case.per_s.append(work.run())
        case.cpu_percent.append(100 * (cpu_s(watcher) - before) / (time.monotonic() - start_s))

    def everything(self, directory: Path) -> tuple[list[float], list[float], list[float]]:
        """Share of the machine that the producer of all features takes, and nginx's us a request without and with."""
        cores = os.cpu_count() or 1
        with nginx(directory) as server:
            plain = Paced(server.port)
            base_us = _nginx_us(server, plain)
            first, load = Paced(server.port), Paced(server.port)
            targets = [f"pid:{server.master}", first.target, load.target]
            with producer(self._bootstrap, targets, self._log, ALL) as pid:
                first.run(server.port)  # symbols are read once, and belong to no second of the rest
                before, start_s = cpu_s(pid), time.monotonic()
                us = _nginx_us(server, load)
                share = 100 * (cpu_s(pid) - before) / (time.monotonic() - start_s) / cores
        return [share], [base_us], [us]


def _nginx_us(server: Nginx, load: Paced) -> float:
    """CPU time of nginx's worker for one request."""
    served, worker_s = server.requests(), cpu_s(server.worker)
    load.run(server.port)
    return (cpu_s(server.worker) - worker_s) / (server.requests() - served - 1) * 1e6


def figures(rounds: int = 3, features: Sequence[str] = ()) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="ebbflow-bench-") as name:
        directory = Path(name)
        kafka = LocalKafka(directory / "kafka", free_port(), free_port())
        kafka.start()
        try:
            kafka.wait_ready()
            asyncio.run(create_topics(KafkaConfig(bootstrap=kafka.bootstrap)))
            bench = Bench(kafka.bootstrap, directory)
            for subject in SUBJECTS:
                if not features or subject.feature in features:
                    for _ in range(rounds):
                        bench.round(subject)
                    yield from _figures(bench, subject)
            if not features or "all" in features:
                yield from _everything(bench, directory, rounds)
        finally:
            kafka.stop()


def _figures(bench: Bench, subject: Subject) -> Iterator[Figure]:
    feature = subject.feature
    base, ours, peer = (bench.case(feature, name) for name in ("base", "ours", "peer"))
    yield Figure(f"{feature}_work_base", base.per_s, "per s")
    kept = [100 * a / b for a, b in zip(ours.per_s, base.per_s, strict=True)]
    if peer.per_s:
        peers = [100 * a / b for a, b in zip(peer.per_s, base.per_s, strict=True)]
        yield Figure(f"{feature}_work_kept", kept, "%", baseline=peers)
        yield Figure(f"{feature}_work_kept_{subject.peer_name}", peers, "%")
        yield Figure(f"{feature}_cpu", ours.cpu_percent, "% of a core", baseline=peer.cpu_percent)
        yield Figure(f"{feature}_cpu_{subject.peer_name}", peer.cpu_percent, "% of a core")
    else:
        yield Figure(f"{feature}_work_kept", kept, "%")
        yield Figure(f"{feature}_cpu", ours.cpu_percent, "% of a core")


def _everything(bench: Bench, directory: Path, rounds: int) -> Iterator[Figure]:
    shares, bases, with_it = [], [], []
    for _ in range(rounds):
        share, base, us = bench.everything(directory)
        shares += share
        bases += base
        with_it += us
    yield Figure("everything_cpu_at_10k_rps", shares, "% of machine", at_most=MOST_CPU_PERCENT)
    yield Figure("everything_nginx_cpu", with_it, "us/request", baseline=bases)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    number = int(arguments.pop(0)) if arguments and arguments[0].isdecimal() else 3
    for figure in figures(number, arguments):
        print(figure.line(), flush=True)
