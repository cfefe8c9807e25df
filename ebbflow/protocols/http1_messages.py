"""What is remembered of requests, responses and exchanges, and how it goes into a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ebbflow.protocols.http1_heads import Heads, KnownRequest, KnownResponse


@dataclass(slots=True)
class Request:
    """`offset_ns` turns the monotonic stamps of this exchange into unix time; `body_bytes`: of a chunked body."""

    known: KnownRequest
    time_ns: int
    position: int
    offset_ns: int
    body_bytes: int = -1


@dataclass(slots=True)
class Response:
    """`last_ns` is the time of its last event so far; `matched`: its request, seen or lost, has been found."""

    known: KnownResponse
    time_ns: int
    position: int
    offset_ns: int
    last_ns: int
    body_bytes: int = -1
    request: Request | None = None
    matched: bool = False
    ended: bool = False


@dataclass(slots=True)
class Lost:
    """So many messages of which nothing is known but that they were there before that time."""

    number: int
    until_ns: int


class Exchange(NamedTuple):
    """What is known of one exchange; `incomplete` names what is missing, "" nothing."""

    request: Request | None
    response: Response | None
    end_ns: int
    incomplete: str


@dataclass(slots=True)
class Tally:
    """Counts of what is not an exchange; see processors/requests.py for their meaning."""

    lost_exchanges: int = 0
    lost_events: int = 0
    late_events: int = 0
    orphan_responses: int = 0
    not_http: int = 0
    opaque_events: int = 0
    malformed: int = 0
    tunnels: int = 0


def pack_request(request: Request | Lost) -> list[Any]:
    if isinstance(request, Lost):
        return [request.number, request.until_ns]
    return [request.known.raw, request.time_ns, request.position, request.offset_ns, request.body_bytes]


def unpack_request(packed: list[Any], heads: Heads) -> Request | Lost:
    if len(packed) == _LOST_FIELDS:
        return Lost(*packed)
    return Request(heads.requests.get(packed[0]), *packed[1:])


def pack_response(response: Response | Lost) -> list[Any]:
    if isinstance(response, Lost):
        return [response.number, response.until_ns]
    return [
        response.known.raw,
        response.time_ns,
        response.position,
        response.offset_ns,
        response.last_ns,
        response.body_bytes,
        None if response.request is None else pack_request(response.request),
        response.matched,
        response.ended,
    ]


def unpack_response(packed: list[Any], heads: Heads) -> Response | Lost:
    if len(packed) == _LOST_FIELDS:
        return Lost(*packed)
    raw, time_ns, position, offset_ns, last_ns, body_bytes, request, matched, ended = packed
    found = None if request is None else unpack_request(request, heads)
    return Response(
        heads.responses.get(raw),
        time_ns,
        position,
        offset_ns,
        last_ns,
        body_bytes,
        found if isinstance(found, Request) else None,
        matched,
        ended,
    )


_LOST_FIELDS = 2
