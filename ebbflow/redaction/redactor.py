"""Keeps secrets out of Kafka: masks credentials and drops bodies before anything leaves the producer.

What goes on: HTTP/1 heads with credentials masked, and the bytes that frame bodies (chunk sizes). What does not: body
bytes, and the payload of connections that speak nothing known. Masked bytes are replaced one by one with `*`, and what
is cut off is cut at the end of an event, so stream positions stay true.

Masked in a head:
  - values of headers whose name speaks of authentication, cookies, tokens, keys, sessions, signatures, passwords
    (a part of the name is enough: `X-Api-Key`, `Proxy-Authorization`, `X-Amz-Security-Token`), with folded lines;
  - values of parameters with such a name in request targets and in any header value (`Referer`, `Location`);
  - user information in URLs, and what looks like a bearer token, a JSON web token or a cloud access key wherever it
    stands in the head.

A head may come in pieces: the masks are always computed on all of the head that has been seen, so a secret whose name
stood in the event before is masked too. A body may look like a head: it is recognised by counting, not by its looks.
The exception is the answer to HEAD: it announces a length and has no body, and nothing in its direction says so. Bytes
that begin a status line right behind such a head are therefore taken for the next head.

Most heads of a service repeat to the byte, so the result for an event that is one or more whole messages is kept in a
bounded cache; only what is not in it is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ebbflow.config import RedactionConfig
from ebbflow.errors import ProtocolError
from ebbflow.protocols.http1_framing import (
    ChunkedScanner,
    Framing,
    Guess,
    Kind,
    head_end,
    looks_like_response,
    skip_empty_lines,
)
from ebbflow.redaction.heads import begins_head, framing_of, whole_message
from ebbflow.redaction.masks import Masker

_MAX_CACHED = 8192
_MAX_CACHED_BYTES = 2048
_MAX_HEAD_BYTES = 65536
# Streams inside a message; more than a host has connections, or their ends were lost: the longest waiting is forgotten.
_MAX_STREAMS = 200_000
# All that may be shown of a line between chunks that has not ended: a size, perhaps of a chunk to come.
_UNFINISHED_SIZE = re.compile(rb"[0-9A-Fa-f]{0,16}[ \t]*;?\r?")


@dataclass(slots=True)
class _Known:
    """Cached outcome for the payload of an event that begins and ends between messages."""

    size: int
    redacted: bytes


class _Stream:
    """One direction of one connection: where it is in a message.

    Attributes:
        expected: stream position of the next event's first byte.
        kind: how the body that is being passed over ends; NONE between messages and in heads.
        remaining: bytes of a body of known length still to come.
        head: the bytes so far of a head that has not ended.
        maybe_bodiless: right behind the head of a response, which may be the answer to HEAD.
    """

    __slots__ = ("chunks", "expected", "head", "kind", "maybe_bodiless", "remaining")

    def __init__(self) -> None:
        self.kind = Kind.NONE
        self.expected = 0
        self.remaining = 0
        self.head = b""
        self.chunks = ChunkedScanner()
        self.maybe_bodiless = False

    @property
    def idle(self) -> bool:
        return self.kind is Kind.NONE and not self.head

    def begin_body(self, framing: Framing, response: bool) -> None:
        self.head = b""
        self.kind = framing.kind if framing.kind is not Kind.LENGTH or framing.length else Kind.NONE
        self.remaining = framing.length
        self.maybe_bodiless = response
        if framing.kind is Kind.CHUNKED:
            self.chunks = ChunkedScanner()

    def end_body(self) -> None:
        self.kind, self.remaining, self.maybe_bodiless = Kind.NONE, 0, False


class Redactor:
    """Redacts the payload of data events, in the order in which they were drained."""

    def __init__(self, config: RedactionConfig) -> None:
        self._enabled = config.enabled
        self._drop_bodies = config.bodies
        self._masker = Masker(config.headers, config.parameters)
        self._cache: dict[bytes, _Known] = {}
        self._streams: dict[int, _Stream] = {}
        self.dropped_bytes = 0

    def redact(
        self,
        data: bytes,
        starts: Sequence[int],
        ends: Sequence[int],
        streams: Sequence[int],
        positions: Sequence[int],
        sizes: Sequence[int],
    ) -> list[bytes]:
        """Payloads that may leave, one for each event; equal or shorter than what came.

        Args:
            data: bytes that all payloads are slices of.
            starts: where each payload begins in `data`.
            ends: where it ends.
            streams: one number per direction of a connection.
            positions: stream position of each event's first byte.
            sizes: bytes the event moved, of which the payload may be only the first ones.
        """
        if not self._enabled:
            return [data[start:end] for start, end in zip(starts, ends, strict=True)]
        cache, busy = self._cache.get, self._streams
        out = []
        for start, end, stream, position, size in zip(starts, ends, streams, positions, sizes, strict=True):
            payload = data[start:end]
            known = cache(payload)
            if known is not None and known.size == size and stream not in busy:
                out.append(known.redacted)
            else:
                out.append(self._redact_event(payload, stream, position, size))
        return out

    def forget(self, streams: Iterable[int]) -> None:
        """These directions have ended."""
        for stream in streams:
            self._streams.pop(stream, None)

    def _redact_event(self, payload: bytes, stream: int, position: int, size: int) -> bytes:
        state = self._streams.pop(stream, None)
        fresh = state is None
        if state is None:
            end = whole_message(payload, size)
            if end:
                redacted = self._masker.mask(payload[:end])
                return self._remember(payload, size, redacted if self._drop_bodies else redacted + payload[end:])
            state = _Stream()
        elif position != state.expected:
            state = self._skip_gap(state, position - state.expected)
        redacted = self._walk(state, payload, size)
        state.expected = position + size
        if not state.idle:
            self._streams[stream] = state
            if len(self._streams) > _MAX_STREAMS:
                del self._streams[next(iter(self._streams))]
        elif fresh:
            self._remember(payload, size, redacted)
        return redacted

    def _remember(self, payload: bytes, size: int, redacted: bytes) -> bytes:
        if len(payload) <= _MAX_CACHED_BYTES:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[payload] = _Known(size, redacted)
        return redacted

    def _skip_gap(self, state: _Stream, gap: int) -> _Stream:
        """Events are missing: a body of known length goes on if it is longer than the gap, all else starts anew."""
        if state.kind is Kind.LENGTH and 0 < gap < state.remaining:
            state.remaining -= gap
            return state
        return _Stream()

    def _walk(self, state: _Stream, payload: bytes, size: int) -> bytes:
        """Go through one event's bytes, piece by piece: head, body, next head."""
        out = bytearray(payload)
        offset = keep = 0
        while offset < size:
            if state.kind is Kind.NONE:
                taken = self._take_head(state, out, offset, size)
                offset += taken
                keep = min(offset, len(out))
                if not taken:
                    break
            else:
                taken, framing_end = self._take_body(state, out, offset, size)
                offset += taken
                keep = max(keep, framing_end)
        if not self._drop_bodies:
            return bytes(out)
        self.dropped_bytes += len(out) - keep
        return bytes(out[:keep])

    def _take_head(self, state: _Stream, out: bytearray, offset: int, size: int) -> int:
        """Mask a head, or the part of it that is here. Returns the bytes it took, 0 when this is no head."""
        before = len(state.head)
        text = state.head + out[offset:]
        begin = skip_empty_lines(text)
        if not begins_head(text[begin:]):
            state.head = b""
            return 0
        end = head_end(text, begin)
        if end < 0:
            end = len(text)
            # Beyond the capture limit nothing more of this head will come; a hostile one is not kept for ever.
            state.head = text if size == len(out) and len(text) <= _MAX_HEAD_BYTES else b""
            taken = size - offset
        else:
            state.begin_body(*framing_of(text[begin:end]))
            taken = end - before
        masked = self._masker.mask(text[begin:end])
        out[offset : offset + end - before] = (text[:begin] + masked)[before:]
        return taken

    def _take_body(self, state: _Stream, out: bytearray, offset: int, size: int) -> tuple[int, int]:
        """Mask body bytes. Returns how many were taken and where the last framing byte ends in this event."""
        if state.maybe_bodiless and looks_like_response(out, offset) is Guess.YES:
            state.end_body()
            return 0, 0
        state.maybe_bodiless = False
        if state.kind is Kind.CHUNKED:
            return self._take_chunks(state, out, offset, size)
        taken = size - offset
        if state.kind is Kind.LENGTH:
            taken = min(taken, state.remaining)
            state.remaining -= taken
            if not state.remaining:
                state.end_body()
        self._mask(out, offset, offset + taken)
        return taken, 0

    def _take_chunks(self, state: _Stream, out: bytearray, offset: int, size: int) -> tuple[int, int]:
        """Chunk sizes and line ends stay, for they say where the body ends."""
        try:
            end, spans = state.chunks.scan(out, offset)
            followed = state.chunks.done or state.chunks.skip(size - len(out))
        except ProtocolError:
            self._mask(out, offset, len(out))
            state.end_body()
            return size - offset, 0
        for span in spans:
            self._mask(out, span.start, span.end)
        shown = max(offset, spans[-1].end if spans else 0, out.rfind(b"\n", offset, end) + 1)
        if not _UNFINISHED_SIZE.fullmatch(out, shown, end):
            self._mask(out, shown, end)
        keep = spans[-1].start if spans and spans[-1].end == end == len(out) else end
        if state.chunks.done:
            state.end_body()
            return end - offset, keep
        if not followed:
            state.end_body()
        return size - offset, keep

    def _mask(self, out: bytearray, start: int, end: int) -> None:
        end = min(end, len(out))
        if self._drop_bodies and end > start:
            out[start:end] = b"*" * (end - start)
