"""One producer of any feature on this kernel: watch one process, let it work, take what was published."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from vm.checks import Feature, Seen, Workload

from ebbflow.component import Producer
from ebbflow.config import load
from ebbflow.kernel.attached import owner
from ebbflow.kernel.layout import BPF_DIRECTORY, Layout, event_layout, read_header
from ebbflow.records import decode
from ebbflow.testing.producers import attached

# All has come when so many rounds brought nothing; a feature that has always something to tell gets the second figure.
_QUIET_ROUNDS, _MOST_ROUNDS = 3, 8
_ROUND_S = 0.2


@dataclass(slots=True)
class Worker:
    """A process that waits for a word, works, and stays until it is let go: what it is can be looked up meanwhile."""

    pid: int
    commands: int
    answers: int

    def expect(self, answer: bytes) -> None:
        if os.read(self.answers, 1) != answer:
            raise RuntimeError("the workload failed")

    def work(self) -> None:
        os.write(self.commands, b"w")
        self.expect(b"d")

    def end(self) -> None:
        os.close(self.commands)
        os.waitpid(self.pid, 0)
        os.close(self.answers)


@contextmanager
def working(workload: Workload) -> Iterator[Worker]:
    """A child that runs the workload when it is told to."""
    commands_in, commands_out = os.pipe()
    answers_in, answers_out = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(commands_out)
        _serve(workload, commands_in, answers_out)
    os.close(commands_in)
    os.close(answers_out)
    worker = Worker(pid, commands_out, answers_in)
    try:
        worker.expect(b"r")
        yield worker
    finally:
        worker.end()


def _serve(workload: Workload, commands: int, answers: int) -> NoReturn:
    """The child's life: as work.c does it."""
    status = 1
    try:
        if isinstance(workload, Path):
            os.set_inheritable(commands, True)
            os.set_inheritable(answers, True)
            os.execv(workload, [workload.name, str(commands), str(answers)])
        os.write(answers, b"r")
        if os.read(commands, 1):
            workload()
            os.write(answers, b"d")
            os.read(commands, 1)
        status = 0
    finally:
        os._exit(status)


@dataclass(frozen=True, slots=True)
class Decoder:
    """How a feature's batches are read: names of its kinds in lower case, and what follows a row of each."""

    layout: Layout
    names: dict[int, str]
    heads: dict[int, np.dtype[np.void]]

    @classmethod
    def of(cls, feature: str) -> Decoder:
        """By its header; `sockets` has rows of its own."""
        path = BPF_DIRECTORY / f"{feature}.h"
        if feature != "sockets":
            events = event_layout(path)
            return cls(events.row, events.names, events.heads)
        header = read_header(path)
        kinds = header.enums["sockets_kind"].items()
        names = {number: name.lower().removeprefix("sockets_") for name, number in kinds}
        return cls(header.structs["sockets_row"], names, {})

    def read(self, value: bytes) -> Iterator[Seen]:
        """The rows of a batch."""
        batch = decode(value, self.layout)
        for index, row in enumerate(batch.rows):
            kind, payload = int(row["kind"]), batch.payload(index)
            dtype = self.heads.get(kind)
            head = np.frombuffer(payload, dtype, count=1)[0] if dtype is not None else None
            yield Seen(self.names[kind], row, head)


def observe(kind: type[Producer], feature: Feature) -> tuple[list[Seen], list[str]]:
    """All rows that a producer publishes about the feature's workload, and where it has attached programs."""
    decoder = Decoder.of(feature.name)
    with working(feature.workload) as worker:
        settings = {"capture.targets": [f"pid:{worker.pid}"], "capture.interval_s": 0.1, "redaction.enabled": False}
        config = load(environ={}, flags=settings | dict(feature.settings)).config
        with attached(kind, config) as producer:
            producer.housekeeping()
            worker.work()
            seen = [seen for value in drained(producer) for seen in decoder.read(value)]
            return seen, hooks()


def hooks() -> list[str]:
    """Kind and target of what this process has attached to the kernel, as the kernel tells it."""
    places = {(one.kind, one.target) for one in owner(os.getpid()).attachments if not one.target.startswith("/")}
    return [f"{kind} {target}" for kind, target in sorted(places)]


def drained(producer: Producer) -> Iterator[bytes]:
    """Batches until nothing comes any more."""
    quiet = 0
    for _ in range(_MOST_ROUNDS):
        while producer.drain():
            pass
        producer.housekeeping()
        batches = producer.batches(everything=True)
        yield from (batch.value for batch in batches)
        quiet = 0 if any(batch.events for batch in batches) else quiet + 1
        if quiet == _QUIET_ROUNDS:
            return
        time.sleep(_ROUND_S)
