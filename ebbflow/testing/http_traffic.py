"""Random but seeded HTTP/1 traffic on made-up connections, and what goes wrong with it on the way.

`traffic` makes wires, `disturb` drops and reorders their events, `process_events` runs a processor over them in
batches, and `read_spans` reads what came out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple, Self

from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from ebbflow.component import Processor, Record, Result
from ebbflow.testing.socket_events import UNIX_OFFSET_NS, Event, Wire, encode_batch, encode_heartbeat
from ebbflow.topics import RAW_SOCKETS
from ebbflow.v1 import raw_pb2

ROLES = (raw_pb2.ROLE_SERVER, raw_pb2.ROLE_CLIENT, raw_pb2.ROLE_UNKNOWN)
Pair = tuple[bytes, bytes]


def exchange(random: Random) -> Pair:
    """A request and its response, of any method, status and framing."""
    method = random.choice([b"GET", b"GET", b"POST", b"HEAD", b"OPTIONS", b"FOO"])
    request = method + b" /p/%d HTTP/1.1\r\nHost: h:81\r\n" % random.randrange(5)
    request += _body(random.randrange(4), b"x" * random.choice([0, 3, 50, 3000]), no_framing=True)
    status = random.choice([200, 200, 404, 500, 204, 304])
    response = b"HTTP/1.1 100 Continue\r\n\r\n" if not random.randrange(10) else b""
    response += b"HTTP/1.1 %d X\r\n" % status
    if status in {204, 304}:
        return request, response + b"\r\n"
    framed = _body(random.randrange(2), b"y" * random.choice([0, 3, 50, 3000]), no_framing=False)
    return request, response + (framed[: framed.index(b"\r\n\r\n") + 4] if method == b"HEAD" else framed)


def _body(framing: int, body: bytes, *, no_framing: bool) -> bytes:
    """The last fields of a head, and the body: 0 by length, 1 chunked, more: none where that is allowed."""
    if framing == 0:
        return b"Content-Length: %d\r\n\r\n" % len(body) + body
    if framing == 1 or not no_framing:
        chunk = b"%x\r\n" % len(body) + body + b"\r\n" if body else b""
        return b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    return b"\r\n"


def split(random: Random, data: bytes, chance: float) -> list[bytes]:
    """Perhaps cut into up to four pieces."""
    if random.random() >= chance or len(data) == 1:
        return [data]
    edges = sorted({0, len(data), *(random.randrange(1, len(data)) for _ in range(random.randrange(1, 4)))})
    return [data[first:last] for first, last in pairwise(edges)]


def converse(random: Random, wire: Wire, pairs: Sequence[Pair], *, splits: float, pipelined: float, cut: float) -> None:
    """Exchange the pairs on a wire: in several events, several at once, with payload cut off, by these chances."""
    done = 0
    while done < len(pairs):
        group = pairs[done : done + (random.randrange(2, 5) if random.random() < pipelined else 1)]
        done += len(group)
        for number, move in enumerate((wire.ask, wire.answer)):
            for data in split(random, b"".join(pair[number] for pair in group), splits):
                move(data, seen=random.randrange(len(data) + 1) if random.random() < cut else None)


def traffic(random: Random) -> list[Wire]:
    """A few connections of both roles, each with some exchanges, ended in all ways or not at all."""
    splits, pipelined = random.choice([0.0, 0.3, 1.0]), random.choice([0.0, 0.3])
    wires = []
    for number in range(random.randrange(1, 4)):
        wire = Wire(
            (1 << 20) + number,
            role=random.choice(ROLES),
            time_ns=1_000_000_000 + number * 7,
            step_ns=random.choice([10, 1000, 1_000_000]),
            pid=77 + number % 2,
        )
        pairs = [exchange(random) for _ in range(random.randrange(8))]
        converse(random, wire, pairs, splits=splits, pipelined=pipelined, cut=0.05)
        _end(random, wire)
        wires.append(wire)
    return wires


def _end(random: Random, wire: Wire) -> None:
    """EOF, reset or shutdown and then close; only close; the process ends; nothing."""
    first, closes = random.choice(
        [(None, True), (wire.eof, True), (lambda: wire.error(104), True), (wire.exit, False), (None, False)]
    )
    if first is not None:
        first()
    if closes:
        wire.close()


def disturb(random: Random, events: Iterable[Event], *, dropped: float, swapped: float) -> list[Event]:
    """Drop events, and let some come up to three places later, by these chances."""
    kept = [event for event in events if random.random() >= dropped]
    for _ in range(int(swapped * len(kept))):
        index = random.randrange(len(kept))
        event = kept.pop(index)
        kept.insert(min(len(kept), index + random.randrange(4)), event)
    return kept


def record(value: bytes, offset: int) -> Record:
    return Record(RAW_SOCKETS, 0, offset, 0, b"host-1/0", value)


def process_events(
    processor: Processor,
    events: Sequence[Event],
    wires: Sequence[Wire],
    cuts: Iterable[int] = (),
    *,
    restart: bool = False,
) -> list[Result]:
    """Run a processor over the events, cut into batches at these indices, and a heartbeat long after.

    `restart`: after each batch a new processor takes over from the snapshot.
    """
    edges = [0, *sorted(cuts), len(events)]
    values = [
        encode_batch(events[first:last], wires, sequence=number) for number, (first, last) in enumerate(pairwise(edges))
    ]
    last_ns = max((event.time_ns for event in events), default=0)
    values.append(encode_heartbeat(last_ns + 1_000_000_000_000, sequence=len(values)))
    results = []
    for offset, value in enumerate(values):
        results.append(processor.process(record(value, offset)))
        if restart:
            state, old = processor.snapshot(), processor
            processor = type(old)(common_path=old._common_path)  # type: ignore[call-arg,attr-defined]  # noqa: SLF001
            processor.restore(state)
    return results


class Seen(NamedTuple):
    """The gist of a span; times are monotonic."""

    name: str
    kind: int
    start_ns: int
    end_ns: int
    path: str | None
    status: int | None
    incomplete: str | None
    raw: bytes

    @classmethod
    def of(cls, span: Span) -> Self:
        values = attributes(span)
        return cls(
            span.name,
            span.kind,
            span.start_time_unix_nano - UNIX_OFFSET_NS,
            span.end_time_unix_nano - UNIX_OFFSET_NS,
            values.get("url.path"),  # type: ignore[arg-type]
            values.get("http.response.status_code"),  # type: ignore[arg-type]
            values.get("ebbflow.incomplete"),  # type: ignore[arg-type]
            span.SerializeToString(),
        )


def attributes(span: Span) -> dict[str, str | int]:
    return {entry.key: entry.value.string_value or entry.value.int_value for entry in span.attributes}


def read_spans(results: Iterable[Result]) -> list[Seen]:
    """All spans of all outputs, by start time."""
    spans = [
        Seen.of(span)
        for result in results
        for output in result.outputs
        for resource in TracesData.FromString(output.value).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    return sorted(spans, key=lambda seen: (seen.start_ns, seen.raw))


def add_counters(results: Iterable[Result]) -> dict[str, int]:
    """Sums of all counters that are not zero, but of those that count batches."""
    sums: dict[str, int] = {}
    for result in results:
        for name, count in result.counters.items():
            sums[name] = sums.get(name, 0) + count
    return {name: count for name, count in sums.items() if count and name != "batches"}
