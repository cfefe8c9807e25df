"""The pipeline's book-keeping: what went into every stage, what came out, and which stage leaks.

Every stage writes entries to one topic: {"stage", "source", "time_unix_ns", "counters": {...}} as JSON. The key is
`stage|source`, and the last entry of a key wins, so what is processed again after a crash counts once.

    stage               source                    counters
    producer.sockets    host/run                  cumulative: captured = lost + dropped + published (+ buffered)
    requests            topic/partition/offset    events, invalid, spans, exchanges, incomplete, lost_exchanges, …
    sink.traces         topic/partition/offset    received = exported + rejected

A sink's source is the record from which the one it takes was made, where a header says so (`ebbflow-source`, and
`ebbflow-part` where there are several), so that what a processor repeats counts once as well.

A balance is an equation between sums of counters (`BALANCES`); the stage that is named with it is the one where the
difference arises. An equation that does not hold while entries still change is only in motion.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from ebbflow.component import Output
from ebbflow.errors import ValidationError
from ebbflow.topics import LEDGER

IDLE_AFTER_NS = 5_000_000_000
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.1, 5.0

Term = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    stage: str
    source: str
    time_unix_ns: int
    counters: Mapping[str, int]

    @property
    def key(self) -> bytes:
        return f"{self.stage}|{self.source}".encode()

    def to_output(self) -> Output:
        """The Kafka record."""
        body = {
            "stage": self.stage,
            "source": self.source,
            "time_unix_ns": self.time_unix_ns,
            "counters": dict(self.counters),
        }
        return Output(LEDGER, self.key, orjson.dumps(body))


def decode(value: bytes | None) -> Entry:
    """Parse a ledger record's value.

    Raises:
        ValidationError: it is no ledger entry.
    """
    try:
        body = orjson.loads(value or b"")
        entry = Entry(body["stage"], body["source"], body["time_unix_ns"], body["counters"])
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise ValidationError(f"not a ledger entry: {error}") from None
    texts = (entry.stage, entry.source)
    if not (all(isinstance(text, str) for text in texts) and isinstance(entry.counters, dict)):
        raise ValidationError("not a ledger entry: stage, source or counters of another type")
    if not all(type(number) is int for number in (entry.time_unix_ns, *entry.counters.values())):
        raise ValidationError("not a ledger entry: a number is no integer")
    return entry


@dataclass(frozen=True, slots=True)
class Balance:
    """`total` must equal the sum of `parts`; `stage` is to blame where it does not."""

    name: str
    stage: str
    total: Term
    parts: tuple[Term, ...]


FEATURES = ("sockets", "tcp", "process", "syscalls", "cpu", "memory", "disk")


def _captured(stage: str) -> Balance:
    parts = ("lost", "dropped", "published", "buffered")
    return Balance(
        "captured = lost + dropped + published + buffered",
        stage,
        (stage, "captured"),
        tuple((stage, part) for part in parts),
    )


BALANCES: tuple[Balance, ...] = (
    *(_captured(f"producer.{feature}") for feature in FEATURES),
    Balance(
        "published = events + invalid",
        "requests",
        ("producer.sockets", "published"),
        (("requests", "events"), ("requests", "invalid")),
    ),
    Balance(
        "spans = exported + rejected",
        "sink.traces",
        ("requests", "spans"),
        (("sink.traces", "exported"), ("sink.traces", "rejected")),
    ),
)

# What never became a span, or never reached a backend, and what that means to a user.
LOSSES: tuple[tuple[Term, str], ...] = (
    (("producer.sockets", "lost"), "events the kernel could not hand over (ring full)"),
    (("producer.sockets", "untracked_connections"), "connections beyond the kernel's table"),
    (("producer.sockets", "io_uring_calls"), "io_uring calls, whose payload is not seen"),
    (("producer.sockets", "dropped"), "events dropped while Kafka was away"),
    *(
        ((f"producer.{feature}", "lost"), f"{feature}: events the kernel could not hand over")
        for feature in FEATURES[1:]
    ),
    *(
        ((f"producer.{feature}", "dropped"), f"{feature}: events dropped while Kafka was away")
        for feature in FEATURES[1:]
    ),
    *(
        ((f"producer.{feature}", "map_lost"), f"{feature}: events beyond the kernel's tables")
        for feature in FEATURES[1:]
    ),
    (("requests", "invalid"), "events that are not valid"),
    (("requests", "lost_exchanges"), "requests lost: seen, but not enough of them for a span"),
    (("requests", "bad_records"), "batches that could not be read (in ebbflow.dlq)"),
    (("sink.traces", "rejected"), "spans the backend refused"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A balance with its numbers: `difference` is what is missing in the parts, negative when they have more."""

    balance: Balance
    total: int
    parts: Mapping[str, int]

    @property
    def difference(self) -> int:
        return self.total - sum(self.parts.values())


