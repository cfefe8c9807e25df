"""Partitions as they were: from their checkpoint, from a checkpoint and the records since, or without state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Protocol

from ebbflow.component import Processor, Record
from ebbflow.config import Config
from ebbflow.errors import ValidationError
from ebbflow.stream import checkpoint as checkpoints
from ebbflow.stream.checkpoint import Checkpoint
from ebbflow.stream.metrics import StreamMetrics
from ebbflow.stream.partition import Breaker, Partition
from ebbflow.telemetry import logger

log = logger(__name__)

TopicPartition = tuple[str, int]


class History(Protocol):
    """Kafka as it is read outside the consumer group. Both raise a retriable EbbflowError while Kafka is away."""

    async def checkpoints(self, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        """The newest value of each key that is there."""

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncIterator[Record]:
        """Records with start <= offset < stop, those that are still there."""


class Recovery:
    """Makes the partitions of one processor."""

    def __init__(
        self,
        processor: type[Processor],
        config: Config,
        *,
        history: History,
        metrics: StreamMetrics,
        clock_unix_ns: Callable[[], int],
    ) -> None:
        self._processor = processor
        self._config = config
        self._history = history
        self._metrics = metrics
        self._clock_unix_ns = clock_unix_ns
        self._found: dict[bytes, bytes] | None = None

    def forget(self) -> None:
        """Read checkpoints again when the next partition is opened: others may have written them."""
        self._found = None

    async def open(self, record: Record, assigned: Iterable[TopicPartition]) -> Partition:
        """The partition whose next record is `record`; the checkpoints of all `assigned` ones are read at once."""
        name = self._processor.name
        if self._found is None:
            keys = {checkpoints.key(name, topic, number) for topic, number in assigned}
            self._found = dict(await self._history.checkpoints(keys))
        value = self._found.pop(checkpoints.key(name, record.topic, record.partition), None)
        if value is None:
            return self.fresh(record)
        try:
            start = checkpoints.decode(value)
        except ValidationError as error:
            return self._without_state(record, "corrupt", str(error))
        if start.snapshot_version != self._processor.snapshot_version:
            return self._without_state(record, "version", f"it has snapshot version {start.snapshot_version}")
        try:
            return self._build(record, start)
        except Exception as error:  # noqa: BLE001 - a processor's `restore` may raise anything
            return self._without_state(record, "restore", f"{type(error).__name__}: {error}")

    def fresh(self, record: Record, recent: bytes = b"") -> Partition:
        """Without state, at `record`; `recent` is the circuit breaker's window."""
        processor = self._processor.from_config(self._config)
        version, state = processor.snapshot_version, processor.snapshot()
        start = Checkpoint(next_offset=record.offset, snapshot_version=version, recent=recent, state=state)
        return self._build(record, start)

    async def replay(self, start: Checkpoint, record: Record) -> Partition:
        """State as before `record`, from a checkpoint and the records since; what those give is dropped.

        A processor that fails at a record it once took is not deterministic; it starts without state.
        """
        partition = self._build(record, start)
        async for past in self._history.read(record.topic, record.partition, start.next_offset, record.offset):
            try:
                partition.step(past)
            except ValidationError as error:
                partition.refuse(past, error)
            except Exception:
                log.exception("processor is not deterministic: starting without state", processor=self._processor.name)
                return self.fresh(record, partition.breaker.window())
        partition.next_offset = record.offset
        return partition

    def _build(self, record: Record, start: Checkpoint) -> Partition:
        processor = self._processor.from_config(self._config)
        processor.restore(start.state)
        breaker = Breaker(self._config.stream.bad_window, self._config.stream.bad_share, start.recent)
        return Partition(
            processor, record.topic, record.partition, start, breaker=breaker, clock_unix_ns=self._clock_unix_ns
        )

    def _without_state(self, record: Record, reason: str, text: str) -> Partition:
        self._metrics.checkpoint_failures.labels(self._processor.name, reason).inc()
        log.warning(
            "checkpoint cannot be used: starting without state at the committed offset",
            processor=self._processor.name,
            partition=f"{record.topic}/{record.partition}",
            offset=record.offset,
            reason=text,
        )
        return self.fresh(record)
