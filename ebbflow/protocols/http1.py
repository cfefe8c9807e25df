"""HTTP/1.0 and HTTP/1.1 messages out of one direction of a connection (RFC 9110, RFC 9112), as a witness sees them.

A witness is not a peer. It sees events, system calls, not bytes: each has a stream position, a size, and perhaps only
the first part of its payload; some are lost. It cannot refuse a message or ask again. So this reader never fails: it
follows what can be followed, says what it lost, and finds its way back.

    START     nothing seen yet, and the first byte of the stream is to come
    IDLE      between two messages
    HEAD      a head has begun and its empty line has not come
    LENGTH    in a body of known length: bytes pass uncounted for, seen or not, lost or not
    CHUNKED   in a chunked body
    CLOSE     in a body that ends with the connection, or behind a head after which nothing can be framed
    OPEN_END  in a message whose end cannot be told: framing bytes were cut off, or were lost
    SEEK      lost: the next head that begins at the start of an event ends it

House rules:
  - Aligned states (START to CLOSE) read every byte; in OPEN_END and SEEK a message is believed only at the start of an
    event, with a whole start line or one that begins with a known method or version. Peers write heads with one call.
  - A gap inside a body of known length costs nothing. Any other gap may have swallowed messages; their number is
    estimated from the number of lost events and this direction's own messages per event: exact where each message is
    one event. The estimate is what `lost_exchanges` is made of.
  - Nothing quadratic: an unfinished head is searched from three bytes before its old end, a start line that grows is
    looked at again only when it has doubled; bodies are never copied.
  - Memory: at most MAX_HEAD_BYTES for an unfinished head. A longer one is taken as cut off there.
  - Which of two readings of a faulty message the peers chose shows in what follows; see `http1_framing.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from typing import Any, ClassVar, Protocol

from ebbflow.errors import ProtocolError
from ebbflow.protocols.http1_chunked import ChunkedScanner
from ebbflow.protocols.http1_framing import (
    Framing,
    Guess,
    Kind,
    head_end,
    looks_like_request,
    looks_like_response,
    skip_empty_lines,
)
from ebbflow.protocols.http1_pace import Pace
from ebbflow.protocols.stream import Gap, Segment

MAX_HEAD_BYTES = 65536
_LAST_CHUNK = b"0\r\n\r\n"
_METHODS = rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|QUERY|PROPFIND|REPORT) [/*A-Za-z0-9]"
_BEGINS_REQUEST = re.compile(_METHODS)
_BEGINS_RESPONSE = re.compile(rb"HTTP/1\.")


class State(IntEnum):
    START = 0
    IDLE = 1
    HEAD = 2
    LENGTH = 3
    CHUNKED = 4
    CLOSE = 5
    OPEN_END = 6
    SEEK = 7


class Listener(Protocol):
    """What is done with messages. Requests and responses differ only in this.

    `certain` False: the framing last returned rests on a guess (a response whose request was not seen).
    """

    certain: bool

    def began(self, head: bytes, time_ns: int, position: int) -> Framing | None:
        """A head, perhaps cut short. None: an interim response, which is no message of its own.

        Raises:
            ProtocolError: it is no head after all.
        """

    def ended(self, time_ns: int, body_bytes: int) -> None:
        """The message ended with the event of that time; `body_bytes` -1: not known."""

    def lost(self, messages: int, until_ns: int) -> None:
        """About so many whole messages, perhaps none, were lost behind the last one, before that time."""

    def refused(self) -> None:
        """No head where one had to be."""


class MessageReader:
    """Reads one direction.

    Args:
        aligned: the first byte to come is the first of the stream.
        nth: number of the first event to come.

    Attributes:
        state: see above.
        last_ns: time of the last event that belonged to a message.
    """

    __slots__ = (
        "_begins",
        "_body_bytes",
        "_buffer",
        "_check_at",
        "_chunks",
        "_doubt",
        "_head_ns",
        "_head_position",
        "_listener",
        "_looks_like",
        "_pace",
        "_remaining",
        "last_ns",
        "state",
    )

    def __init__(self, listener: Listener, *, responses: bool, aligned: bool, nth: int = 0) -> None:
        self._listener = listener
        self._looks_like: Callable[[bytes | bytearray, int], Guess]
        self._looks_like = looks_like_response if responses else looks_like_request
        self._begins = _BEGINS_RESPONSE if responses else _BEGINS_REQUEST
        self.state = State.START if aligned else State.SEEK
        self.last_ns = 0
        self._buffer = bytearray()
        self._head_position = self._head_ns = 0
        self._check_at = 0  # length at which an unfinished start line is looked at again; 0: it is complete
        self._remaining = 0  # of a body in LENGTH
        self._body_bytes = 0  # that went by so far
        self._chunks = ChunkedScanner()
        self._doubt = 0  # events lost while the end of a message could not be told
        self._pace = Pace(nth)

    @property
    def pending_bytes(self) -> int:
        return len(self._buffer)

    @property
    def between_messages(self) -> bool:
        return self.state <= State.IDLE

    def feed(self, item: Segment | Gap) -> None:
        """Take the next event in order, or the word that events are missing."""
        if isinstance(item, Gap):
            self._pass_gap(item)
        elif self._is_readable(item):
            self._read(item)

    def settle(self, time_ns: int) -> None:
        """Something later than `time_ns` shows that a message whose end could not be told is over."""
        if self.state is State.OPEN_END and self.last_ns < time_ns:
            self._end(-1)
            self.state = State.SEEK

    def finish(self, nth: int, time_ns: int, *, clean: bool) -> None:
        """No more will come. `clean`: the sender ended the stream, so a body without other end is complete."""
        if self.state is State.HEAD:
            self._begin_cut_head(time_ns)  # it stays without an end
            self.state = State.SEEK
        elif self.state is State.CLOSE and clean:
            self._end(self._body_bytes)
        self._end_open(nth, time_ns)
        self._buffer.clear()
        self.state = State.SEEK

    def give_up(self) -> None:
        """Forget an unfinished head, to free memory."""
        if self.state is State.HEAD:
            self._begin_cut_head(self.last_ns)

    def _read(self, segment: Segment) -> None:
        self._pace.count_event()
        self.last_ns = segment.time_ns
        offset, end = 0, len(segment.payload)
        while offset < end and self.state < State.OPEN_END:
            offset = self._STEPS[self.state](self, segment, offset)
        if segment.size > end:
            self._pass_unseen(segment.size - end, segment)

    def _is_readable(self, segment: Segment) -> bool:
        """Whether the reader is aligned, or becomes so with this event."""
        if self.state < State.OPEN_END:
            if not self._listener.certain and self._body_bytes == 0 and self._in_body and self._begins_message(segment):
                self._end(-1)
            return True
        if self._begins_message(segment):
            self._end_open(segment.nth, segment.time_ns)
            self.state = State.IDLE
            return True
        self._pace.unread += 1
        if self.state is State.OPEN_END:
            self.last_ns = segment.time_ns
            if segment.payload.endswith(_LAST_CHUNK) and segment.size == len(segment.payload):
                self._end_open(segment.nth, segment.time_ns)
                self.state = State.IDLE
        return False

    @property
    def _in_body(self) -> bool:
        return State.LENGTH <= self.state <= State.CLOSE

    def _begins_message(self, segment: Segment) -> bool:
        if not segment.payload:
            return False
        start = skip_empty_lines(segment.payload)
        guess = self._looks_like(segment.payload, start)
        return guess is Guess.YES or (guess is Guess.MAYBE and self._begins.match(segment.payload, start) is not None)

    # Steps: consume payload from an offset, return the offset of what is left.

    def _step_idle(self, segment: Segment, offset: int) -> int:
        payload = segment.payload
        offset = skip_empty_lines(payload, offset)
        if offset == len(payload):
            return offset
        guess = self._looks_like(payload, offset)
        if guess is Guess.NO:
            return self._refuse(segment)
        self._head_position, self._head_ns = segment.position + offset, segment.time_ns
        end = head_end(payload, offset)
        if end >= 0:
            return self._begin(payload[offset:end], end, segment)
        self.state = State.HEAD
        self._buffer += payload[offset:]
        self._check_at = 0 if guess is Guess.YES else 2 * len(self._buffer)
        return self._bound_head(segment)

    def _step_head(self, segment: Segment, offset: int) -> int:
        before = len(self._buffer)
        self._buffer += segment.payload[offset:]
        end = head_end(self._buffer, max(0, before - 3))
        if end >= 0:
            head = bytes(self._buffer[:end])
            self._buffer.clear()
            return self._begin(head, offset + end - before, segment)
        if self._check_at and len(self._buffer) >= self._check_at:
            guess = self._looks_like(self._buffer, 0)
            if guess is Guess.NO:
                return self._refuse(segment)
            self._check_at = 0 if guess is Guess.YES else 2 * len(self._buffer)
        return self._bound_head(segment)

    def _bound_head(self, segment: Segment) -> int:
        if len(self._buffer) > MAX_HEAD_BYTES:
            self._begin_cut_head(segment.time_ns)
        return len(segment.payload)

    def _step_length(self, segment: Segment, offset: int) -> int:
        return offset + self._pass_length(len(segment.payload) - offset)

    def _step_chunked(self, segment: Segment, offset: int) -> int:
        self._body_bytes += len(segment.payload) - offset
        try:
            offset, _ = self._chunks.scan(segment.payload, offset)
        except ProtocolError:
            self.state = State.OPEN_END
            return len(segment.payload)
        if self._chunks.done:
            self._end(self._chunks.data_bytes)
        return offset

    def _step_close(self, segment: Segment, offset: int) -> int:
        self._body_bytes += len(segment.payload) - offset
        return len(segment.payload)

    _STEPS: ClassVar[dict[State, Callable[[MessageReader, Segment, int], int]]] = {
        State.START: _step_idle,
        State.IDLE: _step_idle,
        State.HEAD: _step_head,
        State.LENGTH: _step_length,
        State.CHUNKED: _step_chunked,
        State.CLOSE: _step_close,
    }

    # Where messages begin and end.

    def _begin(self, head: bytes, offset: int, segment: Segment) -> int:
        try:
            framing = self._listener.began(head, self._head_ns, self._head_position)
        except ProtocolError:
            return self._refuse(segment)
        self.state = State.IDLE
        if framing is None:
            return offset
        self._pace.count_message()
        self._body_bytes, self._remaining = 0, framing.length
        if framing.kind is Kind.NONE or (framing.kind is Kind.LENGTH and not framing.length):
            self._end(framing.length if framing.kind is Kind.LENGTH else -1)
        elif not self._listener.certain and self._looks_like(segment.payload, offset) is Guess.YES:
            self._end(-1)
        else:
            self.state = _BODY_STATE[framing.kind]
            self._chunks = ChunkedScanner()
        return offset

    def _begin_cut_head(self, time_ns: int) -> None:
        """The rest of a head will not be seen: keep what it says so far. Its end and its body's cannot be told."""
        head = bytes(self._buffer)
        self._buffer.clear()
        try:
            framing = self._listener.began(head, self._head_ns, self._head_position)
        except ProtocolError:  # not even a start line
            self.state = State.SEEK
            self._listener.lost(1, time_ns)
            return
        self.state = State.SEEK
        if framing is not None:
            self._pace.count_message()
            self.state = State.OPEN_END

    def _end(self, body_bytes: int) -> None:
        self.state = State.IDLE
        self._listener.ended(self.last_ns, body_bytes)

    def _end_open(self, nth: int, time_ns: int) -> None:
        """A message whose end could not be told is over; others may have been lost behind it."""
        if self.state is State.OPEN_END:
            self._end(-1)
        if self._doubt:
            doubt, self._doubt = self._doubt, 0
            self._listener.lost(int(doubt * self._pace.per_event(nth)), time_ns)

    def _refuse(self, segment: Segment) -> int:
        self._buffer.clear()
        self.state = State.SEEK
        self._listener.refused()
        return len(segment.payload)

    # What is not seen, and what is lost.

    def _pass_length(self, size: int) -> int:
        """Let up to `size` bytes of a body of known length go by; returns how many."""
        size = min(size, self._remaining)
        self._remaining -= size
        self._body_bytes += size
        if not self._remaining:
            self._end(self._body_bytes)
        return size

    def _pass_unseen(self, size: int, segment: Segment) -> None:
        """The last `size` bytes of an event were not captured, or were cut by redaction."""
        if self.state is State.LENGTH:
            size -= self._pass_length(size)
        elif self.state is State.CHUNKED:
            self._body_bytes += size
            if not self._chunks.skip(size):
                self.state = State.OPEN_END
        elif self.state is State.CLOSE:
            self._body_bytes += size
        elif self.state is State.HEAD:
            self._pass_unseen_head(size, segment)
        if self.state is State.START:
            self.state = State.SEEK
        elif self.state is State.IDLE and size:
            self.state = State.SEEK
            self._listener.lost(max(1, round(size / self._pace.bytes_per_message(segment))), segment.time_ns)

    def _pass_unseen_head(self, size: int, segment: Segment) -> None:
        """A head runs into bytes not seen. Behind pipelined messages, more of them are likely there."""
        unfinished = len(self._buffer)
        mean_bytes = self._pace.bytes_per_message(segment, unfinished)
        more = round((unfinished + size) / mean_bytes) - 1 if self._pace.in_event else 0
        self._begin_cut_head(segment.time_ns)
        if more > 0:
            if self.state is State.OPEN_END:
                self._end(-1)
            self.state = State.SEEK
            self._listener.lost(more, segment.time_ns)

    def _pass_gap(self, gap: Gap) -> None:
        size = gap.size
        self._pace.unread += gap.events
        if self.state is State.CLOSE:
            self._body_bytes += size
        elif self.state is State.LENGTH and size <= self._remaining:
            self._pass_length(size)
        elif self.state is State.CHUNKED and self._chunks.skip(size):
            self._body_bytes += size
        else:
            self._pass_wide_gap(gap)

    def _pass_wide_gap(self, gap: Gap) -> None:
        """A gap that messages may have been lost in."""
        if self.state is State.HEAD:
            self._begin_cut_head(gap.until_ns)
        if self.state in {State.CHUNKED, State.OPEN_END}:
            self.state = State.OPEN_END
            self._doubt += gap.events
        elif self.state is State.LENGTH:
            self._pass_length(gap.size)
            self.state = State.SEEK
            rate = self._pace.per_event(gap.nth + gap.events)
            self._listener.lost(max(1, round((gap.events - 1) * rate)), gap.until_ns)
        else:
            at_least = 0 if self.state is State.SEEK else 1
            self.state = State.SEEK
            self._listener.lost(max(at_least, self._pace.in_gap(gap)), gap.until_ns)

    def state_values(self) -> list[Any]:
        """For a snapshot."""
        return [
            int(self.state), self.last_ns, bytes(self._buffer), self._head_position, self._head_ns, self._check_at,
            self._remaining, self._body_bytes, self._doubt, self._pace.surplus, self._pace.unread, self._chunks.state(),
        ]  # fmt: skip

    def restore(self, values: list[Any]) -> None:
        (
            state, self.last_ns, buffer, self._head_position, self._head_ns, self._check_at,
            self._remaining, self._body_bytes, self._doubt, self._pace.surplus, self._pace.unread, chunks,
        ) = values  # fmt: skip
        self.state, self._buffer, self._chunks = State(state), bytearray(buffer), ChunkedScanner.from_state(chunks)


_BODY_STATE = {
    Kind.LENGTH: State.LENGTH,
    Kind.CHUNKED: State.CHUNKED,
    Kind.CLOSE: State.CLOSE,
    Kind.TUNNEL: State.CLOSE,
}
