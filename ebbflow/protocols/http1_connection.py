"""One connection: two streams put in order, two readers, and the pairing between them.

                 events                 messages                exchanges
    receive ──> StreamBuffer ──> MessageReader ──┐
                                                 ├──> Exchanges ──> finished
    send    ──> StreamBuffer ──> MessageReader ──┘

Which direction carries the requests is known from the role (accept or connect), or decided by the first start line
that is seen. A connection whose first bytes are no HTTP/1, or that became a tunnel (101, CONNECT), is opaque: its
events are counted and nothing else. So is one in which no head was found in many events.

    connection = Connection(role, aligned=True, heads=..., tally=..., finished=...)
    connection.data(direction, segment)   one event
    connection.ended(direction, ...)      the sender of that direction will send no more
    connection.failed(reason, ...)        reset, time-out
    connection.closed(reason, ..., totals)
    connection.release() / expire(...)    event time has passed
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import merge
from typing import Any

from ebbflow.protocols.http1 import MessageReader, State
from ebbflow.protocols.http1_exchanges import Exchanges
from ebbflow.protocols.http1_framing import Guess, looks_like_request, looks_like_response
from ebbflow.protocols.http1_heads import Heads
from ebbflow.protocols.http1_messages import Exchange, Lost, Request, Tally
from ebbflow.protocols.http1_sides import RequestListener, ResponseListener, Side
from ebbflow.protocols.stream import Gap, Segment

RECEIVE, SEND = 0, 1
CONNECTION_CLOSED = "connection_closed"
TIMEOUT = "timeout"
MAX_FRUITLESS_EVENTS = 256
Totals = tuple[tuple[int, int], tuple[int, int]]
"""Bytes and events of the whole connection, received and sent."""


class Connection:
    """See above.

    Args:
        request_direction: which direction carries requests; None: to be found out.
        aligned: positions count from the first byte of the connection, and nothing of it was missed on purpose.
        start: position and number of the first event to come, by direction.
    """

    __slots__ = (
        "_aligned",
        "_fruitless",
        "_tally",
        "exchanges",
        "last_ns",
        "opaque",
        "request_direction",
        "responses",
        "sides",
        "waiting",
    )

    def __init__(
        self,
        request_direction: int | None,
        *,
        aligned: bool,
        heads: Heads,
        tally: Tally,
        finished: list[Exchange],
        start: Totals = ((0, 0), (0, 0)),
    ) -> None:
        self._aligned = aligned
        self._tally = tally
        self._fruitless = 0
        self.opaque = False
        self.last_ns = 0
        self.request_direction: int | None = None
        self.sides = (Side(*start[RECEIVE]), Side(*start[SEND]))
        self.exchanges = Exchanges(heads, tally, finished, half_seen=not aligned)
        self.waiting: deque[Request | Lost] = self.exchanges.requests
        self.responses: MessageReader
        if request_direction is not None:
            self.decide(request_direction)

    @property
    def is_server(self) -> bool:
        return self.request_direction != SEND

    @property
    def held_since_ns(self) -> int:
        """Time of the oldest event held back; 0: none."""
        times = [side.held_since_ns for side in self.sides if side.held_since_ns]
        return min(times, default=0)

    @property
    def pending_bytes(self) -> int:
        pending = self.sides[0].held_bytes + self.sides[1].held_bytes
        if self.request_direction is not None:
            pending += self.sides[0].reader.pending_bytes + self.sides[1].reader.pending_bytes
        return pending

    @property
    def is_open(self) -> bool:
        return not self.exchanges.quiet

    def decide(self, request_direction: int) -> None:
        """Set which direction carries requests; the other carries responses."""
        self.request_direction = request_direction
        self.exchanges.strict = request_direction == RECEIVE
        for direction, side in enumerate(self.sides):
            side.is_request = direction == request_direction
            side.listener = RequestListener(self) if side.is_request else ResponseListener(self)
            aligned = self._aligned and side.position == 0
            side.reader = MessageReader(side.listener, responses=not side.is_request, aligned=aligned, nth=side.nth)
            if not side.is_request:
                self.responses = side.reader

    def data(self, direction: int, segment: Segment) -> None:
        """Bytes moved."""
        self.last_ns = segment.time_ns
        if self.opaque:
            self._tally.opaque_events += 1
            return
        side, other = self.sides[direction], self.sides[1 - direction]
        if other.held_since_ns:
            # What is missing there may belong before this: the two directions are read in step.
            side.hold(segment)
        elif side.accept(segment):
            self._read(((side, segment),))
            return
        if side.is_full or (side.is_whole and other.is_whole):
            self.release()
        else:
            self._note_late()
            self._update_ready()

    def ended(self, direction: int, position: int, nth: int, time_ns: int) -> None:
        """No more bytes will come in this direction: the end of the stream (RFC 9112, 9.8)."""
        self.last_ns = time_ns
        if self.opaque:  # its events were not put in order, so nothing can be missing
            return
        side = self.sides[direction]
        self.release()
        self._read((side, item) for item in side.finish(position, nth, time_ns))
        if self.opaque or self.request_direction is None or side.is_request:  # opaque: since just now
            return
        side.reader.finish(side.nth, time_ns, clean=True)
        self._abort(CONNECTION_CLOSED, time_ns)
        self._update_ready()

    def failed(self, reason: str, time_ns: int) -> None:
        """The connection broke: no open exchange can be completed."""
        self.last_ns = time_ns
        self.release()
        self._abort(reason, time_ns)
        self._update_ready()

    def closed(self, reason: str, time_ns: int, totals: Totals | None) -> None:
        """This end closed, or its process ended. The connection is of no use after it."""
        if self.opaque:
            return
        self.release()
        first = self.request_direction or 0
        for direction in (first, 1 - first):
            side = self.sides[direction]
            position, nth = totals[direction] if totals else (0, 0)
            self._read((side, item) for item in side.finish(position, nth, time_ns))
        if self.request_direction is None:
            return
        for side in self.sides:
            # What a server sends ends with its own close; what a client receives does not.
            side.reader.finish(side.nth, time_ns, clean=self.is_server)
        self._abort(reason, time_ns)

    def release(self) -> None:
        """Give up what is missing; read what is held in both directions, by time."""
        held = ([(side, item) for item in side.release()] for side in self.sides)
        self._read(merge(*held, key=_time_ns))

    def shed(self) -> None:
        """Free all memory that can be freed."""
        self.release()
        if self.request_direction is not None:
            for side in self.sides:
                side.reader.give_up()
        self._update_ready()

    def expire(self) -> None:
        """What is open has been open for too long."""
        self.release()
        self._abort(TIMEOUT, self.last_ns)
        self._update_ready()

    def refuse(self) -> None:
        """A reader met no head where one had to be."""
        if self.exchanges.started:
            self._tally.malformed += 1
            self.exchanges.gapped = True
        else:
            self._become_opaque()

    def _abort(self, reason: str, time_ns: int) -> None:
        if self.request_direction is not None:
            self.exchanges.abort(reason, time_ns, self.responses.last_ns)

    def _read(self, items: Iterable[tuple[Side, Segment | Gap]]) -> None:
        for side, item in items:
            if isinstance(item, Gap):
                self._tally.lost_events += item.events
            if self.opaque or (self.request_direction is None and not self._find_direction(side, item)):
                continue
            side.reader.feed(item)
            if self.exchanges.tunnelled:
                self.opaque = True
            elif not self.exchanges.started:
                self._count_fruitless()
        self._note_late()
        self._update_ready()

    def _note_late(self) -> None:
        for side in self.sides:
            self._tally.late_events += side.late
            side.late = 0

    def _find_direction(self, side: Side, item: Segment | Gap) -> bool:
        """Decide on the direction of requests by what this event begins with."""
        if isinstance(item, Gap):
            return False
        direction = self.sides.index(side)
        if item.payload:
            if looks_like_request(item.payload, 0) is Guess.YES:
                return self._decide_late(direction, direction, item)
            if looks_like_response(item.payload, 0) is Guess.YES:
                return self._decide_late(1 - direction, direction, item)
            if self._aligned and item.position == 0:
                self._become_opaque()
        self._count_fruitless()
        return False

    def _decide_late(self, request_direction: int, direction: int, item: Segment) -> bool:
        self.decide(request_direction)
        side = self.sides[direction]
        aligned = self._aligned and item.position == 0
        side.reader = MessageReader(side.listener, responses=not side.is_request, aligned=aligned, nth=item.nth)
        if not side.is_request:
            self.responses = side.reader
        return True

    def _count_fruitless(self) -> None:
        self._fruitless += 1
        if self._fruitless >= MAX_FRUITLESS_EVENTS and not self.opaque:
            self._become_opaque()

    def _become_opaque(self) -> None:
        self.opaque = True
        self._tally.not_http += 1

    def _update_ready(self) -> None:
        if self.request_direction is None:
            return
        receive, send = self.sides
        held = receive.held_since_ns or send.held_since_ns
        orderly = self.exchanges.orderly and not held and not self.opaque
        first = self.waiting[0] if orderly and self.waiting else None
        plain = not isinstance(first, Request) or first.known.message_bytes >= 0
        for side in self.sides:
            side.ready = orderly and plain and side.reader.state is State.IDLE

    def state(self) -> list[Any]:
        """For a snapshot."""
        readers = [] if self.request_direction is None else [side.reader.state_values() for side in self.sides]
        certain = self.request_direction is None or self.sides[1 - self.request_direction].listener.certain
        return [
            self.request_direction,
            [self._aligned, self._fruitless, self.opaque, self.last_ns, certain],
            [side.state() for side in self.sides],
            readers,
            self.exchanges.state(),
        ]

    def restore(self, state: list[Any]) -> None:
        request_direction, values, streams, readers, exchanges = state
        self._aligned, self._fruitless, self.opaque, self.last_ns, certain = values
        if request_direction is not None:
            self.decide(request_direction)
            self.sides[1 - request_direction].listener.certain = certain
        for side, stream in zip(self.sides, streams, strict=True):
            side.restore(stream)
        for side, reader in zip(self.sides, readers, strict=False):
            side.reader.restore(reader)
        self.exchanges.restore(exchanges)
        self._update_ready()


def _time_ns(entry: tuple[Side, Segment | Gap]) -> int:
    item = entry[1]
    return item.until_ns if isinstance(item, Gap) else item.time_ns
