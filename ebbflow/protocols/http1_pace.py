"""How many messages an event of one direction carries on average: what estimates of lost messages rest on."""

from __future__ import annotations

from ebbflow.protocols.stream import Segment

_LEAST, _MOST = 0.01, 100.0


class Pace:
    """Counts by difference, so that an event that is one message, the common case, changes nothing.

    Attributes:
        surplus: messages less events, of the events that were read.
        unread: events that were lost, or passed over.
        in_event: messages that began in the event being read.
    """

    __slots__ = ("in_event", "surplus", "unread")

    def __init__(self, nth: int) -> None:
        self.surplus = 0
        self.unread = nth
        self.in_event = 0

    def count_event(self) -> None:
        self.surplus -= 1
        self.in_event = 0

    def count_message(self) -> None:
        self.surplus += 1
        self.in_event += 1

    def per_event(self, nth: int) -> float:
        """Messages per event, of the `nth` events so far that were read; 1 before there was any."""
        read = nth - self.unread
        return min(max((read + self.surplus) / read, _LEAST), _MOST) if read > 0 else 1.0

    def bytes_per_message(self, segment: Segment) -> float:
        """Stream bytes per message, up to what is seen of this event."""
        messages = segment.nth + 1 - self.unread + self.surplus
        return max(1.0, (segment.position + len(segment.payload)) / max(1, messages))
