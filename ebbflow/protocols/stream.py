"""Puts the events of one direction of a connection back in order, by stream position.

    arrived:   [0..100)  [250..300)  [100..250)        [400..450)
    delivered: [0..100)              [100..250) [250..300)   held until 300 arrives, or is given up: Gap, [400..450)

An event that comes early is held. Its predecessor is late or lost, which nobody can know yet; the owner gives it up by
calling `release`, when enough event time has passed or when the buffer is full. So memory is bounded, and what is
delivered depends on the events' order alone, never on how they were cut into batches.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

MAX_HELD_EVENTS = 64
MAX_HELD_BYTES = 262_144
ANYWHERE = -1
"""As a position: the first event says where the stream is."""


class Segment(NamedTuple):
    """One event: bytes [position, position + size) moved, of which the first `len(payload)` are known.

    `nth` counts the events of this direction before this one.
    """

    time_ns: int
    position: int
    size: int
    nth: int
    payload: bytes


class Gap(NamedTuple):
    """Bytes [position, position + size) were lost with `events` events (at least one), after `nth` events.

    They came before the time `until_ns`.
    """

    position: int
    size: int
    events: int
    nth: int
    until_ns: int


class StreamBuffer:
    """One direction of one connection.

    Attributes:
        position: stream position of the next byte to deliver.
        nth: number of the next event to deliver.
        held_bytes: payload bytes held back.
        held_since_ns: time of the first event held back, 0 when there is none.
        late: events that came after their place was given up, or twice; the owner reads and resets it.
    """

    __slots__ = ("_held", "held_bytes", "held_since_ns", "late", "nth", "position")

    def __init__(self, position: int = 0, nth: int = 0) -> None:
        self.position = position
        self.nth = nth
        self.held_bytes = 0
        self.held_since_ns = 0
        self.late = 0
        self._held: list[Segment] = []  # by position, all beyond self.position

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing before or among what is held."""
        position = self.position
        for segment in self._held:
            if segment.position > position:
                return False
            position = max(position, segment.position + segment.size)
        return True

    @property
    def is_full(self) -> bool:
        return len(self._held) > MAX_HELD_EVENTS or self.held_bytes > MAX_HELD_BYTES

    def accept(self, segment: Segment) -> bool:
        """Take one event. True: it is in order and nothing is held, so it may be read at once."""
        if self.position == ANYWHERE:
            self.position, self.nth = segment.position, segment.nth
        if segment.position == self.position and not self._held:
            self._advance(segment)
            return True
        self.hold(segment)
        return False

    def hold(self, segment: Segment) -> None:
        """Keep an event, in order or not, until `drain` or `release`."""
        index = bisect_left(self._held, segment.position, key=_position)
        taken = index < len(self._held) and self._held[index].position == segment.position
        if taken or segment.position < self.position:
            self.late += 1
            return
        self._held.insert(index, segment)
        self.held_bytes += len(segment.payload)
        self.held_since_ns = self.held_since_ns or segment.time_ns

    def drain(self) -> list[Segment | Gap]:
        """Deliver what follows without a gap; what a delivered event overlaps is dropped."""
        ready: list[Segment | Gap] = []
        taken = 0
        for segment in self._held:
            if segment.position > self.position:
                break
            taken += 1
            self.held_bytes -= len(segment.payload)
            if segment.position == self.position:
                self._advance(segment)
                ready.append(segment)
            else:
                self.late += 1
        del self._held[:taken]
        self.held_since_ns = min((segment.time_ns for segment in self._held), default=0)
        return ready

    def release(self) -> list[Segment | Gap]:
        """Give up everything that is missing before events already here, and deliver those."""
        ready = self.drain()
        while self._held:
            first = self._held[0]
            ready.append(self._gap(first.position, first.nth, first.time_ns))
            ready += self.drain()
        return ready

    def finish(self, position: int, nth: int, time_ns: int) -> list[Segment | Gap]:
        """At that time, the direction had come to this position with this many events."""
        ready = self.release()
        if position > self.position != ANYWHERE:
            ready.append(self._gap(position, nth, time_ns))
        return ready

    def _gap(self, position: int, nth: int, until_ns: int) -> Gap:
        gap = Gap(self.position, position - self.position, max(1, nth - self.nth), self.nth, until_ns)
        self.position, self.nth = position, max(nth, self.nth)
        return gap

    def _advance(self, segment: Segment) -> None:
        self.position = segment.position + segment.size
        self.nth = segment.nth + 1

    def state(self) -> list[Any]:
        """For a snapshot."""
        return [self.position, self.nth, self.held_since_ns, [list(segment) for segment in self._held]]

    def restore(self, state: list[Any]) -> None:
        self.position, self.nth, self.held_since_ns, held = state
        self._held = [Segment(*segment) for segment in held]
        self.held_bytes = sum(len(segment.payload) for segment in self._held)


def _position(segment: Segment) -> int:
    return segment.position