@dataclass(slots=True)
class Ledger:
    """All entries so far, the last of each key.

    Attributes:
        invalid: records that are no ledger entries.
        changed_unix_ns: when an entry last had other counters than the one before it.
    """

    entries: dict[bytes, Entry] = field(default_factory=dict)
    invalid: int = 0
    changed_unix_ns: int = 0

    def add(self, value: bytes | None) -> None:
        """Take the next record of the topic."""
        try:
            entry = decode(value)
        except ValidationError:
            self.invalid += 1
            return
        before = self.entries.get(entry.key)
        if before is None or before.counters != entry.counters:
            self.changed_unix_ns = max(self.changed_unix_ns, entry.time_unix_ns)
        self.entries[entry.key] = entry

    def totals(self) -> dict[str, dict[str, int]]:
        """Sums by stage and counter, sorted by stage."""
        sums: dict[str, Counter[str]] = {}
        for entry in self.entries.values():
            sums.setdefault(entry.stage, Counter()).update(entry.counters)
        return {stage: dict(sums[stage]) for stage in sorted(sums)}

    def lines(self, balances: Iterable[Balance] = BALANCES) -> list[Line]:
        """Every balance whose stages have written anything."""
        totals = self.totals()

        def value(term: Term) -> int:
            return totals.get(term[0], {}).get(term[1], 0)

        return [
            Line(balance, value(balance.total), {name: value((stage, name)) for stage, name in balance.parts})
            for balance in balances
            if balance.total[0] in totals or balance.parts[0][0] in totals
        ]

    def losses(self) -> dict[str, int]:
        """What was lost, as text for people to number; only what is not zero."""
        totals = self.totals()
        found = {text: totals.get(stage, {}).get(name, 0) for (stage, name), text in LOSSES}
        return {text: number for text, number in found.items() if number}

    def is_idle(self, now_unix_ns: int) -> bool:
        """Whether nothing changed lately, so that a difference is a leak and not motion."""
        return now_unix_ns - self.changed_unix_ns >= IDLE_AFTER_NS


class Producer(Protocol):
    """What is needed of aiokafka's producer."""

    async def send(self, topic: str, value: bytes, *, key: bytes) -> Awaitable[Any]: ...


class LedgerWriter:
    """Writes entries for a sink or a producer; nothing is lost while the process lives.

    At most `limit` entries are on their way or wait to be sent again; then `add` waits for them. A later entry of the
    same key takes the place of one that has not been sent yet.
    """

    def __init__(
        self, producer: Producer, *, clock_unix_ns: Callable[[], int] = time.time_ns, limit: int = 1000
    ) -> None:
        self._producer = producer
        self._clock_unix_ns = clock_unix_ns
        self._limit = limit
        self._pending: dict[bytes, Output] = {}
        self._sent: dict[bytes, asyncio.Future[Any]] = {}

    async def add(self, stage: str, source: str, counters: Mapping[str, int]) -> None:
        """Write one entry. Returns before Kafka has it; `flush` waits for that."""
        entry = Entry(stage, source, self._clock_unix_ns(), counters)
        if len(self._pending) >= self._limit:
            await self.flush()
        await self._send(entry.key, entry.to_output())
        self._forget_delivered()

    async def flush(self) -> None:
        """Wait until Kafka has acknowledged every entry; sends again for as long as it takes."""
        backoff_s = _FIRST_BACKOFF_S
        while self._pending:
            await asyncio.gather(*self._sent.values(), return_exceptions=True)
            self._forget_delivered()
            if not self._pending:
                return
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
            for key, output in list(self._pending.items()):
                await self._send(key, output)

    async def _send(self, key: bytes, output: Output) -> None:
        self._pending[key] = output
        self._sent.pop(key, None)
        try:
            self._sent[key] = asyncio.ensure_future(await self._producer.send(output.topic, output.value, key=key))
        except Exception:  # noqa: BLE001 - whatever it was, the entry stays pending and goes out with `flush`
            return

    def _forget_delivered(self) -> None:
        for key, future in list(self._sent.items()):
            if not future.done():
                return  # the topic has one partition, so what was sent later is not there yet either
            del self._sent[key]
            if not future.cancelled() and future.exception() is None:
                del self._pending[key]
