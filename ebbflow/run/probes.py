"""Whether parts are ready: asked from outside, over the ports they serve."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol

from ebbflow.config import KafkaConfig, StoreConfig
from ebbflow.run.totals import Series, fetch, read_samples

_STORED = Series("store", "ebbflow_store_spans_stored_total")


class Probes(Protocol):
    """What a run needs to know of the world outside the process manager."""

    def answers(self, url: str) -> bool:
        """Whether a GET gives 2xx."""
        ...

    def accepts(self, kafka: KafkaConfig) -> bool:
        """Whether the broker's port takes connections."""
        ...

    def require_kafka(self, kafka: KafkaConfig, timeout_s: float) -> None:
        """Raise a NetworkError when Kafka does not answer."""
        ...

    def create_topics(self, kafka: KafkaConfig) -> Sequence[bool]:
        """Create what is missing: for each topic whether it is new."""
        ...

    def has_spans(self, store: StoreConfig) -> bool:
        """Whether the store has taken in a span since its start."""
        ...


class RealProbes:
    """Kafka's clients are imported when they are used: that takes a while, Kafka's own start longer."""

    def answers(self, url: str) -> bool:
        try:
            fetch(url)
        except OSError:
            return False
        return True

    def accepts(self, kafka: KafkaConfig) -> bool:
        """Before its clients are used, which wait long after they were refused."""
        host, _, port = kafka.bootstrap.partition(",")[0].strip().rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
        except OSError:
            return False
        return True

    def require_kafka(self, kafka: KafkaConfig, timeout_s: float) -> None:
        from ebbflow.kafka import check_reachable  # noqa: PLC0415

        asyncio.run(check_reachable(kafka, timeout_s))

    def create_topics(self, kafka: KafkaConfig) -> Sequence[bool]:
        from ebbflow.kafka import create_topics  # noqa: PLC0415

        return [topic.created for topic in asyncio.run(create_topics(kafka))]

    def has_spans(self, store: StoreConfig) -> bool:
        try:
            samples = read_samples(fetch(f"http://{store.host}:{store.port}/metrics"), [_STORED])
        except OSError:
            return False
        return samples.get(_STORED, 0) > 0
