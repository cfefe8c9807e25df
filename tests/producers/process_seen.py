"""For tests of the producer `process`: children that do known things, and what was told of them."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from ebbflow.config import load
from ebbflow.kernel.event_rows import event_batch
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.testing.producers import attached
from producers.process import ProcessProducer

FLAGS = {
    name.removeprefix("PROCESS_"): bit
    for name, bit in read_header(BPF_DIRECTORY / "process.h").enums["process_flags"].items()
}
MEMORY = Path("/sys/fs/cgroup/memory")
TRUE = shutil.which("true") or "/bin/true"
PRELUDE = """
import ctypes, os, signal, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def run(*argv):
    return os.waitpid(os.posix_spawn(argv[0], argv, os.environ), 0)[1]
def fork(act):
    pid = os.fork()
    if not pid:
        act()
        os._exit(0)
    return os.wait4(pid, 0)
def ready(*values):
    print(*values, flush=True)
    return sys.stdin.readline().strip()
"""


class Child:
    """A Python program that says when it is ready, waits for a line, works, says what it knows, and ends."""

    def __init__(self, code: str, **options) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        self.pid = self.process.pid
        self.said = self.process.stdout.readline().split()

    def go(self, line: str = "") -> list[str]:
        out, _ = self.process.communicate(f"{line}\n", timeout=60)
        return out.split()


class Told:
    """All that a producer published, decoded: rows with their payload's struct, in the order of time."""

    def __init__(self, producer: ProcessProducer) -> None:
        self.rows, self.heads, self.tails, self.processes, self.bytes = [], [], [], {}, b""
        layout = producer.layout
        while producer.drain():
            pass
        producer.housekeeping()
        found = []
        for item in producer.batches(everything=True):
            batch = event_batch(item.value, layout)
            assert not batch.letters
            self.bytes += item.value
            for process in batch.envelope.processes:
                self.processes[process.pid, process.start_boottime_ns] = process
            found += [(row, batch.payload(index)) for index, row in enumerate(batch.rows)]
        self.kinds = Counter()
        for row, payload in sorted(found, key=lambda pair: int(pair[0]["time_ns"])):
            name = layout.names[int(row["kind"])]
            dtype = layout.heads.get(int(row["kind"]))
            self.kinds[name] += 1
            self.rows.append((name, row))
            self.heads.append(np.frombuffer(payload, dtype, count=1)[0] if dtype is not None else None)
            self.tails.append(payload[dtype.itemsize :] if dtype is not None else b"")
        assert producer.captured() == producer.lost() + len(self.rows)

    def of(self, kind: str, pid: int | None = None) -> list:
        """(row, struct, what follows)"""
        return [
            (row, head, tail)
            for (name, row), head, tail in zip(self.rows, self.heads, self.tails, strict=True)
            if name == kind and pid in (None, int(row["pid"]))
        ]

    def argv(self, head, tail: bytes) -> list[bytes]:
        return tail[int(head["filename_bytes"]) + int(head["interpreter_bytes"]) :].split(b"\0")

    def process(self, row):
        return self.processes[int(row["pid"]), int(row["start_boottime_ns"])]


def flags_of(row) -> set[str]:
    return {name for name, bit in FLAGS.items() if int(row["flags"]) & bit}


@pytest.fixture
def watch():
    def start(*targets: str, **flags) -> ProcessProducer:
        settings = {"capture.targets": list(targets)} | {key.replace("__", "."): value for key, value in flags.items()}
        producer = stack.enter_context(attached(ProcessProducer, load(environ={}, flags=settings).config))
        producer.drain()
        return producer

    with ExitStack() as stack:
        yield start


@pytest.fixture
def child():
    """Start children; all are gone after the test."""
    started = []

    def start(code: str, **options) -> Child:
        started.append(Child(code, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


@pytest.fixture
def told(watch, child):
    def work(code: str, line: str = "", **flags) -> tuple[Told, Child]:
        working = child(code)
        producer = watch(f"pid:{working.pid}", **flags)
        working.said = working.go(line)
        return Told(producer), working

    return work


@contextmanager
def memory_cgroup(name: str):
    """A cgroup of version 1 or 2 where memory can be limited, of this test's own."""
    root = MEMORY if (MEMORY / "cgroup.procs").exists() else Path("/sys/fs/cgroup")
    directory = root / f"ebbflow-test-{os.getpid()}" / name
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield directory
    deadline = time.monotonic() + 10
    while (directory / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    directory.rmdir()
    directory.parent.rmdir()


def tool(name: str, *arguments: str) -> subprocess.Popen:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (libbpf-tools)")
    # A pipe would be filled before anything is seen.
    command = ["stdbuf", "-oL", path, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)


def lines_until(process: subprocess.Popen, wanted: int, has: str) -> list[str]:
    """What a tool says, to the end of what is expected of it."""
    lines: list[str] = []
    while len([line for line in lines if has in line]) < wanted:
        line = process.stdout.readline()
        assert line, "the tool ended"
        lines.append(line)
    process.send_signal(signal.SIGINT)
    return lines + process.communicate(timeout=10)[0].splitlines()


def wait_attached(process: subprocess.Popen, tracepoint: str, seen: int) -> None:
    deadline = time.monotonic() + 20
    while programs_on(tracepoint) <= seen:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def programs_on(tracepoint: str) -> int:
    done = subprocess.run(["bpftool", "prog", "list"], capture_output=True, text=True, check=True)
    return done.stdout.count(tracepoint)
