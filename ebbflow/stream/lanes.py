"""The partitions of a stage, each with the acknowledgements that wait for its next checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ebbflow.component import Output
from ebbflow.stream import checkpoint as checkpoints
from ebbflow.stream.checkpoint import Checkpoint
from ebbflow.stream.metrics import StreamMetrics
from ebbflow.stream.partition import Partition
from ebbflow.stream.recovery import TopicPartition
from ebbflow.telemetry import logger

log = logger(__name__)


@dataclass(slots=True)
class Lane:
    """A partition, and the calls that acknowledge what it has taken since its last checkpoint."""

    partition: Partition
    acks: list[Callable[[], object]] = field(default_factory=list)
    waiting_since_s: float = 0.0
    is_oversized: bool = False

    def wait(self, ack: Callable[[], object], now_s: float) -> None:
        if not self.acks:
            self.waiting_since_s = now_s
        self.acks.append(ack)

    def acknowledge(self) -> None:
        for ack in self.acks:
            ack()
        self.acks.clear()


@dataclass(frozen=True, slots=True)
class Round:
    """Checkpoints on their way to Kafka; `written` when they are there, and not before."""

    lanes: tuple[Lane, ...]
    checkpoints: tuple[tuple[Lane, Checkpoint], ...]
    outputs: tuple[Output, ...]

    def written(self) -> None:
        """Remember them as what can be returned to, and acknowledge what they cover."""
        for lane, checkpoint in self.checkpoints:
            lane.partition.saved = checkpoint
        for lane in self.lanes:
            if not lane.is_oversized:
                lane.acknowledge()


class Lanes:
    """By topic and partition."""

    def __init__(self, stage: str, metrics: StreamMetrics) -> None:
        self._stage = stage
        self._metrics = metrics
        self._lanes: dict[TopicPartition, Lane] = {}

    def get(self, tp: TopicPartition) -> Lane | None:
        return self._lanes.get(tp)

    def open(self, partition: Partition) -> Lane:
        lane = self._lanes[partition.topic, partition.number] = Lane(partition)
        return lane

    def close(self) -> None:
        """Forget all; what was not acknowledged comes again, to whoever is next."""
        for (topic, number), lane in self._lanes.items():
            self._metrics.forget(self._stage, topic, number, lane.partition.processor.gauges())
        self._lanes = {}

    @property
    def are_waiting(self) -> bool:
        """Whether anything is not acknowledged."""
        return any(lane.acks for lane in self._lanes.values())

    def checkpoint(self) -> Round:
        """Checkpoints of all that has changed. Nothing may be processed until the round is written."""
        lanes = tuple(self._lanes.values())
        made = [(lane, *found) for lane in lanes if (found := self._checkpoint(lane)) is not None]
        return Round(
            lanes,
            tuple((lane, checkpoint) for lane, checkpoint, _ in made),
            tuple(output for _, _, output in made),
        )

    def problems(self, now_s: float, stall_s: float) -> Iterator[str]:
        for (topic, number), lane in list(self._lanes.items()):
            waited_s = now_s - lane.waiting_since_s
            if lane.acks and waited_s > stall_s:
                yield f"{topic}/{number}: {len(lane.acks)} records uncommitted for {waited_s:.0f} s"
            if lane.is_oversized:
                yield f"{topic}/{number}: the state is too large for a checkpoint"

    def measure(self, now_s: float, highwater: Callable[[str, int], int | None]) -> None:
        """Bring the gauges up to date; `highwater` is the offset after a partition's last record."""
        for (topic, number), lane in self._lanes.items():
            labels = (self._stage, topic, str(number))
            end = highwater(topic, number)
            if end is not None:
                self._metrics.lag.labels(*labels).set(max(0, end - lane.partition.next_offset))
            self._metrics.checkpoint_age.labels(*labels).set(now_s - lane.waiting_since_s if lane.acks else 0.0)
            for name, value in lane.partition.processor.gauges().items():
                self._metrics.state.labels(*labels, name).set(value)

    def _checkpoint(self, lane: Lane) -> tuple[Checkpoint, Output] | None:
        partition = lane.partition
        if not partition.is_dirty:
            return None
        found = partition.checkpoint()
        output = checkpoints.to_output(self._stage, partition.topic, partition.number, found)
        size_bytes = len(output.value)
        self._metrics.checkpoint_bytes.labels(self._stage, partition.topic, str(partition.number)).set(size_bytes)
        if size_bytes > checkpoints.MAX_BYTES:
            self._oversized(lane, size_bytes)
            return None
        lane.is_oversized = False
        return found, output

    def _oversized(self, lane: Lane, size_bytes: int) -> None:
        """Keep the old checkpoint and commit nothing: after a crash more is repeated, but nothing is lost."""
        self._metrics.checkpoint_failures.labels(self._stage, "size").inc()
        if not lane.is_oversized:
            log.error(
                "state is too large for a checkpoint: nothing is committed until it shrinks",
                processor=self._stage,
                partition=f"{lane.partition.topic}/{lane.partition.number}",
                bytes=size_bytes,
                limit_bytes=checkpoints.MAX_BYTES,
                hint="lower the processor's limits (requests.max_connections, requests.max_pending_bytes)",
            )
        lane.is_oversized = True
