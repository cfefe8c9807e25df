"""`ebbflow run` as its users start it, on ports of its own, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import cramjam
from e2e.harness import CHECKOUT, wait_until

from ebbflow.broker import free_port
from ebbflow.config import KafkaConfig
from ebbflow.kafka import make_consumer
from ebbflow.log_reader import read_topic
from ebbflow.run.supervision import Supervisor
from ebbflow.topics import CATALOGUE

UP_S = 90.0
STOP_S = 5.0
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass
class Run:
    """One `ebbflow run` and everything below it."""

    directory: Path
    settings: dict[str, object]
    process: subprocess.Popen[bytes] | None = None
    seen: set[int] = field(default_factory=set)

    @classmethod
    def make(cls, directory: Path) -> Self:
        bootstrap = f"127.0.0.1:{free_pair()}"
        return cls(directory, {"kafka.bootstrap": bootstrap, "store.port": free_port()})

    def command(self, *arguments: str) -> list[str]:
        flags = [word for key, value in self.settings.items() for word in ("--set", f"{key}={value}")]
        return [sys.executable, "-m", "ebbflow.cli", *flags, *arguments]

    @property
    def output(self) -> str:
        return (self.directory / "output").read_text("utf-8", "replace")

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(self.directory / "data")

    def start(self, *arguments: str) -> None:
        with (self.directory / "output").open("wb") as output:
            self.process = subprocess.Popen(
                self.command("run", "--data-dir", str(self.directory / "data"), *arguments),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=CHECKOUT,
                # A shell's background job ignores SIGINT, and so would its children.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
            )  # fmt: skip

    def wait_for(self, text: str, timeout_s: float = UP_S) -> None:
        def said() -> bool:
            assert self.process is not None
            assert self.process.poll() is None or text in self.output, f"it ended: {self.output}"
            return text in self.output

        wait_until(said, timeout_s, f"{text!r} in {self.output!r}")

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
        )

    def spans(self, *arguments: str) -> list[dict[str, Any]]:
        found = self.call("traces", "--json", "--limit", "0", *arguments)
        return [json.loads(line) for line in found.stdout.splitlines()]

    def stored(self) -> int:
        return len(self.spans())

    def pid_of(self, name: str) -> int:
        return self.supervisor.states()[name].pid

    def remember(self) -> set[int]:
        """Every process of this run, now and before."""
        assert self.process is not None
        self.seen |= {self.process.pid, *descendants(self.process.pid)}
        return self.seen

    def end(self, number: int = signal.SIGINT) -> float:
        """Send a signal; how long it took to end."""
        assert self.process is not None
        begun_s = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(4 * STOP_S)
        return time.monotonic() - begun_s

    def clean_up(self) -> None:
        """After a failed test: what is left, by its pid."""
        if self.process is not None and self.process.poll() is None:
            self.remember()
            with suppress(subprocess.TimeoutExpired):
                self.end(signal.SIGTERM)
        for pid in filter(is_alive, self.seen):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def kafka_bytes(self) -> dict[str, bytes]:
        """All that every topic holds, unpacked, by topic."""
        config = KafkaConfig(bootstrap=str(self.settings["kafka.bootstrap"]))
        return {topic.name: asyncio.run(_read(config, topic.name)) for topic in CATALOGUE}


async def _read(config: KafkaConfig, topic: str) -> bytes:
    records = read_topic(lambda: make_consumer(config), topic)
    return b"".join([_unpacked(record.value or b"") + repr(record.headers).encode() async for record in records])


def _unpacked(value: bytes) -> bytes:
    start = value.find(_ZSTD)
    return value if start < 0 else value[:start] + bytes(cramjam.zstd.decompress(value[start:]))


def free_pair() -> int:
    """A free port whose successor is free too, for Kafka's controller."""
    while True:
        port = free_port()
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 1))
            return port


def descendants(root: int) -> set[int]:
    children: dict[int, set[int]] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            children.setdefault(_stat(int(entry.name))[1], set()).add(int(entry.name))
    found, queue = set(), [root]
    while queue:
        new = children.get(queue.pop(), set()) - found
        found |= new
        queue.extend(new)
    return found


def is_alive(pid: int) -> bool:
    """A zombie is dead: whoever should reap it is none of ours."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def _stat(pid: int) -> tuple[str, int]:
    """State and parent (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return fields[0], int(fields[1])


def bpf_ids(pid: int) -> dict[str, set[int]]:
    """Ids of the BPF programs and links that a process holds, from its descriptors."""
    found: dict[str, set[int]] = {"prog": set(), "link": set()}
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(OSError):
            for line in file.read_text("ascii").splitlines():
                key, _, value = line.partition(":")
                if key in {"prog_id", "link_id"}:
                    found[key.removesuffix("_id")].add(int(value))
    return found


def bpf_ids_left(ids: dict[str, set[int]]) -> dict[str, set[int]]:
    """Those that the kernel still has; nothing is known without bpftool."""
    if shutil.which("bpftool") is None:
        return {kind: set() for kind in ids}
    return {kind: numbers & _all_bpf_ids(kind) for kind, numbers in ids.items()}


def _all_bpf_ids(kind: str) -> set[int]:
    listed = subprocess.run(["bpftool", "--json", kind, "show"], capture_output=True, check=True, timeout=20)
    return {entry["id"] for entry in json.loads(listed.stdout)}
