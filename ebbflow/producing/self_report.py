"""What producers say of themselves as OTLP on the topic otlp_metrics: the numbers of /metrics, every few seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from prometheus_client import Metric

from ebbflow.identity import Host
from ebbflow.otlp.metrics import self_metrics
from ebbflow.producing.publisher import Item, Publisher
from ebbflow.topics import OTLP_METRICS


class SelfReport:
    """The reports of one process.

    Args:
        collect: gives the families, as a registry does.
        host: where.
        start_unix_ns: when the counters were 0.
        every_s: between two reports; 0: none.
    """

    def __init__(
        self,
        collect: Callable[[], Iterable[Metric]],
        host: Host,
        start_unix_ns: int,
        publisher: Publisher,
        *,
        every_s: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collect = collect
        self._host = host
        self._start_unix_ns = start_unix_ns
        self._publisher = publisher
        self._every_s = every_s
        self._now_s = now_s
        self._reported_s = now_s()

    def publish_when_due(self) -> None:
        if self._every_s and self._now_s() - self._reported_s >= self._every_s:
            self.publish()

    def publish(self) -> None:
        self._reported_s = self._now_s()
        value = self_metrics(
            self._collect(),
            host=self._host,
            pid=os.getpid(),
            start_unix_ns=self._start_unix_ns,
            now_unix_ns=time.time_ns(),
        )
        if value:
            self._publisher.publish(Item(OTLP_METRICS, self._host.host_id.encode(), value, 0))
