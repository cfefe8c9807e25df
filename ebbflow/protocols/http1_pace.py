"""How many messages an event of one direction carries on average: what estimates of lost messages rest on."""

from __future__ import annotations

from ebbflow.protocols.stream import Gap, Segment

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

    def in_gap(self, gap: Gap) -> int:
        """Messages that a gap between messages, already in `unread`, may hold: by events, or by bytes if pipelined."""
        nth = gap.nth + gap.events
        rate = self.per_event(nth)
        if rate <= 1:
            return round(gap.events * rate)
        mean_bytes = gap.position / (nth - self.unread + self.surplus)
        return max(1, round(gap.size / max(mean_bytes, 1)))

    def bytes_per_message(self, segment: Segment, unfinished: int = 0) -> float:
        """Bytes per message: of those in this event, before its last `unfinished` bytes, or of the stream so far."""
        if self.in_event:
            return max(1.0, (len(segment.payload) - unfinished) / self.in_event)
        messages = segment.nth + 1 - self.unread + self.surplus
        return max(1.0, (segment.position + len(segment.payload)) / max(1, messages))
