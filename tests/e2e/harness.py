"""The whole pipeline as its users run it: every part a child process of the real command, on ports of its own.

    with Pipeline(directory) as pipeline:
        pipeline.start("kafka", "store", "processor", "sink")
        pipeline.producer(f"pid:{server.pid}")
        ...
        pipeline.wait_settled()
        spans = pipeline.spans()

Everything is waited for by what it says or answers. Logs are files; `Pipeline.end` ends what is left by its pid and
fails when any log holds a traceback.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from confluent_kafka.admin import AdminClient

from ebbflow.broker import LocalKafka, free_port
from ebbflow.config import KafkaConfig
from ebbflow.errors import EbbflowError
from ebbflow.kafka import create_topics, make_consumer
from ebbflow.ledger import Ledger
from ebbflow.ledger_reader import read_ledger
from ebbflow.log_reader import read_topic

CHECKOUT = Path(__file__).parents[2]
START_S = 30.0
STOP_S = 10.0
# The producer writes its side of the ledger once a second: what holds for longer than that is no coincidence.
_SETTLED_S = 1.3
_LOG_TAIL = 3000
READY = {
    "producer": '"event":"watching"',
    "processor": '"event":"processing"',
    "sink": '"event":"sink runs"',
    "store": '"event":"store listening"',
}


def wait_until(condition: Callable[[], Any], timeout_s: float = START_S, what: str = "it") -> Any:
    """Look until it holds; what the condition gave."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(0.05)
    return found


