"""What a part of the pipeline looks like to the rest of it.

A producer, processor or sink is a class found through an entry-point group (see `ebbflow/discovery.py`). It gets what
it needs through its constructor, `from_config`, and reaches for nothing else.

A processor is pure: no I/O, no clock, no random. One instance serves one input partition, so that the same class runs
under Faust, offline on a file, and in a test. Determinism is part of the contract: the same records from the same
snapshot give the same bytes, which is what makes a restart after a crash harmless.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from ebbflow.config import Config

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
    offset, so processing it again counts once.
    """

    outputs: list[Output] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)


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
            ValidationError: the record cannot be used at all; it becomes a dead letter and the stream goes on.
        """

    def tick(self, event_time_ns: int) -> Result:
        """Event time has come to `event_time_ns` (unix): close what is due. Called after every record."""
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
