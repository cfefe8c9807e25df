"""From a producer to Kafka: a bounded buffer that never makes the caller wait.

    publish -> buffer (drop oldest when full, counted) -> librdkafka (idempotent, acks=all, its own threads) -> acked

librdkafka compresses and sends on threads of its own, so the caller, who drains a kernel ring, only pays for handing
over a pointer. It gets no more than `_IN_FLIGHT_BYTES` at a time: what waits stays here, where the oldest can be
dropped when Kafka is away for longer than the buffer lasts. Messages handed over are retried for ever; only a refusal
that repeating cannot mend (a record too large, no permission) is given up, and counted.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ebbflow.component import Headers
from ebbflow.config import KafkaConfig
from ebbflow.errors import ConfigError
from ebbflow.kafka import librdkafka_options

_IN_FLIGHT_BYTES = 16 << 20
_LOG = logging.getLogger(__name__)
# librdkafka retries these by itself; the state is told once, not per attempt.
_CONNECTION_CODES = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE})  # noqa: SLF001 - the client's names


@dataclass(frozen=True, slots=True)
class Item:
    """One Kafka record on its way, with how many events it holds and what else its loss would lose."""

    topic: str
    key: bytes
    value: bytes
    events: int
    headers: Headers = ()
    on_dropped: Callable[[Item], None] | None = None
    on_refused: Callable[[Item], None] | None = None


@dataclass(slots=True)
class Counts:
    """Events (not records) of one topic, since the start."""

    taken: int = 0
    published: int = 0
    dropped: int = 0
    refused: int = 0

    @property
    def buffered(self) -> int:
        """Neither acknowledged nor given up yet."""
        return self.taken - self.published - self.dropped - self.refused


class Publisher:
    """Not thread-safe: one thread publishes and polls.

    Args:
        buffer_bytes: values kept while Kafka does not take them, in all.
        make_client: stands in for librdkafka's producer in tests.
    """

    def __init__(
        self, config: KafkaConfig, *, buffer_bytes: int, make_client: Callable[[dict[str, Any]], Any] = Producer
    ) -> None:
        self._counts: defaultdict[str, Counts] = defaultdict(Counts)
        self.connected = True
        self._bootstrap = config.bootstrap
        self._buffer_bytes = buffer_bytes
        self._waiting: deque[Item] = deque()
        self._waiting_bytes = 0
        self._in_flight_bytes = 0
        self._finished = False
        try:
            self._client = make_client(self._options(config))
        except KafkaException as error:
            raise ConfigError(f"Kafka client: {error.args[0].str()}", hint="check the settings under [kafka]") from None

    def _options(self, config: KafkaConfig) -> dict[str, Any]:
        return librdkafka_options(config) | {
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": 0,
            "linger.ms": 5,
            "compression.type": "zstd",
            "compression.level": 1,
            "partitioner": "murmur2_random",
            "queue.buffering.max.kbytes": 4 * _IN_FLIGHT_BYTES >> 10,
            "reconnect.backoff.max.ms": 1000,
            "error_cb": self._on_error,
            "logger": _quiet_logger(),
        }

    @property
    def buffered_bytes(self) -> int:
        return self._waiting_bytes + self._in_flight_bytes

    @property
    def pressure(self) -> float:
        """How full the buffer is, 0 to 1."""
        return self.buffered_bytes / self._buffer_bytes

    @property
    def buffered_events(self) -> int:
        return sum(counts.buffered for counts in self._counts.values())

    def counts_of(self, topic: str) -> Counts:
        return self._counts[topic]

    def publish(self, item: Item) -> None:
        """Take a record; never waits, drops the oldest when there is no room."""
        self._counts[item.topic].taken += item.events
        self._waiting.append(item)
        self._waiting_bytes += len(item.value)
        while self.buffered_bytes > self._buffer_bytes and self._waiting:
            self._drop_oldest()
        self._feed()

    def poll(self) -> None:
        """Learn what Kafka has acknowledged, and hand over what waits."""
        self._client.poll(0)
        self._feed()

    def _drop_oldest(self) -> None:
        item = self._waiting.popleft()
        self._waiting_bytes -= len(item.value)
        self._counts[item.topic].dropped += item.events
        if item.on_dropped:
            item.on_dropped(item)

    def _feed(self) -> None:
        while self._waiting and self._in_flight_bytes < _IN_FLIGHT_BYTES:
            item = self._waiting[0]
            try:
                self._client.produce(
                    item.topic,
                    item.value,
                    item.key,
                    on_delivery=self._acknowledgement(item),
                    headers=list(item.headers) or None,
                )
            except BufferError:
                return
            except KafkaException as error:
                self._forget_first()
                self._refuse(item, error.args[0])
                continue
            self._forget_first()
            self._in_flight_bytes += len(item.value)

    def _forget_first(self) -> None:
        self._waiting_bytes -= len(self._waiting.popleft().value)

    def _acknowledgement(self, item: Item) -> Callable[[KafkaError | None, Message], None]:
        def on_delivery(error: KafkaError | None, _: Message) -> None:
            if self._finished:
                return  # counted when it was given up
            self._in_flight_bytes -= len(item.value)
            if error is not None:
                self._refuse(item, error)
                return
            self._counts[item.topic].published += item.events
            self._set_connected(connected=True)

        return on_delivery

    def _refuse(self, item: Item, error: KafkaError) -> None:
        self._counts[item.topic].refused += item.events
        _LOG.error("Kafka refused a record of %d events for %s: %s", item.events, item.topic, error.str())
        if item.on_refused:
            item.on_refused(item)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in _CONNECTION_CODES:
            self._set_connected(connected=False)
        else:
            _LOG.warning("Kafka client: %s", error.str())

    def _set_connected(self, *, connected: bool) -> None:
        if connected == self.connected:
            return
        self.connected = connected
        if connected:
            _LOG.info("Kafka at %s takes records again", self._bootstrap)
        else:
            _LOG.warning(
                "Kafka at %s does not answer: keeping up to %d MiB, then dropping the oldest; hint: start it, or check "
                "kafka.bootstrap with `ebbflow doctor`",
                self._bootstrap,
                self._buffer_bytes >> 20,
            )

    def finish(self, timeout_s: float) -> int:
        """Deliver what can be delivered in that time; the rest is given up, and counted as dropped.

        What is published after it is the last word about it, for which `close` waits.

        Returns:
            events that were given up.
        """
        self._feed()
        self._client.flush(timeout_s)
        self._feed()
        self._client.flush(0)
        given_up = self.buffered_events
        for counts in self._counts.values():
            counts.dropped += counts.buffered
        self._waiting.clear()
        self._waiting_bytes = self._in_flight_bytes = 0
        self._finished = True
        self._client.purge()
        return given_up

    def close(self, timeout_s: float) -> None:
        self._client.flush(timeout_s)


def _quiet_logger() -> logging.Logger:
    """Librdkafka repeats itself at every attempt; `error_cb` tells the state once."""
    logger = logging.getLogger("ebbflow.librdkafka")
    logger.setLevel(logging.CRITICAL)
    return logger
