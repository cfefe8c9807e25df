"""From rows to RawBatches: one builder per process bucket, batches that leave by size, age and pressure.

A batch leaves when it is large, or old. While Kafka does not keep up, age counts for less: batches grow to their full
size, which compresses better and costs fewer records, instead of making the queue longer with small ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ebbflow.clock import read_clock_point
from ebbflow.component import Batch
from ebbflow.config import ProducerConfig
from ebbflow.kernel.layout import Layout
from ebbflow.kernel.rows import take
from ebbflow.producing.batching import BatchBuilder, Dictionary, Ends, LossAccount, Origin, Rows
from ebbflow.v1 import raw_pb2

_HEARTBEAT_S = 5.0
# From this share of the publisher's buffer on, only full batches leave, up to this many times the normal age.
_PRESSED = 0.1
_PATIENCE = 8
# Spreads consecutive pids over the buckets (Knuth's multiplicative hash).
_SPREAD = 2654435761
Pid = TypeVar("Pid", int, np.ndarray[Any, np.dtype[np.int64]])


class Buckets:
    """The rows of one feature on their way into batches.

    Args:
        topic: where the batches go.
        layout: of the rows.
        dictionary: what rows refer to.
        on_built: called with a bucket when its batch is built: nothing before it refers to anything any more.
    """

    def __init__(
        self,
        origin: Origin,
        topic: str,
        layout: Layout,
        dictionary: Dictionary,
        config: ProducerConfig,
        *,
        on_built: Callable[[int], None] = lambda _: None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._config = config
        self._on_built = on_built
        self._now_s = now_s
        self._first_held_s = [0.0] * config.buckets
        self._heartbeat_s = now_s()
        self.losses = LossAccount()
        self._builders = [
            BatchBuilder(origin, bucket, layout, dictionary, _clock_point, batch_bytes=config.batch_bytes)
            for bucket in range(config.buckets)
        ]

    @property
    def held(self) -> int:
        """Rows that no batch has yet."""
        return sum(builder.events for builder in self._builders)

    def of(self, pid: int) -> int:
        """A process's bucket."""
        return bucket_of(pid, len(self._builders))

    def add(self, rows: Rows, payloads: Sequence[bytes]) -> None:
        """Take rows, shape (n,), and the n payloads that go with them."""
        buckets = bucket_of(rows["pid"].astype(np.int64), len(self._builders))
        present = np.flatnonzero(np.bincount(buckets)).tolist()
        lengths = np.fromiter(map(len, payloads), np.int64, count=len(payloads))
        now_s = self._now_s()
        for bucket in present:
            if not self._builders[bucket].events:
                self._first_held_s[bucket] = now_s
            if len(present) == 1:
                self._builders[bucket].add(rows, payloads, lengths)
            else:
                self._add_chosen(bucket, np.flatnonzero(buckets == bucket), rows, payloads, lengths)

    def _add_chosen(
        self, bucket: int, chosen: np.ndarray[Any, Any], rows: Rows, payloads: Sequence[bytes], lengths: Ends
    ) -> None:
        picked = [*map(payloads.__getitem__, chosen.tolist())]
        self._builders[bucket].add(take(rows, chosen), picked, lengths[chosen])

    def batches(self, *, everything: bool = False, pressure: float = 0.0) -> list[Batch]:
        """Batches that are due, or all that is held; now and then one without rows, for the clock and the losses.

        `pressure` is how full the buffer before Kafka is, 0 to 1.
        """
        now_s = self._now_s()
        age_s = self._config.batch_age_s * (_PATIENCE if pressure > _PRESSED else 1)
        due = [
            bucket
            for bucket, builder in enumerate(self._builders)
            if builder.events and (everything or self._is_due(bucket, now_s - age_s))
        ]
        if not due and (everything or now_s - self._heartbeat_s >= _HEARTBEAT_S):
            due = list(range(len(self._builders)))
        if due:
            self._heartbeat_s = now_s
        return [batch for bucket in due for batch in self._build(bucket)]

    def _is_due(self, bucket: int, oldest_s: float) -> bool:
        large = self._builders[bucket].size_bytes >= self._config.batch_bytes
        return large or self._first_held_s[bucket] <= oldest_s

    def _build(self, bucket: int) -> list[Batch]:
        builder = self._builders[bucket]
        built = builder.build(self.losses.take())
        self._on_built(bucket)
        return [Batch(self._topic, builder.key, part.value, part.events, part.losses) for part in built]

    def give_back(self, batch: Batch, *, refused: bool) -> None:
        """A batch will not reach Kafka: its events are lost, and what it told of losses is untold."""
        stage = raw_pb2.Loss.STAGE_PUBLISH if refused else raw_pb2.Loss.STAGE_BUFFER
        self.losses.restore(batch.losses)
        self.losses.add(stage, -1, batch.events)


def bucket_of(pid: Pid, buckets: int) -> Pid:
    """Which of a host's buckets a process belongs to; of one pid, or of an int64 array of them."""
    return (pid * _SPREAD >> 16) % buckets


def _clock_point() -> raw_pb2.ClockPoint:
    point = read_clock_point()
    return raw_pb2.ClockPoint(
        monotonic_ns=point.monotonic_ns, unix_ns=point.unix_ns, uncertainty_ns=point.uncertainty_ns
    )
