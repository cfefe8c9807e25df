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
    looks_like_request,
    looks_like_response,
    parse_request_head,
    parse_response_head,
    request_framing,
    response_framing,
    skip_empty_lines,
)

# Parts of header and parameter names that announce a credential.
SENSITIVE = (
    "auth", "cookie", "token", "secret", "passw", "pwd", "passphrase", "credential", "session", "signature",
    "api-key", "api_key", "apikey", "access-key", "access_key", "accesskey", "private-key", "private_key", "jwt",
    "x-amz-security", "csrf", "xsrf",
)  # fmt: skip
# Parameter names that are credentials only when they are the whole name.
SENSITIVE_PARAMETERS = ("pass", "key", "sig", "sid", "code", "otp", "pin", "assertion")
# Every credential's name or shape holds one of these, in lower case: where none is, nothing else is searched.
_HINTS = (
    "auth", "cookie", "token", "secr", "pass", "pwd", "credential", "session", "sig", "key", "jwt", "srf", "bearer",
    "basic", "digest", "negotiate", "eyj", "akia", "asia", "sid=", "code=", "otp=", "pin=", "assertion=",
    "x-amz-security",
)  # fmt: skip
# What is a credential by its looks.
_ANYWHERE = re.compile(
    rb"://([^/\s@]*)@"
    rb"|(?i:\b(?:bearer|basic|digest|negotiate))[ =]+([A-Za-z0-9._~+/=-]{8,})"
    rb"|(eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*)"
    rb"|\b((?:AKIA|ASIA)[A-Z0-9]{16})\b"
)
_MAX_CACHED = 8192
_MAX_CACHED_BYTES = 2048
_MAX_HEAD_BYTES = 65536
_METHODS = (
    "GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|QUERY|PROPFIND|PROPPATCH|MKCOL|COPY|MOVE|LOCK|UNLOCK|REPORT"
    "|SEARCH|PURGE"
)
_STATUS_LINE = b"HTTP/1."
# The beginning of a start line that is not all there yet. Strict, because it decides what is shown of the unknown.
_TARGET_SO_FAR = r"(?:/|\*|[A-Za-z][A-Za-z0-9.+-]*:|[A-Za-z0-9.-]+:[0-9])[^\r\n]*\r?"
_PARTIAL_REQUEST = re.compile(f"(?:{_METHODS}) {_TARGET_SO_FAR}".encode())
_PREFIXES = frozenset(
    text[:length].encode()
    for text in [*(f"{method} " for method in _METHODS.split("|")), "HTTP/1.0 ", "HTTP/1.1 "]
    for length in range(1, len(text) + 1)
)
# Group 1: a request. A response only of a status that may have a body.
_PLAIN_START = re.compile(
    rb"(?:([A-BD-Z][A-Z]{1,9}) [^\x00-\x20\x7f]+ HTTP/1\.[01]"
    rb"|HTTP/1\.[01] (?:20[0-35-9]|30[0-35-9]|4..|5..)[^\r\n]*)\r\n"
)
_COLON = ord(":")
# All that may be shown of a line between chunks that has not ended: a size, perhaps of a chunk to come.
_UNFINISHED_SIZE = re.compile(rb"[0-9A-Fa-f]{0,16}[ \t]*;?\r?")
_PARTIAL_RESPONSE = re.compile(rb"HTTP/1\.[01] [0-9]{0,3}(?: [^\r\n]*)?\r?")


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
            end = _whole_message(payload, size)
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
        if not _begins_head(text[begin:]):
            state.head = b""
            return 0
        end = head_end(text, begin)
        if end < 0:
            end = len(text)
            # Beyond the capture limit nothing more of this head will come; a hostile one is not kept for ever.
            state.head = text if size == len(out) and len(text) <= _MAX_HEAD_BYTES else b""
            taken = size - offset
        else:
            state.begin_body(*_framing(text[begin:end]))
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


