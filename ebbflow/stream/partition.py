"""One input partition: the processor's instance, how far it is, and what it makes of the next record. No I/O."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from ebbflow import dead_letters
from ebbflow.component import DeadLetter, Output, Processor, Record, Result
from ebbflow.errors import EbbflowError, InternalError, ValidationError
from ebbflow.ledger import Entry
from ebbflow.stream.checkpoint import Checkpoint

Clock = Callable[[], int]


class Breaker:
    """Counts the bad ones among the last `window` records; opens when they are more than `share` of the window."""

    def __init__(self, window: int, share: float, recent: bytes = b"") -> None:
        self._recent = deque(recent[-window:], maxlen=window)
        self._limit = window * share

    def push(self, *, bad: bool) -> None:
        self._recent.append(int(bad))

    def would_open(self) -> bool:
        """Whether one more bad record is too much."""
        leaving = self._recent[0] if len(self._recent) == self._recent.maxlen else 0
        return sum(self._recent) - leaving + 1 > self._limit

    def window(self) -> bytes:
        return bytes(self._recent)


@dataclass(slots=True)
class Step:
    """What one record gave: Kafka records to write, in order, and the codes of its dead letters."""

    outputs: list[Output]
    codes: list[str]


class Partition:
    """State of one processor on one partition; `saved` is the last state that can be returned to."""

    def __init__(
        self,
        processor: Processor,
        topic: str,
        number: int,
        start: Checkpoint,
        *,
        breaker: Breaker,
        clock_unix_ns: Clock,
    ) -> None:
        self.processor = processor
        self.topic = topic
        self.number = number
        self.breaker = breaker
        self.next_offset = start.next_offset
        self.watermark_ns = start.watermark_ns
        self.newest_timestamp_ms = start.newest_timestamp_ms
        self.saved = start
        self._clock_unix_ns = clock_unix_ns

    @property
    def is_dirty(self) -> bool:
        """Whether anything happened since `saved`."""
        return self.next_offset != self.saved.next_offset

    def is_foreign(self, record: Record) -> bool:
        """Whether the record belongs to another topic of the same name: done by its offset, newer than all done."""
        return record.offset < self.next_offset and record.timestamp_ms > self.newest_timestamp_ms

    def step(self, record: Record) -> Step:
        """Process the next record.

        Raises:
            ValidationError: the record is bad; nothing has changed.
            Exception: the processor failed; this object must not be used again.
        """
        result = self.processor.process(record)
        results = [result]
        self.watermark_ns = max(self.watermark_ns, result.event_time_ns)
        if self.watermark_ns:
            results.append(self._tick())
        self._pass(record, bad=False)
        return self._combine(record, results)

    def _tick(self) -> Result:
        try:
            return self.processor.tick(self.watermark_ns)
        except ValidationError as error:
            # The record was taken already, so this cannot mean what it means in `process`.
            raise InternalError(f"{self.processor.name}: tick refused: {error}") from error

    def refuse(self, record: Record, error: Exception) -> Step:
        """Pass over a bad record: a dead letter and a ledger entry take its place."""
        code = error.code if isinstance(error, EbbflowError) else InternalError.code
        reason = str(error) if isinstance(error, EbbflowError) else f"{type(error).__name__}: {error}"
        letter = DeadLetter(code, reason, record.value)
        self._pass(record, bad=True)
        return self._combine(record, [Result(dead_letters=[letter], counters={"bad_records": 1})])

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            next_offset=self.next_offset,
            snapshot_version=self.processor.snapshot_version,
            watermark_ns=self.watermark_ns,
            newest_timestamp_ms=self.newest_timestamp_ms,
            recent=self.breaker.window(),
            state=self.processor.snapshot(),
        )

    def _pass(self, record: Record, *, bad: bool) -> None:
        self.next_offset = record.offset + 1
        self.newest_timestamp_ms = max(self.newest_timestamp_ms, record.timestamp_ms)
        self.breaker.push(bad=bad)

    def _combine(self, record: Record, results: list[Result]) -> Step:
        counters: Counter[str] = Counter()
        letters: list[DeadLetter] = []
        outputs: list[Output] = []
        for result in results:
            counters.update(result.counters)
            letters += result.dead_letters
            outputs += result.outputs
        now_unix_ns, stage = self._clock_unix_ns(), self.processor.name
        outputs += (dead_letters.to_output(record, letter, stage=stage, time_unix_ns=now_unix_ns) for letter in letters)
        if counters:
            source = f"{record.topic}/{record.partition}/{record.offset}"
            outputs.append(Entry(stage, source, now_unix_ns, counters).to_output())
        return Step(outputs, [letter.code for letter in letters])
