from __future__ import annotations

import numpy as np

from ebbflow.protocols.http1_heads import Heads
from ebbflow.protocols.http1_messages import Tally
from ebbflow.records import decode
from ebbflow.requests.shared import RequestLimits, Shared
from ebbflow.requests.source import Source
from ebbflow.requests.validate import LAYOUT, ValidationLimits, find_invalid
from ebbflow.testing.socket_events import Event, Wire, encode_batch, encode_heartbeat

GET = b"GET /%d HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SECOND_NS = 1_000_000_000


def source_of(**limits: int) -> Source:
    return Source(
        ("h", bytes(16), 1, 0), "host", Shared(RequestLimits(**limits), True, Heads(), Tally(), []), since_ns=0
    )


def read(source: Source, events: list[Event], *wires: Wire) -> None:
    batch = decode(encode_batch(events, wires, sequence=0), LAYOUT)
    assert find_invalid(batch, ValidationLimits()) == {}
    source.read(batch, np.ones(len(batch.rows), np.bool_))


def beat(source: Source, monotonic_ns: int) -> None:
    source.read(decode(encode_heartbeat(monotonic_ns, sequence=0), LAYOUT), np.ones(0, np.bool_))


def test_source_heartbeat_moves_event_time() -> None:
    source = source_of()
    beat(source, 5 * SECOND_NS)
    assert source.watermark_ns == 5 * SECOND_NS
    beat(source, 4 * SECOND_NS)
    assert source.watermark_ns == 5 * SECOND_NS


def test_source_missing_event_is_given_up_when_event_time_has_passed() -> None:
    source, wire = source_of(reorder_ns=SECOND_NS), Wire(1 << 20)
    for number in range(2):
        wire.receive(GET % number)
        wire.send(OK)
    read(source, wire.events[2:], wire)
    beat(source, wire.time_ns + SECOND_NS - 2000)
    assert source.shared.tally.lost_events == 0
    beat(source, wire.time_ns + SECOND_NS)
    assert (source.shared.tally.lost_events, source.shared.exchanges) == (2, 1)
    assert source.holding == {}


def test_source_missing_event_is_given_up_by_a_later_row_before_the_batch_ends() -> None:
    source, wire = source_of(reorder_ns=SECOND_NS), Wire(1 << 20)
    for number in range(3):
        wire.receive(GET % number)
        wire.send(OK)
    wire.time_ns += 2 * SECOND_NS
    wire.receive(GET % 9)
    wire.send(OK)
    lost = wire.events.pop(2)
    read(source, [*wire.events, lost], wire)
    assert (source.shared.tally.lost_events, source.shared.tally.late_events) == (1, 1)


def test_source_closed_generations_are_remembered_up_to_a_limit() -> None:
    source = source_of(max_closed=2)
    wires = [Wire((1 << 20) + number) for number in range(4)]
    for wire in wires:
        wire.receive(GET % 1)
        wire.close()
        read(source, wire.events, wire)
    assert list(source.closed) == [wires[2].generation, wires[3].generation]
    assert source.connections == {}


def test_source_exit_closes_the_connections_of_that_process_only() -> None:
    source = source_of()
    one, other = Wire(1 << 20, pid=5), Wire((1 << 20) + 1, pid=6)
    for wire in (one, other):
        wire.receive(GET % 1)
    one.exit()
    read(source, [*one.events, *other.events], one, other)
    assert list(source.connections) == [other.generation]
    assert source.shared.incomplete == 1


def test_source_rows_that_open_nothing_open_nothing() -> None:
    source, wire = source_of(), Wire(1 << 20)
    wire.eof()
    wire.shutdown()
    wire.error(104)
    wire.close()
    read(source, wire.events, wire)
    assert (source.connections, source.shared.incomplete) == ({}, 0)


def test_source_unfinished_shutdown_for_reading_ends_nothing() -> None:
    source, wire = source_of(), Wire(1 << 20)
    wire.receive(GET % 1)
    wire.shutdown(how=0)
    wire.send(OK)
    read(source, wire.events, wire)
    assert source.shared.exchanges == 1


def test_source_close_breaks_off_what_is_open() -> None:
    source, wire = source_of(), Wire(1 << 20)
    wire.receive(GET % 1)
    read(source, wire.events, wire)
    source.close()
    assert (source.shared.connections, source.shared.incomplete) == (0, 1)
