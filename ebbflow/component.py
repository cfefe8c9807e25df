"""What a part of the pipeline looks like to the rest of it.

A producer, processor or sink is a class found through an entry-point group (see `ebbflow/discovery.py`). It gets what
it needs through its constructor, `from_config`, and reaches for nothing else.

A processor is pure: no I/O, no clock, no random. One instance serves one input partition, so that the same class runs
under Faust, offline on a file, and in a test. Determinism is part of the contract: the same records from the same
snapshot give the same bytes, which is what makes a restart after a crash harmless.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ebbflow.config import Config
from ebbflow.errors import EbbflowError

if TYPE_CHECKING:
    # Processors and sinks load neither BCC nor BTF.
    from ebbflow.producing.shared import Shared

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record as it was read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Output:
    """One Kafka record to be written."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Input that could not be used: `value` is the original bytes of the record, or of the single row."""

    code: str
    reason: str
    value: bytes
    count: int = 1


@dataclass(slots=True)
class Result:
    """What one call of a processor gave.

    `counters` are the ledger's entries for this very record (see `ebbflow/ledger.py`); they are keyed by the record's
    offset, so processing it again counts once. `event_time_ns` (unix) is the newest event time of the record, 0 when
    it says nothing about time; the partition's watermark is the largest so far.
    """

    outputs: list[Output] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    event_time_ns: int = 0


class Processor(ABC):
    """Turns the records of one partition into other records."""

    name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    # Changes when a snapshot of an older version cannot be restored any more.
    snapshot_version: ClassVar[int] = 1

    @classmethod
    @abstractmethod
    def from_config(cls, config: Config) -> Self: ...

    @abstractmethod
    def process(self, record: Record) -> Result:
        """Consume one record.

        Raises:
            ValidationError: the record cannot be used at all, and the state is as if it had never come; it becomes a
                dead letter and the stream goes on. After any other exception this instance is not used again.
        """

    def tick(self, event_time_ns: int) -> Result:
        """Event time has come to `event_time_ns` (unix): close what is due.

        Called after every record that was processed, as soon as any of them has said what time it is.
        """
        del event_time_ns
        return Result()

    @abstractmethod
    def snapshot(self) -> bytes:
        """The whole state, for a restart at the next record."""

    @abstractmethod
    def restore(self, state: bytes) -> None:
        """Take over a snapshot of the same `snapshot_version`."""

    def gauges(self) -> Mapping[str, float]:
        """Sizes worth a metric: name to value."""
        return {}


class Producer(ABC):
    """Turns what one kernel feature shows into raw batches; driven by `ebbflow/producing/runner.py`."""

    name: ClassVar[str]
    # Capabilities it still needs when it is attached, beside those of every producer (ebbflow/kernel/capabilities.py).
    capabilities: ClassVar[frozenset[str]] = frozenset()
    # Host and run: where its entries in the ledger come from.
    source: str

    @classmethod
    @abstractmethod
    def from_config(cls, config: Config, shared: Shared) -> Self: ...

    @abstractmethod
    def attach(self) -> None:
        """Load the programs and begin to watch.

        Raises:
            EbbflowError: this kernel, or this process's rights, do not allow it.
        """

    def started(self) -> None:  # noqa: B027 - most features have nothing to do then
        """Every feature of the process is attached, and the watched processes are known: look at what runs already."""

    @abstractmethod
    def drain(self) -> float:
        """Take what the kernel has. Returns how full its buffer was, 0 to 1. Never waits."""

    @abstractmethod
    def batches(self, *, everything: bool = False, pressure: float = 0.0) -> list[Batch]:
        """Batches that are due by size or age, or all that is held.

        `pressure` is how full the buffer before Kafka is, 0 to 1: the fuller, the fewer and larger they are.
        """

    def dead_letters(self) -> list[DeadLetter]:
        """What the kernel's program wrote and makes no sense, since the last call."""
        return []

    @abstractmethod
    def housekeeping(self) -> None:
        """Once a second: read counters, look for new targets, refresh the clock."""

    @abstractmethod
    def give_back(self, batch: Batch, *, refused: bool) -> None:
        """A batch was dropped from the buffer, or refused by Kafka: account for its events and the losses it told."""

    @abstractmethod
    def captured(self) -> int:
        """Events the kernel has had for us since the start, lost ones included."""

    @abstractmethod
    def lost(self) -> int:
        """Events lost between kernel and batches since the start."""

    @abstractmethod
    def held(self) -> int:
        """Events taken from the kernel that no batch has yet."""

    def losses_by_cpu(self) -> Mapping[tuple[str, int], int]:
        """The part of `lost` that is known by stage and CPU, since the start."""
        return {}

    def blind_spots(self) -> dict[str, int]:
        """What went by without being seen since the start, by cause."""
        return {}

    def map_usage(self) -> dict[str, float]:
        """Fill of kernel maps, 0 to 1."""
        return {}

    def program_time_ns(self) -> int | None:
        """CPU time of the kernel programs since the start; None while the kernel does not measure it."""
        return None

    @abstractmethod
    def detach(self) -> None:
        """Watch no more; what the kernel had until now can still be drained, and comes to an end."""

    @abstractmethod
    def close(self) -> None:
        """Detach, and leave nothing in the kernel."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One raw batch on its way to Kafka."""

    topic: str
    key: bytes
    value: bytes
    events: int
    losses: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one record that a sink took: the ledger's counters, and what the backend refused for good."""

    record: Record
    counters: Mapping[str, int]
    dead_letters: tuple[DeadLetter, ...] = ()


# Called with what keeps a sink from delivering, and with None once it delivers again.
Report = Callable[[EbbflowError | None], None]


class Sink(ABC):
    """Takes the records of one partition to a backend. One instance serves one partition, in one task.

    Whoever runs it (`ebbflow/sink.py`) reads, commits, writes dead letters and ledger entries; a sink only delivers.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def from_config(cls, config: Config) -> Self: ...

    @abstractmethod
    async def add(self, record: Record) -> None:
        """Take one record; it is delivered by the next `flush`.

        Raises:
            ValidationError: the record cannot be used at all; it becomes a dead letter and the stream goes on.
        """

    @abstractmethod
    async def flush(self, report: Report) -> list[Delivery]:
        """Deliver what was added, in order; returns when the backend has answered for all of it.

        Failures that may pass are repeated for as long as it takes: Kafka holds the data. Cancelling it is always
        safe; what was added is then forgotten, and comes again with the records.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections. Nothing is delivered any more."""
