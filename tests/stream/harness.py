"""Real workers on a real broker: numbered records in, everything that came out accounted for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from totals import expected, named

from ebbflow.topics import CHECKPOINTS, DEAD_LETTERS

SCRIPT = Path(__file__).with_name("run_totals.py")
PARTITIONS = 4


@dataclass
class Worker:
    process: subprocess.Popen[str]
    log: Path

    def end(self, number: int, timeout_s: float = 15.0) -> tuple[int, float]:
        """Send a signal. Returns the exit status and how long it took."""
        began_s = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(timeout_s), time.monotonic() - began_s

    @property
    def text(self) -> str:
        return self.log.read_text()


@dataclass
class Harness:
    """One test's topics and workers."""

    bootstrap: str
    directory: Path
    suffix: str
    workers: list[Worker] = field(default_factory=list)
    written: dict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.processor = named(self.suffix)
        self.input, self.output = self.processor.inputs[0], self.processor.output
        self.producer = Producer({
            "bootstrap.servers": self.bootstrap, "enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 0,
            "log_level": 0,
        })  # fmt: skip

    def create_topics(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        topics = [NewTopic(name, PARTITIONS, 1) for name in (self.input, self.output)]
        for future in admin.create_topics(topics).values():
            future.result(20)

    def start(self, **settings: object) -> Worker:
        settings = {"kafka__bootstrap": self.bootstrap, "stream__session_timeout_s": 6} | settings
        arguments = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
        log = self.directory / f"worker{len(self.workers)}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, SCRIPT, self.suffix, *arguments], stdout=stream, stderr=stream, text=True
            )
        worker = Worker(process, log)
        self.workers.append(worker)
        return worker

    def write(self, count: int, value: Callable[[int], bytes] = lambda n: b"%d pad" % n) -> None:
        """`count` more records to every partition, numbered from where the last ones ended."""
        for _ in range(count):
            for partition in range(PARTITIONS):
                body = value(len(self.written[partition]))
                self.written[partition].append(body)
                self.producer.produce(self.input, body, partition=partition)
            self.producer.poll(0)

    def write_for(self, seconds: float, rate: int = 250) -> None:
        """Steady load: `rate` records a second and partition."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.write(rate // 20)
            time.sleep(0.05)

    def read(self, topic: str, partitions: int) -> Iterator[tuple[bytes | None, bytes, dict[str, bytes]]]:
        """Key, value and headers of everything there is now."""
        consumer = Consumer({
            "bootstrap.servers": self.bootstrap, "group.id": "reader", "enable.auto.commit": False,
            "enable.partition.eof": True, "log_level": 0,
        })  # fmt: skip
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
        left = set(range(partitions))
        while left:
            message = consumer.poll(10)
            assert message is not None, f"{topic} cannot be read"
            if message.error():
                assert message.error().code() == KafkaError._PARTITION_EOF
                left.discard(message.partition())
                continue
            yield message.key(), message.value(), dict(message.headers() or ())
        consumer.close()

    def outputs(self) -> dict[tuple[str, bytes], list[bytes]]:
        """Values by (source record, kind)."""
        found = defaultdict(list)
        for key, value, headers in self.read(self.output, PARTITIONS):
            found[headers["ebbflow-source"].decode(), key].append(value)
        return found

    def dead_letters(self) -> list[tuple[bytes, dict[str, bytes]]]:
        stage = self.processor.name.encode()
        letters = ((value, headers) for _, value, headers in self.read(DEAD_LETTERS, 1))
        return [(value, headers) for value, headers in letters if headers["ebbflow-stage"] == stage]

    def distinct_dead_letters(self) -> set[tuple[bytes, bytes]]:
        """By partition and offset of the source record."""
        return {(headers["ebbflow-partition"], headers["ebbflow-offset"]) for _, headers in self.dead_letters()}

    def wait_for_outputs(self, timeout_s: float = 60.0) -> dict[tuple[str, bytes], list[bytes]]:
        """Until as many different outputs are there as must come."""
        wanted = sum(len(expected(values)) for values in self.written.values())
        self.producer.flush(30)
        deadline_s = time.monotonic() + timeout_s
        while True:
            found = self.outputs()
            if len(found) >= wanted or time.monotonic() > deadline_s:
                return found
            time.sleep(0.5)

    def repeats(self, found: dict[tuple[str, bytes], list[bytes]]) -> int:
        """Check that everything came, and nothing else, and repeats are identical; returns how many there were."""
        by_partition = defaultdict(set)
        for (source, _), values in found.items():
            assert len(set(values)) == 1, f"{source} gave different bytes: {set(values)}"
            by_partition[int(source.split("/")[1])].add(values[0])
        for partition, values in self.written.items():
            assert by_partition[partition] == set(expected(values)), f"partition {partition}"
        return sum(len(values) - 1 for values in found.values())

    def committed(self) -> dict[int, int]:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": f"ebbflow-{self.processor.name}"})
        partitions = [TopicPartition(self.input, number) for number in range(PARTITIONS)]
        offsets = {tp.partition: tp.offset for tp in consumer.committed(partitions, timeout=10)}
        consumer.close()
        return offsets

    def spoil_checkpoints(self, value: bytes) -> None:
        for number in range(PARTITIONS):
            key = f"{self.processor.name}|{self.input}|{number}"
            self.producer.produce(CHECKPOINTS, value, key=key)
        self.producer.flush(10)

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.end(signal.SIGKILL)
