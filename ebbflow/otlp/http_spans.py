"""HTTP exchanges as encoded spans: semantic conventions 1.44.0, docs/http/http-spans.md.

A span is joined from four pieces, three of which are encoded once and kept where they belong:

    ids and times                       each exchange
    name, kind, request attributes      each request head   (KnownRequest.rendered)
    status, response attributes         each response head  (KnownResponse.rendered)
    addresses                           each connection     (Endpoint)

Ids are hashes of where the exchange stands: host, boot, connection, direction, stream position. Whoever computes them
again gets the same, which makes a repeated span the same bytes. A valid `traceparent` gives trace id and parent.

What a witness knows less well than an instrumented server: `http.route` is a template made of the path; `url.scheme` is
http unless a proxy says otherwise. An incomplete exchange has no span status, an `error.type`, and says in
`ebbflow.incomplete` what is missing.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2b

from ebbflow.otlp import semconv
from ebbflow.otlp.encode import ROOT_FLAGS, Attribute, span_field, times
from ebbflow.otlp.http_heads import (
    CLIENT_ADDRESS,
    ERROR_TYPE,
    FULL,
    REQUEST_SIZE,
    RESPONSE_SIZE,
    SERVER,
    SERVER_ADDRESS,
    SERVER_PORT,
    nameless_request,
    render_request,
    render_response,
)
from ebbflow.protocols.http1_heads import KnownRequest, KnownResponse
from ebbflow.protocols.http1_messages import Exchange

_INCOMPLETE = Attribute(semconv.EBBFLOW_INCOMPLETE)
_PLACE = struct.Struct("<BQ")


class Endpoint:
    """What all spans of a connection share.

    Attributes:
        kind: SERVER or CLIENT.
        addresses: encoded address attributes, by what the request head brings itself.
    """

    __slots__ = ("_place", "addresses", "authority", "kind", "request_direction")

    def __init__(
        self,
        kind: int,
        *,
        identity: bytes,
        network: bytes,
        server: tuple[str, int],
        client: str,
    ) -> None:
        self.kind = kind
        self.request_direction = kind  # a server receives requests (0), a client sends them (1)
        self._place = blake2b(identity, digest_size=24)
        address, port = server
        server_part = SERVER_ADDRESS.text(address) + (SERVER_PORT.number(port) if port else b"") if address else b""
        client_part = CLIENT_ADDRESS.text(client) if client and kind == SERVER else b""
        self.addresses = (network + server_part + client_part, network + client_part, network + server_part, network)
        host = f"[{address}]" if ":" in address else address
        self.authority = f"{host}:{port}".encode() if port else host.encode()

    def digest(self, direction: int, position: int) -> bytes:
        """16 bytes for a trace id and 8 for a span id."""
        place = self._place.copy()
        place.update(_PLACE.pack(direction, position))
        return place.digest()


def complete_span(
    endpoint: Endpoint,
    known: KnownRequest,
    position: int,
    start_unix_ns: int,
    response: KnownResponse,
    end_unix_ns: int,
) -> bytes:
    """The span of an exchange whose bodies have the sizes their heads say; for the common path."""
    request_part = known.rendered[endpoint.kind] or render_request(known, endpoint.kind)
    response_part = response.rendered[endpoint.kind] or render_response(response, endpoint.kind)
    digest = endpoint.digest(endpoint.request_direction, position)
    body = b"".join((
        request_part.context or b"\x0a\x10" + digest[:16] + ROOT_FLAGS,
        b"\x12\x08",
        digest[16:],
        times(start_unix_ns, end_unix_ns),
        request_part.pieces,
        request_part.size,
        response_part.pieces,
        response_part.outcome,
        response_part.size,
        endpoint.addresses[request_part.addresses],
        b"" if request_part.full_tail is None else _full_url(endpoint, request_part.full_tail),
    ))  # fmt: skip
    return span_field(body)


def exchange_span(endpoint: Endpoint, exchange: Exchange) -> bytes:
    """The span of any exchange; for those of the common path, the same bytes as `complete_span`."""
    request = exchange.request
    pieces = _request_pieces(endpoint, exchange) if request else _lost_request_pieces(endpoint, exchange)
    pieces += _response_pieces(endpoint, exchange)
    part = request.known.rendered[endpoint.kind] if request else None
    pieces.append(endpoint.addresses[part.addresses if part else 0])
    if part and part.full_tail is not None:
        pieces.append(_full_url(endpoint, part.full_tail))
    if exchange.incomplete:
        pieces.append(_incomplete(exchange.incomplete))
    return span_field(b"".join(pieces))


def _request_pieces(endpoint: Endpoint, exchange: Exchange) -> list[bytes]:
    request = exchange.request
    assert request is not None  # noqa: S101 - the caller looked
    part = request.known.rendered[endpoint.kind] or render_request(request.known, endpoint.kind)
    digest = endpoint.digest(endpoint.request_direction, request.position)
    offset_ns = request.offset_ns
    return [
        part.context or b"\x0a\x10" + digest[:16] + ROOT_FLAGS,
        b"\x12\x08",
        digest[16:],
        times(request.time_ns + offset_ns, exchange.end_ns + offset_ns),
        part.pieces,
        REQUEST_SIZE.number(request.body_bytes) if request.body_bytes >= 0 else part.size,
    ]


def _lost_request_pieces(endpoint: Endpoint, exchange: Exchange) -> list[bytes]:
    response = exchange.response
    assert response is not None  # noqa: S101 - an exchange has one of the two
    digest = endpoint.digest(1 - endpoint.request_direction, response.position)
    offset_ns = response.offset_ns
    return [
        b"\x0a\x10" + digest[:16] + ROOT_FLAGS,
        b"\x12\x08",
        digest[16:],
        times(response.time_ns + offset_ns, exchange.end_ns + offset_ns),
        nameless_request(response.known.head.minor, endpoint.kind),
    ]


def _response_pieces(endpoint: Endpoint, exchange: Exchange) -> list[bytes]:
    response = exchange.response
    if response is None:
        return []
    part = response.known.rendered[endpoint.kind] or render_response(response.known, endpoint.kind)
    size = RESPONSE_SIZE.number(response.body_bytes) if response.body_bytes >= 0 else b""
    return [part.pieces, b"" if exchange.incomplete else part.outcome, size]


@lru_cache(maxsize=64)
def _incomplete(reason: str) -> bytes:
    return ERROR_TYPE.text(reason) + _INCOMPLETE.text(reason)


def _full_url(endpoint: Endpoint, tail: bytes) -> bytes:
    return FULL.text(b"http://" + endpoint.authority + tail)