def _whole_message(payload: bytes, size: int) -> int:
    """The head's end when an event is exactly one plain message, else 0: the common case, without parsing.

    Plain is what leaves no question about its end: one Content-Length or none, no Transfer-Encoding, no folding, and
    not a status that forbids a body. Everything else takes the general way.
    """
    end = payload.find(b"\r\n\r\n") + 4
    start_line = _PLAIN_START.match(payload)
    if end < 4 or start_line is None:  # noqa: PLR2004 - the empty line was not found
        return 0
    head = payload[:end].lower()
    if b"\ntransfer-encoding" in head or b"\n " in head or b"\n\t" in head:
        return 0
    field = head.find(b"\ncontent-length")
    if field < 0:
        # Without a length a response goes on until the connection ends.
        return end if end == size and start_line.lastindex else 0
    value = head[field + 16 : head.find(b"\r", field)].strip()
    again = head.find(b"\ncontent-length", field + 1)
    if again >= 0 or head[field + 15] != _COLON or not value.isdigit() or end + int(value) != size:
        return 0
    return end


def _framing(head: bytes) -> tuple[Framing, bool]:
    """How the body behind a head ends, and whether it is a response's."""
    if head.startswith(_STATUS_LINE):
        return response_framing(parse_response_head(head), None), True
    return request_framing(parse_request_head(head)), False


def _begins_head(text: bytes) -> bool:
    """Whether these bytes begin a head. Strict for an incomplete line: it decides what is shown of the unknown."""
    if looks_like_request(text) is Guess.YES or looks_like_response(text) is Guess.YES:
        return True
    if b"\n" in text:
        return False
    return bool(text in _PREFIXES or _PARTIAL_REQUEST.fullmatch(text) or _PARTIAL_RESPONSE.fullmatch(text))


class Masker:
    """Masks credentials in a head at equal length.

    Args:
        headers, parameters: further names, besides the built-in ones.
    """

    def __init__(self, headers: Iterable[str] = (), parameters: Iterable[str] = ()) -> None:
        words = "|".join(re.escape(word) for word in SENSITIVE)
        header_names = "|".join([f"[^:\\s]*(?:{words})[^:\\s]*", *map(re.escape, headers)])
        more = map(re.escape, [*SENSITIVE_PARAMETERS, *parameters])
        names = "|".join([f"[^=&?;#\\s]*(?:{words})[^=&?;#\\s]*", *more])
        self._header = re.compile(rf"(?im)^(?:{header_names})[ \t]*:[ \t]*([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)".encode())
        self._parameter = re.compile(rf"(?i)[?&](?:{names})=([^&;#\s\"']*)|;(?:{names})=([^&;#?\s\"']*)".encode())
        self._hints = tuple(
            dict.fromkeys(name.lower().encode() for name in (*_HINTS, *headers, *(f"{name}=" for name in parameters)))
        )

    def mask(self, head: bytes) -> bytes:
        """The same number of bytes, credentials replaced by `*`; `head` may end in the middle of a line."""
        lower = head.lower()
        named = False
        # A plain loop of substring searches: five times quicker than one regular expression of alternatives.
        for hint in self._hints:
            if hint in lower:
                named = True
                break
        if not named and not (b"@" in head and b"://" in head):
            return head
        out = bytearray(head)
        for pattern in (self._header, self._parameter, _ANYWHERE):
            for match in pattern.finditer(head):
                start, end = match.span(match.lastindex or 0)
                out[start:end] = b"*" * (end - start)
        return bytes(out)


_OPTION = re.compile(r"(-{0,2}[A-Za-z0-9_.-]+)(?:=(.*))?", re.DOTALL)
_SENSITIVE_NAME = re.compile("|".join(re.escape(word) for word in SENSITIVE))


def mask_arguments(argv: Sequence[str]) -> list[str]:
    """A command line's words with credentials masked: `--token=…`, `--password …`, `PGPASSWORD=…`, URLs, bearers."""
    masked: list[str] = []
    secret_follows = False
    for word in argv:
        option = _OPTION.fullmatch(word)
        name = option[1].lower().replace("-", "_") if option else ""
        sensitive = bool(name and (_SENSITIVE_NAME.search(name) or _SENSITIVE_NAME.search(name.replace("_", "-"))))
        if secret_follows and not word.startswith("-"):
            masked.append("*" * len(word))
            secret_follows = False
        elif sensitive and option is not None and option[2] is not None:
            masked.append(f"{option[1]}={'*' * len(option[2])}")
        else:
            secret_follows = sensitive and word.startswith("-")
            masked.append(_mask_shapes(word))
    return masked


def _mask_shapes(word: str) -> str:
    def star(match: re.Match[bytes]) -> bytes:
        start, end = match.span(match.lastindex or 0)
        whole = match[0]
        offset = start - match.start()
        return whole[:offset] + b"*" * (end - start) + whole[offset + end - start :]

    return _ANYWHERE.sub(star, word.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
