"""Runs producers: drains the kernel, hands batches to Kafka, keeps the books, stops cleanly.

One thread does it all for all features, because nothing in the loop waits: draining is a copy of memory, publishing is
a hand-over to librdkafka's threads. The pause between two rounds follows the load: short when a ring fills, long when
all are empty, so that an idle host costs next to nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b

from prometheus_client import CollectorRegistry

from ebbflow.component import Batch, Producer, Record
from ebbflow.config import Config
from ebbflow.dead_letters import to_output
from ebbflow.errors import ConfigError
from ebbflow.kernel.capabilities import drop_all_but, kept_for_draining, threads_with_more
from ebbflow.ledger import Entry
from ebbflow.producing.metrics import ProducerMetrics
from ebbflow.producing.publisher import Item, Publisher
from ebbflow.producing.self_report import SelfReport
from ebbflow.producing.shared import Shared, attach
from ebbflow.telemetry import Health, logger
from ebbflow.topics import raw_topic

# Few long rounds rather than many short ones: every wake-up takes a core from somebody for a moment, and two watched
# processes that answer each other then share one core for longer than that.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.2
# Above this share of the ring the pause is halved, below a quarter of it doubled.
_BUSY_FILL = 0.4
_HOUSEKEEPING_S = 1.0
_FLUSH_S = 3.0
_LAST_WORD_S = 0.5
# What is left in the rings at a stop is taken for so long at most.
_LAST_DRAIN_S = 2.0

log = logger(__name__)


@dataclass(slots=True)
class Pace:
    """How long to pause after a round that found the ring that full."""

    pause_s: float = _SHORTEST_PAUSE_S

    def after(self, fill: float) -> float:
        if fill > _BUSY_FILL:
            self.pause_s = max(self.pause_s / 2, _SHORTEST_PAUSE_S)
        elif fill < _BUSY_FILL / 4:
            self.pause_s = min(self.pause_s * 2, _LONGEST_PAUSE_S)
        return self.pause_s


class Feature:
    """One producer and its way to Kafka."""

    def __init__(self, producer: Producer, publisher: Publisher, metrics: ProducerMetrics) -> None:
        self.producer = producer
        self._publisher = publisher
        self._topic = raw_topic(producer.name)
        self._metrics = metrics
        self._last_counters: dict[str, int] = {}

    def round(self) -> float:
        """One pass through all of the work. Returns how full the ring was."""
        fill = self.producer.drain()
        self.publish(self.producer.batches(pressure=self._publisher.pressure))
        return fill

    def publish(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            self._publisher.publish(
                Item(
                    batch.topic,
                    batch.key,
                    batch.value,
                    batch.events,
                    on_dropped=lambda _, batch=batch: self.producer.give_back(batch, refused=False),  # type: ignore[misc]
                    on_refused=lambda _, batch=batch: self.producer.give_back(batch, refused=True),  # type: ignore[misc]
                )
            )

    def housekeeping(self) -> None:
        self.producer.housekeeping()
        self._publish_dead_letters()
        counters = self.counters()
        self._metrics.update(self.producer, counters)
        if counters != self._last_counters:
            self._last_counters = counters
            entry = Entry(f"producer.{self.producer.name}", self.producer.source, time.time_ns(), counters).to_output()
            self._publisher.publish(Item(entry.topic, entry.key or b"", entry.value, 0))

    def _publish_dead_letters(self) -> None:
        """What the kernel wrote comes from no offset of any topic: partition and offset are -1."""
        now_ns = time.time_ns()
        source = Record(self._topic, -1, -1, now_ns // 1_000_000, None, b"")
        for letter in self.producer.dead_letters():
            output = to_output(source, letter, stage=f"producer.{self.producer.name}", time_unix_ns=now_ns)
            self._publisher.publish(Item(output.topic, output.key or b"", output.value, 0, output.headers))

    def counters(self) -> dict[str, int]:
        """The feature's side of the ledger, since its start, in events."""
        counts = self._publisher.counts_of(self._topic)
        return {
            "captured": self.producer.captured(),
            "lost": self.producer.lost(),
            "dropped": counts.dropped + counts.refused,
            "published": counts.published,
            "buffered": counts.buffered + self.producer.held(),
        } | self.producer.blind_spots()

    def finish(self, deadline_s: float) -> None:
        """Take what the kernel still has, and hand all of it over."""
        while self.producer.drain() and time.monotonic() < deadline_s:
            pass
        self.producer.housekeeping()
        self.publish(self.producer.batches(everything=True))


