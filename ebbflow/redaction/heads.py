"""Whether bytes begin a message head, and where its message ends: the producer's quick questions, asked per event."""

from __future__ import annotations

import re

from ebbflow.protocols.http1_framing import (
    Framing,
    Guess,
    looks_like_request,
    looks_like_response,
    parse_request_head,
    parse_response_head,
    request_framing,
    response_framing,
)

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
_PARTIAL_RESPONSE = re.compile(rb"HTTP/1\.[01] [0-9]{0,3}(?: [^\r\n]*)?\r?")


def whole_message(payload: bytes, size: int) -> int:
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


def framing_of(head: bytes) -> tuple[Framing, bool]:
    """How the body behind a head ends, and whether it is a response's."""
    if head.startswith(_STATUS_LINE):
        return response_framing(parse_response_head(head), None), True
    return request_framing(parse_request_head(head)), False


def begins_head(text: bytes) -> bool:
    """Whether these bytes begin a head. Strict for an incomplete line: it decides what is shown of the unknown."""
    if looks_like_request(text) is Guess.YES or looks_like_response(text) is Guess.YES:
        return True
    if b"\n" in text:
        return False
    return bool(text in _PREFIXES or _PARTIAL_REQUEST.fullmatch(text) or _PARTIAL_RESPONSE.fullmatch(text))
