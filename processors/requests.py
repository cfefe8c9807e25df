"""Which bytes on a connection are an HTTP exchange, and what is its span?

Input: ebbflow.raw.sockets, RawBatch of `struct sockets_row`, keyed by host and process bucket, so that one partition
sees a process's connections whole and in order. Output: otlp_spans, TracesData, with the key of the input record; every
value below 900 kB; headers `ebbflow-source` (topic/partition/offset of the input) and, where an input record gives
several, `ebbflow-part` (number/count; of a source that was given up later: end/number/count).

Event time is the rows' monotonic time, per source (host, boot, producer run, bucket). Events may be late by
`RequestLimits.reorder_ns`; a missing one is given up then, or sooner when much has come behind it. An exchange times
out after `requests.exchange_timeout_s` without an event. A repeated batch is dropped by its source and sequence.

Memory: at most `max_connections` connections and `max_pending_bytes` of payload held for reassembly, per partition;
per connection 64 events or 256 KiB held, a head of 64 KiB, 1024 requests waiting; 8192 heads of up to 2 KiB cached. The
connections silent for longest are forgotten first; what was open on them is emitted as incomplete.

Known to fail: the number of lost exchanges is exact where each message is one event, and an estimate elsewhere; where
single events of longer messages are lost at random on both sides (more than a tenth of them), a response may be paired
with the request before its own. A body that looks like a head at the start of an event, after a loss, is taken for one.
The end of a message is estimated when its framing was beyond the capture limit.

Counters of a record (ebbflow/ledger.py):
    events            rows that were read            invalid          rows that were not; each is in a dead letter
    batches           1                              duplicates       1 for a repeat, which counts as nothing else
    lost_batches      sequence numbers skipped       spans            exchanges + incomplete
    exchanges         complete ones                  incomplete       with a span that says what is missing
    lost_exchanges    of which nothing was seen      lost_events      events missing from streams
    late_events       after their place was given up orphan_responses to requests before the connection was watched
    not_http          connections found to be none   opaque_events    events on those and in tunnels
    tunnels           101 and CONNECT                malformed        no head where one had to be
    evicted           connections forgotten early

Reference: RFC 9110, RFC 9112; OpenTelemetry semantic conventions 1.44.0; W3C Trace Context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import ClassVar, Self

import msgpack
import numpy as np

from ebbflow.component import Output, Processor, Record, Result
from ebbflow.config import Config
from ebbflow.protocols.http1_heads import Heads
from ebbflow.protocols.http1_messages import Tally
from ebbflow.records import Batch, decode
from ebbflow.requests.shared import RequestLimits, Shared
from ebbflow.requests.source import Source
from ebbflow.requests.validate import LAYOUT, ValidationLimits, dead_letters, find_invalid
from ebbflow.topics import OTLP_SPANS, RAW_SOCKETS

MAX_VALUE_BYTES = 900_000
_MAX_PART_BYTES = 800_000
_MAX_SOURCES = 1024
_SILENT_NS = 3_600_000_000_000
SECOND_NS = 1_000_000_000


class Requests(Processor):
    """See above. `common_path` False reads everything the long way, for comparison."""

    name: ClassVar[str] = "requests"
    inputs: ClassVar[tuple[str, ...]] = (RAW_SOCKETS,)
    snapshot_version: ClassVar[int] = 1

    def __init__(
        self,
        limits: RequestLimits | None = None,
        validation: ValidationLimits | None = None,
        *,
        common_path: bool = True,
    ) -> None:
        self._limits = limits or RequestLimits()
        self._validation = validation or ValidationLimits()
        self._common_path = common_path
        self._reset()

    def _reset(self) -> None:
        self._shared = Shared(self._limits, self._common_path, Heads(), Tally(), [])
        self._sources: dict[tuple[str, bytes, int, int], Source] = {}  # longest unheard first

    @classmethod
    def from_config(cls, config: Config) -> Self:
        section = config.requests
        return cls(
            RequestLimits(
                exchange_timeout_ns=int(section.exchange_timeout_s * SECOND_NS),
                max_connections=section.max_connections,
                max_pending_bytes=section.max_pending_bytes,
            )
        )

    def process(self, record: Record) -> Result:
        batch = decode(record.value, LAYOUT)
        source, lost = self._source(batch)
        if source is None:
            return Result(counters={"duplicates": 1})
        source.origin = (record.key, f"{record.topic}/{record.partition}/{record.offset}".encode())
        invalid = find_invalid(batch, self._validation)
        valid = ~np.logical_or.reduce(list(invalid.values())) if invalid else np.ones(len(batch.rows), np.bool_)
        source.read(batch, valid)
        events = int(valid.sum())
        counters = {"batches": 1, "events": events, "invalid": len(valid) - events, "lost_batches": lost}
        letters = list(dead_letters(batch, invalid, self._validation)) if invalid else []
        outputs = self._outputs(source)
        return Result(outputs, letters, {**counters, **self._counts()}, event_time_ns=source.unix_ns)

    def tick(self, event_time_ns: int) -> Result:
        """Give up sources that have been silent for an hour, or are too many; the others keep their own time."""
        outputs: list[Output] = []
        surplus = len(self._sources) - _MAX_SOURCES
        for number, (key, source) in enumerate(list(self._sources.items())):
            if number < surplus or event_time_ns - source.unix_ns > _SILENT_NS:
                outputs += self._drop(key)
        counts = self._counts()
        return Result(outputs, counters=counts if any(counts.values()) else {})

    def snapshot(self) -> bytes:
        packed: bytes = msgpack.packb([source.pack() for source in self._sources.values()])
        return packed

    def restore(self, state: bytes) -> None:
        self._reset()
        for packed in msgpack.unpackb(state, use_list=True):
            source = Source.unpack(packed, self._shared)
            self._sources[source.key] = source

    def gauges(self) -> Mapping[str, float]:
        shared = self._shared
        return {
            "connections": shared.connections,
            "pending_bytes": shared.pending_bytes,
            "sources": len(self._sources),
            "known_heads": len(shared.heads.requests.known) + len(shared.heads.responses.known),
        }

    def _source(self, batch: Batch) -> tuple[Source | None, int]:
        """The batch's source, None for a repeat, and how many batches are missing before it."""
        sequence = batch.envelope.sequence
        source = self._sources.pop(batch.source, None)
        if source is None:
            # Joining a run that began before: what was open then has been seen in part.
            since_ns = int(batch.rows["time_ns"].min()) if sequence and len(batch.rows) else 0
            source = Source(batch.source, batch.envelope.host_name, self._shared, since_ns=since_ns)
            source.sequence = sequence - 1
        self._sources[batch.source] = source
        if sequence <= source.sequence:
            return None, 0
        lost = sequence - source.sequence - 1
        source.sequence = sequence
        return source, lost

    def _drop(self, key: tuple[str, bytes, int, int]) -> list[Output]:
        source = self._sources.pop(key)
        source.close()
        return self._outputs(source, "end/")

    def _outputs(self, source: Source, late: str = "") -> list[Output]:
        values = join_parts(source.take_spans(_MAX_PART_BYTES), MAX_VALUE_BYTES)
        key, origin = source.origin
        outputs = []
        for number, value in enumerate(values):
            name = f"{late}{number}/{len(values)}".encode()
            part = (("ebbflow-part", name),) if late or len(values) > 1 else ()
            outputs.append(Output(OTLP_SPANS, key, value, (("ebbflow-source", origin), *part)))
        return outputs

    def _counts(self) -> dict[str, int]:
        """What was counted since the last call."""
        shared = self._shared
        counts = {
            "spans": shared.exchanges + shared.incomplete,
            "exchanges": shared.exchanges,
            "incomplete": shared.incomplete,
            "evicted": shared.evicted,
            **asdict(shared.tally),
        }
        shared.exchanges = shared.incomplete = shared.evicted = 0
        for field in fields(Tally):
            setattr(shared.tally, field.name, 0)
        return counts


def join_parts(parts: list[bytes], most_bytes: int) -> list[bytes]:
    """Join encoded ResourceSpans to values of at most `most_bytes` each, or of one part."""
    values: list[list[bytes]] = []
    size = most_bytes
    for part in parts:
        if size + len(part) > most_bytes:
            values.append([])
            size = 0
        values[-1].append(part)
        size += len(part)
    return [b"".join(value) for value in values]