class Runner:
    """All features of one process."""

    def __init__(self, features: Sequence[Feature], shared: Shared, publisher: Publisher, report: SelfReport) -> None:
        self._features = features
        self._shared = shared
        self._publisher = publisher
        self._report = report
        self._housekept_s = 0.0

    def round(self) -> float:
        """One pass through all of the work. Returns how full the fullest ring was."""
        fill = max(feature.round() for feature in self._features)
        self._publisher.poll()
        now_s = time.monotonic()
        if now_s - self._housekept_s >= _HOUSEKEEPING_S:
            self._housekept_s = now_s
            self.housekeeping()
        return fill

    def housekeeping(self) -> None:
        self._shared.housekeeping()
        for feature in self._features:
            feature.housekeeping()
        self._report.publish_when_due()

    def finish(self) -> None:
        """Watch no more; what the kernel still has goes out, as far as Kafka takes it in time, and into the ledger."""
        deadline_s = time.monotonic() + _LAST_DRAIN_S
        for feature in self._features:
            feature.producer.detach()
        for feature in self._features:
            feature.finish(deadline_s)
        given_up = self._publisher.finish(_FLUSH_S)
        for feature in self._features:
            feature.housekeeping()
        self._publisher.close(_LAST_WORD_S)
        if given_up:
            log.warning("events given up at the stop: Kafka did not take them in time", events=given_up)


def run_producers(kinds: Sequence[type[Producer]], config: Config) -> int:
    """Run until SIGTERM or SIGINT; the exit status.

    Raises:
        ConfigError: nothing to watch, or another process on this host publishes one of the features already.
        EbbflowError: this kernel, or this process's rights, do not allow it.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    os.nice(config.producer.niceness)
    with ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(claim(kind.name, config.kafka.bootstrap))
        shared = Shared(config)
        stack.callback(shared.close)
        producers = [kind.from_config(config, shared) for kind in kinds]
        attach(producers, shared, stack)
        _run(producers, shared, config, stop, stack)
    return 0


def _run(
    producers: Sequence[Producer], shared: Shared, config: Config, stop: threading.Event, stack: ExitStack
) -> None:
    # Before any other thread begins: capabilities are a thread's own, and new threads get those of their maker.
    kept = kept_for_draining(os.uname().release).keys() | {name for part in producers for name in part.capabilities}
    drop_all_but(kept)
    if threads := threads_with_more(kept):
        log.warning(
            "threads keep capabilities that are not needed", threads=threads, hint="report it: docs/producers.md"
        )
    registry = CollectorRegistry()
    metrics = ProducerMetrics(registry)
    publisher = Publisher(config.kafka, buffer_bytes=config.producer.buffer_bytes)
    health = Health(registry, [lambda: [] if publisher.connected else ["Kafka does not answer"]])
    if config.health.producer_port:
        health.serve(config.health.host, config.health.producer_port)
    stack.callback(health.close)
    names = [producer.name for producer in producers]
    log.info("watching", features=names, targets=config.capture.targets)
    report = SelfReport(
        metrics.collect, shared.host, shared.run_id, publisher, every_s=config.producer.report_s
    )  # fmt: skip
    features = [Feature(producer, publisher, metrics) for producer in producers]
    runner = Runner(features, shared, publisher, report)
    pace = Pace()
    while not stop.wait(pace.after(runner.round())):
        pass
    runner.finish()


def claim(feature: str, bootstrap: str) -> socket.socket:
    """Be the only one on this host who publishes a feature to these brokers, until the socket is closed.

    An abstract Unix socket: the kernel lets go of it however the process ends.

    Raises:
        ConfigError: another process is.
    """
    cluster = blake2b(bootstrap.encode(), digest_size=8).hexdigest()
    claimed = socket.socket(socket.AF_UNIX)
    try:
        claimed.bind(f"\0ebbflow/producer/{feature}/{cluster}")
    except OSError:
        claimed.close()
        raise ConfigError(
            f"{feature} is already published to {bootstrap} from this host: every event would be there twice",
            hint="stop the other one (see `ebbflow probes`), or give it these targets too",
        ) from None
    return claimed
