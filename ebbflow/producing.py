"""Runs a producer: drains the kernel, hands batches to Kafka, keeps the books, stops cleanly.

One thread does it all, because nothing in the loop waits: draining is a copy of memory, publishing is a hand-over to
librdkafka's threads. The pause between two rounds follows the load: short when the ring fills, long when it is empty,
so that an idle host costs next to nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge

from ebbflow.component import Batch, Producer
from ebbflow.config import Config
from ebbflow.ledger import Entry
from ebbflow.publisher import Item, Publisher
from ebbflow.telemetry import Health, logger

# Few long rounds rather than many short ones: every wake-up takes a core from somebody for a moment, and two watched
# processes that answer each other then share one core for longer than that.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.2
# Above this share of the ring the pause is halved, below a quarter of it doubled.
_BUSY_FILL = 0.4
_HOUSEKEEPING_S = 1.0
_FLUSH_S = 3.0
_LAST_WORD_S = 0.5

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


class Runner:
    """One producer and its way to Kafka."""

    def __init__(self, producer: Producer, publisher: Publisher, registry: CollectorRegistry) -> None:
        self._producer = producer
        self._publisher = publisher
        self._metrics = _Metrics(registry, producer.name)
        self._last_counters: dict[str, int] = {}
        self._housekept_s = 0.0

    def round(self) -> float:
        """One pass through all of the work. Returns how full the ring was."""
        fill = self._producer.drain()
        self._publish(self._producer.batches())
        self._publisher.poll()
        now_s = time.monotonic()
        if now_s - self._housekept_s >= _HOUSEKEEPING_S:
            self._housekept_s = now_s
            self.housekeeping()
        return fill

    def housekeeping(self) -> None:
        self._producer.housekeeping()
        counters = self.counters()
        self._metrics.update(counters, self._producer)
        if counters != self._last_counters:
            self._last_counters = counters
            entry = Entry(
                f"producer.{self._producer.name}", self._producer.source, time.time_ns(), counters
            ).to_output()
            self._publisher.publish(Item(entry.topic, entry.key or b"", entry.value, 0))

    def counters(self) -> dict[str, int]:
        """The producer's side of the ledger, since its start, in events."""
        counts = self._publisher.counts
        return {
            "captured": self._producer.captured(),
            "lost": self._producer.lost(),
            "dropped": counts.dropped + counts.refused,
            "published": counts.published,
            "buffered": self._publisher.buffered_events + self._producer.held(),
        } | self._producer.blind_spots()

    def _publish(self, batches: list[Batch]) -> None:
        for batch in batches:
            self._publisher.publish(
                Item(
                    batch.topic,
                    batch.key,
                    batch.value,
                    batch.events,
                    on_dropped=lambda _, batch=batch: self._producer.give_back(batch, refused=False),  # type: ignore[misc]
                    on_refused=lambda _, batch=batch: self._producer.give_back(batch, refused=True),  # type: ignore[misc]
                )
            )

    def finish(self) -> None:
        """Watch no more; what the kernel still has goes out, as far as Kafka takes it in time, and into the ledger."""
        self._producer.detach()
        while self._producer.drain():
            pass
        self._producer.housekeeping()
        self._publish(self._producer.batches(everything=True))
        given_up = self._publisher.finish(_FLUSH_S)
        self.housekeeping()
        self._publisher.close(_LAST_WORD_S)
        if given_up:
            log.warning("events given up at the stop: Kafka did not take them in time", events=given_up)


def run_producer(producer: Producer, config: Config) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    os.nice(config.producer.niceness)
    registry = CollectorRegistry()
    publisher = Publisher(config.kafka, buffer_bytes=config.producer.buffer_bytes)
    attached = threading.Event()
    health = Health(
        registry,
        [
            lambda: [] if attached.is_set() else ["programs are not attached yet"],
            lambda: [] if publisher.connected else ["Kafka does not answer"],
        ],
    )
    if config.health.producer_port:
        health.serve(config.health.host, config.health.producer_port)
    try:
        producer.attach()
    except BaseException:
        health.close()
        raise
    attached.set()
    log.info("watching", feature=producer.name, targets=config.capture.targets)
    runner = Runner(producer, publisher, registry)
    pace = Pace()
    try:
        while not stop.wait(pace.after(runner.round())):
            pass
        runner.finish()
    finally:
        producer.close()
        health.close()
    return 0


class _Metrics:
    """Gauges rather than counters: the totals are kept in the kernel and in librdkafka, and only copied here."""

    def __init__(self, registry: CollectorRegistry, feature: str) -> None:
        self._feature = feature

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(name, meaning, ["feature", *labels], registry=registry)

        self._events = gauge("ebpf_events_total", "Events the kernel had")
        self._lost = gauge("ebpf_events_lost_total", "Events lost, by stage", "stage")
        self._published = gauge("ebbflow_producer_published_total", "Events Kafka has acknowledged")
        self._buffered = gauge("ebbflow_producer_buffered_events", "Events held for Kafka")
        self._unseen = gauge("ebpf_unseen_total", "What went by unseen, by cause", "cause")
        self._maps = gauge("ebpf_map_usage_percent", "Fill of a kernel map", "map")

    def update(self, counters: dict[str, int], producer: Producer) -> None:
        self._events.labels(self._feature).set(counters["captured"])
        self._lost.labels(self._feature, "kernel").set(counters["lost"])
        self._lost.labels(self._feature, "buffer").set(counters["dropped"])
        self._published.labels(self._feature).set(counters["published"])
        self._buffered.labels(self._feature).set(counters["buffered"])
        for cause, count in producer.blind_spots().items():
            self._unseen.labels(self._feature, cause).set(count)
        for name, usage in producer.map_usage().items():
            self._maps.labels(self._feature, name).set(100 * usage)
