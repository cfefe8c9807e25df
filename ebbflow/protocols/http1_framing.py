"""Where HTTP/1.0 and HTTP/1.1 messages begin and end: head finding, framing decisions, chunked bodies (RFC 9112).

Pure functions over bytes, shared by the producer's redaction (one event at a time, before Kafka) and by `http1.py`.

    skip_empty_lines(buffer, start) -> int          the CRLFs that may stand before a message
    looks_like_request(buffer, start) -> Guess      does a request begin here?
    looks_like_response(buffer, start) -> Guess
    head_end(buffer, start) -> int                  offset after the head's empty line, -1 when it is not there yet
    parse_request_head(head) -> RequestHead         raises ProtocolError
    parse_response_head(head) -> ResponseHead       raises ProtocolError
    request_framing(head) -> Framing                NONE, LENGTH, CHUNKED, CLOSE (TUNNEL follows a response only)
    response_framing(head, method) -> Framing       NONE, LENGTH, CHUNKED, CLOSE, TUNNEL; None as method: not known
    ChunkedScanner().scan(buffer, start) -> (offset, spans)   tells framing bytes from data, in any pieces

`buffer` is bytes, bytearray or memoryview. An offset is always into the buffer that was given. To find the end of a
head that grows, search again from three bytes before the old end: nothing is read twice.

The framing rules are RFC 9112, section 6.3, with the eyes of a witness, who sees what two peers make of a message and
cannot refuse it. What a recipient must answer with an error and a close is framed `CLOSE`: no byte after the head is
taken for a message again. `faulty` says why. Lenient where the RFC allows: a bare LF ends a line (2.2), obsolete line
folding is undone (5.2), equal Content-Length values count as one (9110, 8.6). Strict where leniency would let one
message hide in another: a field name with a space before its colon is not that field; Content-Length is digits only;
Transfer-Encoding wins over Content-Length; chunk sizes are hexadecimal digits without sign or prefix.
"""

from __future__ import annotations

import re
from enum import Enum, IntEnum
from functools import lru_cache
from typing import NamedTuple

from ebbflow.errors import ProtocolError
from ebbflow.protocols.http1_chunked import Buffer, ChunkedScanner, Span, SpanKind

__all__ = [
    "Buffer",
    "ChunkedScanner",
    "Framing",
    "Guess",
    "Kind",
    "RequestHead",
    "ResponseHead",
    "Span",
    "SpanKind",
    "head_end",
    "looks_like_request",
    "looks_like_response",
    "parse_request_head",
    "parse_response_head",
    "request_framing",
    "response_framing",
    "skip_empty_lines",
]

# RFC 9110, 5.6.2: token = 1*tchar. 32 characters are room for every registered method and bound the search.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_METHOD = _TOKEN + rb"{1,32}"
# RFC 9112, 3.2: no whitespace in a request target; bytes above 0x7f are common in the wild and harmless here.
_TARGET = rb"[^\x00-\x20\x7f]+"
# RFC 9112, 3: request-line = method SP request-target SP HTTP-version CRLF
_REQUEST_LINE = re.compile(rb"(" + _METHOD + rb") (" + _TARGET + rb") HTTP/1\.([0-9])\r?\n")
_REQUEST_LINE_SO_FAR = re.compile(
    _TOKEN
    + rb"{0,32}\Z|"
    + _METHOD
    + rb" (?:"
    + _TARGET
    + rb"(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[0-9]\r?)?)?)?)?)?)?)?)?)?)?\Z"
)
# RFC 9112, 4: status-line = HTTP-version SP status-code SP [ reason-phrase ] CRLF; many leave the last SP out.
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_STATUS_LINE_SO_FAR = re.compile(
    rb"H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[0-9](?: (?:[1-9](?:[0-9](?:[0-9](?:\r| [^\r\n]*\r?)?)?)?)?)?)?)?)?)?)?)?)?\Z"
)
_HEAD_END = re.compile(rb"\n\r?\n")
_EMPTY_LINES = re.compile(rb"(?:\r?\n)*")
# RFC 9112, 5.2: obs-fold = OWS CRLF RWS, to be replaced by spaces before the value is interpreted.
_OBS_FOLD = re.compile(rb"[ \t]*\r?\n[ \t]+")
# RFC 9112, 5.1: field-line = field-name ":" OWS field-value OWS. Only these names matter to anyone here.
_REQUEST_FIELDS = re.compile(
    rb"\n((?i:host|content-length|transfer-encoding|user-agent|traceparent|tracestate|x-forwarded-for|x-forwarded-proto))"
    rb":[ \t]*([^\r\n]*)"
)
_RESPONSE_FIELDS = re.compile(rb"\n((?i:content-length|transfer-encoding)):[ \t]*([^\r\n]*)")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")


class Guess(Enum):
    YES = "yes"
    NO = "no"
    MAYBE = "maybe"  # the bytes so far fit, the line is not complete


class Kind(IntEnum):
    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3
    TUNNEL = 4


class Framing(NamedTuple):
    """How the bytes after a head are divided: `length` is the body's size for LENGTH, 0 otherwise."""

    kind: Kind
    length: int = 0
    faulty: str = ""


_NO_BODY = Framing(Kind.NONE)


