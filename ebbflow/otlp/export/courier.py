"""Carries records to an exporter: joins, splits, repeats, and accounts for every item.

Records are joined by writing their bytes one after the other; only what is too large for a request is parsed and
split, first between resources, then scopes, then items. A request that may succeed later is repeated for ever with
backoff: Kafka holds the data, and the offsets do not move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from ebbflow.component import DeadLetter, Delivery, Record, Report
from ebbflow.errors import EbbflowError, RateLimited, Rejected, TooLarge
from ebbflow.otlp.export.answer import Accepted, Exporter
from ebbflow.otlp.export.backoff import Backoff
from ebbflow.otlp.signals import Signal
from ebbflow.telemetry import logger

log = logger(__name__)


@dataclass(slots=True)
class Parcel:
    """One record on its way, with `count` items; in the end they are `exported` or `rejected`."""

    record: Record
    count: int
    exported: int = 0
    rejected: int = 0
    dead_letters: list[DeadLetter] = field(default_factory=list)

    def to_delivery(self) -> Delivery:
        counters = {"received": self.count, "exported": self.exported, "rejected": self.rejected}
        return Delivery(self.record, counters, tuple(self.dead_letters))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A record, or what was split off it."""

    parcel: Parcel
    value: bytes
    count: int


class Courier:
    """Delivers parcels of one signal through one exporter.

    Args:
        batch_bytes: largest request, before compression.
        random: for the jitter of retries.
        sleep: waits between retries; `asyncio.sleep` but in tests.
    """

    def __init__(
        self,
        signal: Signal,
        exporter: Exporter,
        *,
        batch_bytes: int,
        random: Random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._signal = signal
        self._exporter = exporter
        self._batch_bytes = batch_bytes
        self._random = random
        self._sleep = sleep
        self._last_warning = ""

    async def deliver(self, parcels: Sequence[Parcel], report: Report) -> None:
        """Send everything, in order; every item is accounted for in its parcel afterwards."""
        for batch in self._batches(parcels):
            await self._send(batch, report)

    def _batches(self, parcels: Sequence[Parcel]) -> Iterator[list[_Piece]]:
        """Pieces joined up to the request limit."""
        batch: list[_Piece] = []
        size = 0
        for parcel in parcels:
            for piece in self._cut(_Piece(parcel, parcel.record.value, parcel.count)):
                if batch and size + len(piece.value) > self._batch_bytes:
                    yield batch
                    batch, size = [], 0
                batch.append(piece)
                size += len(piece.value)
        if batch:
            yield batch

    def _cut(self, piece: _Piece) -> Iterator[_Piece]:
        """Pieces that fit a request. A single item that does not is refused here: it must not be sent."""
        if not piece.count:
            return
        if len(piece.value) <= self._batch_bytes:
            yield piece
            return
        halves = self._halve(piece)
        if not halves:
            limit = f"one item of {len(piece.value)} bytes, otlp.batch_bytes is {self._batch_bytes}"
            self._refuse([piece], TooLarge(limit, hint="raise otlp.batch_bytes"))
        for half in halves:
            yield from self._cut(half)

    async def _send(self, batch: list[_Piece], report: Report) -> None:
        try:
            accepted = await self._until_answered(b"".join(piece.value for piece in batch), report)
        except TooLarge as error:
            halves = self._divide(batch)
            if not halves:
                report(error)
                self._refuse(batch, error)
            for half in halves:
                await self._send(half, report)
        except Rejected as error:
            report(error)
            self._refuse(batch, error)
        else:
            report(None)
            self._settle(batch, accepted)

    async def _until_answered(self, body: bytes, report: Report) -> Accepted:
        """Repeat one request until the answer is final."""
        backoff = Backoff(self._random)
        while True:
            try:
                return await self._exporter.send(body)
            except EbbflowError as error:
                if not error.retriable:
                    raise
                report(error)
                asked_s = error.retry_after_s if isinstance(error, RateLimited) else None
                await self._sleep(backoff.delay_s(asked_s))

    def _divide(self, batch: list[_Piece]) -> list[list[_Piece]]:
        """Two smaller batches; none when there is only one item left."""
        if len(batch) > 1:
            middle = len(batch) // 2
            return [batch[:middle], batch[middle:]]
        return [[half] for half in self._halve(batch[0])]

    def _halve(self, piece: _Piece) -> list[_Piece]:
        halves = self._signal.halve(piece.value) or ()
        return [_Piece(piece.parcel, half, self._signal.count(half)) for half in halves]

    def _refuse(self, batch: list[_Piece], error: Rejected) -> None:
        for piece in batch:
            piece.parcel.rejected += piece.count
            piece.parcel.dead_letters.append(DeadLetter(error.code, str(error), piece.value, piece.count))

    def _settle(self, batch: list[_Piece], accepted: Accepted) -> None:
        """Account for what was taken. Which items were refused in part nobody says, and they must not be sent again:
        they are counted from the last on, so that the sum is right.
        """
        if accepted.message != self._last_warning:
            self._last_warning = accepted.message
            log.warning("backend accepts with a warning", rejected=accepted.rejected, message=accepted.message)
        left = accepted.rejected
        for piece in reversed(batch):
            rejected = min(left, piece.count)
            left -= rejected
            piece.parcel.rejected += rejected
            piece.parcel.exported += piece.count - rejected
