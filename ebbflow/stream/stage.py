"""One processor on all partitions it is given: what is done in which order, so that nothing is lost. No Faust here.

Everything runs in one task at a time (a lock): a record is processed and its outputs handed over; when a checkpoint is
due, outputs are settled, checkpoints written and settled, inputs acknowledged. `ebbflow/stream/__init__.py` has the
rule behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from ebbflow import dead_letters
from ebbflow.component import DeadLetter, Output, Processor, Record
from ebbflow.config import Config
from ebbflow.errors import EbbflowError, InternalError, StreamInvalid, ValidationError
from ebbflow.stream.checkpoint import Pace
from ebbflow.stream.lanes import Lane, Lanes
from ebbflow.stream.metrics import StreamMetrics
from ebbflow.stream.outbox import Connect, Outbox
from ebbflow.stream.recovery import History, Recovery, TopicPartition
from ebbflow.telemetry import logger
from ebbflow.topics import DEAD_LETTERS
from ebbflow.troubles import Troubles

log = logger(__name__)

T = TypeVar("T")
# Others wait for a rebalance as long as the slowest member; Faust gives up its membership after 15 s.
_REVOKE_S = 3.0
_RETRY_S = 0.5
_QUIET_S = 60.0


class _Abandoned(Exception):
    """The stage is stopping, or the partition has gone elsewhere."""


class Stage:
    """Consumes records, in order within a partition, each with the call that acknowledges it.

    Args:
        connect: makes a started producer.
        history: reads what is in Kafka already.
        highwater: the offset after the last record of a partition, None when unknown; for the lag.
        on_failure: hears of the error that ends this stage.
    """

    def __init__(
        self,
        processor: type[Processor],
        config: Config,
        *,
        connect: Connect,
        history: History,
        metrics: StreamMetrics,
        troubles: Troubles,
        on_failure: Callable[[EbbflowError], None] = lambda _: None,
        highwater: Callable[[str, int], int | None] = lambda _topic, _partition: None,
        clock_s: Callable[[], float] = time.monotonic,
        clock_unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.name = processor.name
        self.failure: EbbflowError | None = None
        self.highwater = highwater
        self._config = config
        self._history = history
        self._recovery = Recovery(processor, config, history=history, metrics=metrics, clock_unix_ns=clock_unix_ns)
        self._metrics = metrics
        self._troubles = troubles
        self._on_failure = on_failure
        self._clock_s = clock_s
        self._clock_unix_ns = clock_unix_ns
        self._outbox = Outbox(connect, on_refused=self._refused, report=self._report)
        self._pace = Pace(config.stream.checkpoint_interval_s, clock_s())
        self._lock = asyncio.Lock()
        self._lanes = Lanes(self.name, metrics)
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._epoch = 0
        self._quiet_until_s = clock_s()
        self._halted = False

    # What Faust calls.

    async def consume(self, record: Record, ack: Callable[[], object]) -> None:
        """Take the next record. Never raises but when cancelled; a failure ends the stage and is told."""
        try:
            async with self._lock:
                self._check()
                await self._consume(record, ack)
        except _Abandoned:
            return
        except EbbflowError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - must not reach Faust, which would acknowledge the record
            self._fail(_unexpected(f"{self.name} on {record.topic}/{record.partition}/{record.offset}", error))

    async def beat(self) -> None:
        """Called all the time: write checkpoints when no record comes that would."""
        if self._lock.locked() or self._halted or not self._lanes.are_waiting:
            return
        try:
            async with self._lock:
                if self._pace.is_due(self._clock_s()):
                    await self._settle()
        except EbbflowError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a processor's snapshot may raise anything
            self._fail(_unexpected(f"{self.name}: checkpoint", error))

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are ours from now on, and no others; their state is read when their first record comes."""
        self._drop()
        self._assigned = frozenset(partitions)

    async def revoke(self) -> None:
        """All partitions are about to go: leave them so that their next owner repeats nothing."""
        self._assigned = frozenset()
        await self._settle_within(_REVOKE_S)
        self._drop()

    async def stop(self, timeout_s: float) -> bool:
        """Take nothing more, finish what is in hand. Returns whether everything was written in that time."""
        self._halted = True
        finished = await self._settle_within(timeout_s)
        self._drop()
        return finished

    async def close(self) -> None:
        await self._outbox.close()

    def problems(self) -> list[str]:
        """For readiness."""
        failed = [str(self.failure)] if self.failure else []
        found = [*failed, *self._lanes.problems(self._clock_s(), self._config.stream.stall_s)]
        return [f"{self.name}: {text}" for text in found]

    def measure(self) -> None:
        """Bring the gauges up to date."""
        self._lanes.measure(self._clock_s(), self.highwater)

    # One record.

    async def _consume(self, record: Record, ack: Callable[[], object]) -> None:
        lane = await self._lane(record)
        if record.offset > lane.partition.next_offset:
            await self._catch_up(lane, record.offset)
        if record.offset >= lane.partition.next_offset:
            await self._advance(lane, record)
        else:
            self._metrics.skipped.labels(self.name).inc()
        lane.wait(ack, self._clock_s())
        if self._pace.is_due(self._clock_s()):
            await self._settle()

    async def _advance(self, lane: Lane, record: Record) -> None:
        try:
            with self._metrics.process_seconds.labels(self.name).time():
                step = lane.partition.step(record)
        except ValidationError as error:
            await self._refuse(lane, record, error)
            return
        except Exception as error:  # noqa: BLE001 - a processor may raise anything
            await self._rebuild(lane, record, error)
            await self._refuse(lane, record, error)
            await self._settle()
            return
        self._outbox.add(step.outputs)
        self._metrics.stepped(self.name, step)
        await self._outbox.send()
        if self._outbox.is_full:
            await self._outbox.settle()

    async def _refuse(self, lane: Lane, record: Record, error: Exception) -> None:
        """The record becomes a dead letter, unless too many did."""
        if lane.partition.breaker.would_open():
            await self._settle()
            raise StreamInvalid(
                f"{self.name} stopped at {record.topic}/{record.partition}/{record.offset}: more than "
                f"{self._config.stream.bad_share:.0%} of the last {self._config.stream.bad_window} records are bad; "
                f"this one: {error}",
                hint="look at them with `ebbflow dlq`; mend producer or processor and start again: this record was not "
                "passed over. To give up such records, start with --set stream.bad_share=1",
            )
        step = lane.partition.refuse(record, error)
        self._outbox.add(step.outputs)
        self._metrics.stepped(self.name, step)
        await self._outbox.send()

    # State.

    async def _lane(self, record: Record) -> Lane:
        tp = (record.topic, record.partition)
        if tp not in self._assigned:
            raise _Abandoned
        lane = self._lanes.get(tp)
        if lane is None:
            epoch = self._epoch
            partition = await self._persist(lambda: self._recovery.open(record, self._assigned))
            self._check(epoch)
            lane = self._lanes.open(partition)
        if lane.partition.is_foreign(record):
            log.warning("topic was created anew: its state is dropped", processor=self.name, topic=record.topic)
            self._metrics.checkpoint_failures.labels(self.name, "foreign").inc()
            lane.partition = self._recovery.fresh(record)
        return lane

    async def _catch_up(self, lane: Lane, stop: int) -> None:
        """Process what lies between the state and `stop`: the committed offset is ahead of the checkpoint."""
        partition, epoch = lane.partition, self._epoch

        async def process() -> None:
            async for record in self._history.read(partition.topic, partition.number, lane.partition.next_offset, stop):
                self._check(epoch)
                self._count_missing(lane, record.offset)
                await self._advance(lane, record)

        await self._persist(process)
        self._count_missing(lane, stop)

    def _count_missing(self, lane: Lane, offset: int) -> None:
        missing = offset - lane.partition.next_offset
        if missing > 0:
            self._metrics.missing.labels(self.name).inc(missing)
            log.warning("records are gone from Kafka", processor=self.name, topic=lane.partition.topic, count=missing)
            lane.partition.next_offset = offset

    async def _rebuild(self, lane: Lane, record: Record, error: Exception) -> None:
        """State as before `record`, on which the processor failed: the last checkpoint and the records since.

        What those gave is in Kafka already, so it is not sent again.
        """
        if self._clock_s() >= self._quiet_until_s:
            self._quiet_until_s = self._clock_s() + _QUIET_S
            log.error(
                "processor failed: such records become dead letters, the state is built again; said once a minute",
                processor=self.name,
                record=f"{record.topic}/{record.partition}/{record.offset}",
                exc_info=error,
            )
        self._metrics.rebuilt.labels(self.name).inc()
        await self._outbox.settle()
        lane.partition = await self._persist(lambda: self._recovery.replay(lane.partition.saved, record))

    # Checkpoints.

    async def _settle(self) -> None:
        """Outputs, then checkpoints, then acknowledgements; each only when Kafka has the one before."""
        await self._outbox.settle()
        began_s = self._clock_s()
        round_ = self._lanes.checkpoint()
        self._outbox.add(round_.outputs)
        await self._outbox.settle()
        round_.written()
        ended_s = self._clock_s()
        if round_.outputs:
            self._pace.wrote(began_s, ended_s)
            self._metrics.checkpoint_seconds.labels(self.name).observe(ended_s - began_s)

    async def _settle_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s), self._lock:
                await self._settle()
        except TimeoutError:
            log.warning("left without a last checkpoint; work since the one before is repeated", processor=self.name)
            return False
        except Exception as error:  # noqa: BLE001 - leaving must go on whatever happens
            log.warning("left without a last checkpoint", processor=self.name, error=str(error))
            return False
        return True

    # Trouble.

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat what fails because Kafka is away."""
        epoch = self._epoch
        while True:
            self._check(epoch)
            try:
                result = await attempt()
            except EbbflowError as error:
                if not error.retriable:
                    raise
                self._report(error)
                await asyncio.sleep(_RETRY_S)
            else:
                self._report(None)
                return result

    def _check(self, epoch: int | None = None) -> None:
        if self._halted or epoch not in {None, self._epoch}:
            raise _Abandoned

    def _drop(self) -> None:
        self._lanes.close()
        self._recovery.forget()
        self._epoch += 1

    def _fail(self, error: EbbflowError) -> None:
        self._halted = True
        self.failure = error
        self._on_failure(error)

    def _report(self, error: EbbflowError | None) -> None:
        self._troubles.report("kafka", self.name, error)

    def _refused(self, output: Output, error: EbbflowError) -> list[Output]:
        """An output that is too large for its topic becomes a dead letter; a dead letter that is, is only counted."""
        self._metrics.refused.labels(self.name).inc()
        log.error("Kafka refused an output", processor=self.name, topic=output.topic, error=str(error), hint=error.hint)
        if output.topic == DEAD_LETTERS:
            return []
        self._metrics.dead_letters.labels(self.name, error.code).inc()
        record = Record(output.topic, -1, -1, -1, output.key, output.value, output.headers)
        letter = DeadLetter(error.code, f"output refused: {error}", output.value)
        return [dead_letters.to_output(record, letter, stage=self.name, time_unix_ns=self._clock_unix_ns())]


def _unexpected(where: str, error: Exception) -> InternalError:
    log.error("unexpected exception", where=where, exc_info=error)
    return InternalError(f"{where}: {type(error).__name__}: {error}", hint="report it; run with --set log.level=debug")