class RequestHead(NamedTuple):
    """`fields` holds lower-case names with their values; repeated fields are joined by ", " (RFC 9110, 5.3)."""

    method: bytes
    target: bytes
    minor: int
    fields: dict[bytes, bytes]


class ResponseHead(NamedTuple):
    """See RequestHead."""

    status: int
    minor: int
    fields: dict[bytes, bytes]


def skip_empty_lines(buffer: Buffer, start: int = 0) -> int:
    """RFC 9112, 2.2: empty lines before a message are ignored."""
    match = _EMPTY_LINES.match(buffer, start)
    return match.end() if match else start


def looks_like_request(buffer: Buffer, start: int = 0) -> Guess:
    if _REQUEST_LINE.match(buffer, start):
        return Guess.YES
    return Guess.MAYBE if _REQUEST_LINE_SO_FAR.match(buffer, start) else Guess.NO


def looks_like_response(buffer: Buffer, start: int = 0) -> Guess:
    if _STATUS_LINE.match(buffer, start):
        return Guess.YES
    return Guess.MAYBE if start == len(buffer) or _STATUS_LINE_SO_FAR.match(buffer, start) else Guess.NO


def head_end(buffer: Buffer, start: int = 0) -> int:
    """The offset after the empty line that ends a head, or -1."""
    match = _HEAD_END.search(buffer, start)
    return match.end() if match else -1


def parse_request_head(head: bytes) -> RequestHead:
    """Parse a head; one that was cut short gives the fields of its complete lines.

    Raises:
        ProtocolError: no request line of HTTP/1.
    """
    match = _REQUEST_LINE.match(head)
    if match is None:
        raise ProtocolError(f"no HTTP/1 request line: {head[:40]!r}")
    method, target, minor = match.groups()
    return RequestHead(method, target, int(minor), _fields(_REQUEST_FIELDS, head))


def parse_response_head(head: bytes) -> ResponseHead:
    """Parse a head; one that was cut short gives the fields of its complete lines.

    Raises:
        ProtocolError: no status line of HTTP/1.
    """
    status, minor = _status_line(head[: head.find(b"\n") + 1])
    return ResponseHead(status, minor, _fields(_RESPONSE_FIELDS, head))


@lru_cache(maxsize=1024)
def _status_line(line: bytes) -> tuple[int, int]:
    match = _STATUS_LINE.match(line)
    if match is None:
        raise ProtocolError(f"no HTTP/1 status line: {line[:40]!r}")
    return int(match[2]), int(match[1])


def _fields(pattern: re.Pattern[bytes], head: bytes) -> dict[bytes, bytes]:
    if b"\n " in head or b"\n\t" in head:
        head = _OBS_FOLD.sub(b" ", head)
    found = pattern.findall(head) if head.endswith(b"\n") else pattern.findall(head, 0, head.rfind(b"\n") + 1)
    fields = {name.lower(): value.rstrip(b" \t") for name, value in found}
    return fields if len(fields) == len(found) else _joined(found)


def _joined(found: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    fields: dict[bytes, list[bytes]] = {}
    for name, value in found:
        fields.setdefault(name.lower(), []).append(value.rstrip(b" \t"))
    return {name: b", ".join(values) for name, values in fields.items()}


def request_framing(head: RequestHead) -> Framing:
    """RFC 9112, 6.3. CONNECT has no content whatever its fields say (RFC 9110, 9.3.6)."""
    if head.method == b"CONNECT" or not head.fields:
        return _NO_BODY
    return _by_fields(head.fields, head.minor, _NO_BODY)


def response_framing(head: ResponseHead, method: bytes | None = b"GET") -> Framing:
    """RFC 9112, 6.3; `method` is the request's. Interim responses (1xx but 101) have no body and end nothing."""
    if head.status == 101 or (method == b"CONNECT" and 200 <= head.status < 300):  # noqa: PLR2004 - status codes
        return Framing(Kind.TUNNEL)
    if method == b"HEAD" or head.status < 200 or head.status in {204, 304}:  # noqa: PLR2004 - status codes
        return _NO_BODY
    return _by_fields(head.fields, head.minor, Framing(Kind.CLOSE))


def _by_fields(fields: dict[bytes, bytes], minor: int, default: Framing) -> Framing:
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if minor == 0:  # 6.1: a Transfer-Encoding in HTTP/1.0 is faulty framing
            return Framing(Kind.CLOSE, 0, "Transfer-Encoding in HTTP/1.0")
        if coding.rpartition(b",")[2].strip(b" \t").lower() == b"chunked":
            return Framing(Kind.CHUNKED)
        return Framing(Kind.CLOSE, 0, "" if default.kind is Kind.CLOSE else "Transfer-Encoding does not end in chunked")
    text = fields.get(b"content-length")
    return default if text is None else _by_length(text)


@lru_cache(maxsize=4096)
def _by_length(text: bytes) -> Framing:
    values = {part.strip(b" \t") for part in text.split(b",")}
    value = values.pop() if len(values) == 1 else b""
    if not _LENGTH.match(value):
        return Framing(Kind.CLOSE, 0, "invalid or conflicting Content-Length")
    return Framing(Kind.LENGTH, int(value))
