"""What the tests of tcp share: children that do known things over loopback, and what a producer says of them."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from contextlib import ExitStack

import numpy as np
import pytest

from ebbflow.config import load
from ebbflow.kernel.layout import BPF_DIRECTORY, event_layout, read_header
from ebbflow.records import decode
from ebbflow.testing.producers import attached
from ebbflow.v1 import raw_pb2
from producers.tcp import TcpProducer

LAYOUT = event_layout(BPF_DIRECTORY / "tcp.h")
_ENUMS = read_header(BPF_DIRECTORY / "tcp.h").enums
STATES = {name.removeprefix("TCP_STATE_"): number for name, number in _ENUMS["tcp_states"].items()}
US, PEER, NET = (_ENUMS["tcp_ended_by"][f"TCP_ENDED_BY_{who}"] for who in ("US", "PEER", "NET"))
CLIENT, SERVER = 1, 2
LOOPBACK = socket.inet_aton("127.0.0.1").ljust(16, b"\0")

PRELUDE = """
import errno, os, select, signal, socket, struct, sys, threading, time
LOCAL = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
def listen(family=socket.AF_INET, backlog=128):
    return socket.create_server((LOCAL[family], 0), family=family, backlog=backlog)
def pair(listener):
    client = socket.socket(listener.family); client.connect(listener.getsockname())
    return client, listener.accept()[0]
def abort(end):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); end.close()
def receive(end, size):
    while size: size -= len(end.recv(min(size, 1 << 16)))
def finish(*ends):  # the first closes first, and each sees the other's end
    ends[0].shutdown(socket.SHUT_WR); assert not ends[1].recv(1)
    ends[1].close(); assert not ends[0].recv(1); ends[0].close()
def deaf(end, on=True):  # a filter that lets nothing in
    import ctypes
    program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    if on: end.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxP", 1, ctypes.addressof(program)))
    else: end.setsockopt(socket.SOL_SOCKET, 27, 0)
def info(end):
    return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
def retransmits(end):
    return struct.unpack_from("I", info(end), 100)[0]
def ready(*values):
    print(*values, flush=True)
    return sys.stdin.readline().strip()
"""


class Child:
    """A Python program that says when it is ready, waits for a line, works, says something, waits again, and ends."""

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said = self.process.stdout.readline().split()
        self.pid = self.process.pid

    def step(self) -> list[str]:
        """Let it go on until it is ready again."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def go(self) -> list[str]:
        out, _ = self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0
        return out.split()


class Told:
    """Everything a producer published, by kind: rows with their payload."""

    def __init__(self, producer: TcpProducer) -> None:
        self.producer = producer
        self.rows = {name: [] for name in LAYOUT.names.values()}
        self.processes, self.lost = {}, 0
        self.drain()
        producer.aggregate()
        self.drain()
        producer.housekeeping()
        for item in producer.batches(everything=True):
            self._add(decode(item.value, LAYOUT.row))

    def drain(self) -> None:
        while self.producer.drain():
            pass
        self.producer.drain()

    def _add(self, batch) -> None:
        for index, row in enumerate(batch.rows):
            name = LAYOUT.names[int(row["kind"])]
            payload = np.frombuffer(batch.payload(index), LAYOUT.payload(name))[0]
            self.rows[name].append((row, payload))
        for process in batch.envelope.processes:
            self.processes[process.pid, process.start_boottime_ns] = process
        self.lost += sum(loss.events for loss in batch.envelope.losses if loss.stage != raw_pb2.Loss.STAGE_MAP)

    def of(self, name: str, role: int | None = None) -> list:
        return [
            (row, payload)
            for row, payload in self.rows[name]
            if role is None or int(payload["connection"]["role"]) == role
        ]

    def counts(self) -> dict[str, int]:
        return {name: len(rows) for name, rows in self.rows.items() if rows and name not in {"process", "alive"}}

    def total(self, field: str) -> int:
        return sum(int(payload[field]) for _, payload in self.rows["process"])


@pytest.fixture
def start():
    """Start children and producers; all of it is gone in the end."""
    with ExitStack() as stack:

        class Start:
            @staticmethod
            def child(code: str) -> Child:
                child = Child(code)
                stack.callback(child.process.communicate)
                stack.callback(child.process.kill)
                return child

            @staticmethod
            def producer(*targets: str, **flags) -> TcpProducer:
                settings = {"capture.targets": list(targets), "capture.interval_s": 300}
                settings |= {key.replace("__", "."): value for key, value in flags.items()}
                return stack.enter_context(attached(TcpProducer, load(environ={}, flags=settings).config))

            def told(self, code: str, **flags) -> Told:
                child = self.child(code)
                producer = self.producer(f"pid:{child.pid}", **flags)
                child.go()
                return Told(producer)

        yield Start()


def us(row) -> float:
    return (int(row["time_ns"]) - int(row["since_ns"])) / 1000