@dataclass
class Part:
    """A child process and its log (standard output and error)."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, name: str, command: Iterable[str], directory: Path, environment: Mapping[str, str] = {}) -> Self:
        log = directory / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=CHECKOUT,
                env={**os.environ, "EBBFLOW_COMPONENT": name, **environment},
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, text: str, timeout_s: float = START_S, *, after: int = 0) -> None:
        """Until the log says so, behind its first `after` characters."""

        def said() -> bool:
            assert self.running or text in self.text[after:], f"{self.name} ended: {self.text[-_LOG_TAIL:]}"
            return text in self.text[after:]

        wait_until(said, timeout_s, f"{self.name} saying {text!r}; it said {self.text[-_LOG_TAIL:]!r}")

    def hints(self) -> int:
        """Warnings with a hint so far: one for each thing that is in the way, however long it lasts."""
        return sum('"level":"warning"' in line and "hint" in line for line in self.text.splitlines())

    def end(self, number: int = signal.SIGTERM, timeout_s: float = STOP_S) -> int:
        """Send a signal and wait; the exit status."""
        if self.running:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        self.end(signal.SIGKILL)


class Pipeline:
    """One Kafka, and parts that come and go.

    Args:
        directory: of logs, Kafka's data and the store.
        settings: dotted key to value, for every part.
    """

    def __init__(self, directory: Path, settings: Mapping[str, object] = {}) -> None:
        self.directory = directory
        self.broker = LocalKafka(directory / "kafka", free_port(), free_port(), heap="384m")
        self.store_port = free_port()
        self.settings: dict[str, object] = {
            "kafka.bootstrap": self.broker.bootstrap,
            "store.port": self.store_port,
            "store.path": directory / "store.duckdb",
            "stream.session_timeout_s": 6,
            **settings,
        }
        self.parts: list[Part] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def kafka_config(self) -> KafkaConfig:
        return KafkaConfig(bootstrap=self.broker.bootstrap)

    def command(self, *arguments: str, settings: Mapping[str, object] = {}) -> list[str]:
        assignments = {**self.settings, **settings}
        flags = [word for key, value in assignments.items() for word in ("--set", f"{key}={value}")]
        return [sys.executable, "-m", "ebbflow.cli", *flags, *arguments]

    def run(self, *arguments: str, check: bool = True, **settings: object) -> subprocess.CompletedProcess[str]:
        """A command that ends by itself; settings are written with two underscores for the dot."""
        command = self.command(*arguments, settings=_dotted(settings))
        return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=check)

    def part(self, *arguments: str, name: str = "", **settings: object) -> Part:
        """A part in the background, not waited for."""
        name = name or f"{arguments[0]}-{len(self.parts)}"
        part = Part.start(name, self.command(*arguments, settings=_dotted(settings)), self.directory)
        self.parts.append(part)
        return part

    def _ready(self, *arguments: str, **settings: object) -> Part:
        part = self.part(*arguments, **settings)
        part.wait_for(READY[arguments[0]])
        return part

    def kafka(self) -> None:
        self.broker.start()
        self.broker.wait_ready()
        asyncio.run(create_topics(self.kafka_config))

    def store(self, **settings: object) -> Part:
        return self._ready("store", **settings)

    def processor(self, **settings: object) -> Part:
        return self._ready("processor", "requests", **settings)

    def sink(self, **settings: object) -> Part:
        return self._ready("sink", "traces", **settings)

    def producer(self, *targets: str, **settings: object) -> Part:
        return self._ready("producer", "sockets", capture__targets=",".join(targets), **settings)

    def start(self) -> None:
        """Kafka, then store, processor and sink side by side."""
        self.kafka()
        commands = [("store",), ("processor", "requests"), ("sink", "traces")]
        for part, (kind, *_) in [(self.part(*command), command) for command in commands]:
            part.wait_for(READY[kind])

    def stop(self, name: str) -> None:
        """End the parts whose name begins so, and see that they end well."""
        for part in [part for part in self.parts if part.name.startswith(name) and part.running]:
            assert part.end() == 0, f"{part.name} ended with status {part.process.returncode}"

    def kill(self, name: str) -> None:
        """SIGKILL to the parts whose name begins so."""
        for part in self.parts:
            if part.name.startswith(name) and part.running:
                part.kill()

    def forget_group(self, name: str) -> None:
        """Delete a consumer group without members: its next member begins with the first record there is."""
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap})
        for future in admin.delete_consumer_groups([name]).values():
            future.result()

    # What came out.

    def spans(self, kind: str = "server") -> list[dict[str, Any]]:
        """What the store has of that kind, in the order of ends."""
        lines = self.run("traces", "--json", "--limit", "0").stdout.splitlines()
        found = [span for span in map(json.loads, lines) if span["kind"] == kind]
        return sorted(found, key=lambda span: span["end_unix_nano"])

    def ledger(self) -> dict[str, dict[str, int]]:
        return asyncio.run(read_ledger(self.kafka_config)).totals()

    def records(self, topic: str) -> list[Any]:
        """Everything a topic has."""
        return asyncio.run(_read(self.kafka_config, topic))

    def dead_letters(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run("dlq", "--json", "--limit", "0").stdout.splitlines()]

    def wait_settled(self, timeout_s: float = 60.0) -> dict[str, dict[str, int]]:
        """Until every balance of the ledger holds, nothing is buffered, and it stays so; the sums."""
        deadline_s = time.monotonic() + timeout_s
        held_since_s, last = 0.0, {}
        while not held_since_s or time.monotonic() - held_since_s < _SETTLED_S:
            ledger = _read_calmly(self.kafka_config)
            now_s, totals = time.monotonic(), ledger.totals()
            holds = _is_settled(ledger)
            held_since_s = 0.0 if not holds else held_since_s if totals == last and held_since_s else now_s
            last = totals
            assert now_s < deadline_s, (
                f"the ledger is not balanced after {timeout_s:g} s: {_unbalanced(ledger)} {totals}"
            )
            time.sleep(0.2)
        return last

    # The end.

    def end(self) -> None:
        """End everything, producers first; fails when a log holds a traceback."""
        try:
            for part in sorted(self.parts, key=lambda part: not part.name.startswith("producer")):
                if part.running:
                    part.process.send_signal(signal.SIGCONT)
                    part.process.terminate()
            for part in self.parts:
                _reap(part)
        finally:
            self.broker.stop()
        self._show_logs()
        guilty = [part.name for part in self.parts if "Traceback" in part.text]
        assert not guilty, f"tracebacks in the logs of {guilty}"

    def _show_logs(self) -> None:
        """Captured by pytest, and shown when the test fails."""
        for part in self.parts:
            sys.stdout.write(f"--- {part.name} (exit status {part.process.returncode})\n{part.text[-_LOG_TAIL:]}\n")


def _reap(part: Part) -> None:
    try:
        part.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        part.process.kill()
        part.process.wait()
        raise AssertionError(f"{part.name} did not end on SIGTERM") from None


def _dotted(settings: Mapping[str, object]) -> dict[str, object]:
    return {key.replace("__", "."): value for key, value in settings.items()}


async def _read(config: KafkaConfig, topic: str) -> list[Any]:
    return [record async for record in read_topic(partial(make_consumer, config), topic)]


def _read_calmly(config: KafkaConfig) -> Ledger:
    """An empty ledger where Kafka is just coming back."""
    try:
        return asyncio.run(read_ledger(config))
    except EbbflowError:
        return Ledger()


def _is_settled(ledger: Ledger) -> bool:
    totals = ledger.totals()
    stages = {"producer.sockets", "requests", "sink.traces"}
    return stages <= totals.keys() and not totals["producer.sockets"].get("buffered") and not _unbalanced(ledger)


def _unbalanced(ledger: Ledger) -> dict[str, int]:
    return {line.balance.name: line.difference for line in ledger.lines() if line.difference}


# What a span says, as an access log would.
def exchange(span: Mapping[str, Any]) -> tuple[str, str, int]:
    """Method, target and status of a span of the store."""
    attributes = span["attributes"]
    query = attributes.get("url.query")
    target = attributes.get("url.path", "") + (f"?{query}" if query else "")
    return attributes["http.request.method"], target, attributes.get("http.response.status_code", 0)
