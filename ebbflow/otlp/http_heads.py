"""What HTTP/1 heads say, as encoded span attributes; kept with the head, in its `rendered`.

Semantic conventions 1.44.0, docs/http/http-spans.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from ebbflow.otlp import semconv
from ebbflow.otlp.encode import (
    SPAN_KIND_CLIENT,
    SPAN_KIND_SERVER,
    STATUS_CODE_ERROR,
    Attribute,
    span_prefix,
    status,
    text,
    trace_parent,
)
from ebbflow.otlp.routes import template
from ebbflow.protocols.http1_framing import Kind
from ebbflow.protocols.http1_heads import KnownRequest, KnownResponse
from ebbflow.protocols.trace_context import read_trace_context

SERVER, CLIENT = 0, 1
KINDS = (SPAN_KIND_SERVER, SPAN_KIND_CLIENT)
_METHOD = Attribute(semconv.HTTP_REQUEST_METHOD)
_METHOD_ORIGINAL = Attribute(semconv.HTTP_REQUEST_METHOD_ORIGINAL)
_ROUTE = Attribute(semconv.HTTP_ROUTE)
_TEMPLATE = Attribute(semconv.URL_TEMPLATE)
_PATH = Attribute(semconv.URL_PATH)
_QUERY = Attribute(semconv.URL_QUERY)
_SCHEME = Attribute(semconv.URL_SCHEME)
FULL = Attribute(semconv.URL_FULL)
_STATUS = Attribute(semconv.HTTP_RESPONSE_STATUS_CODE)
REQUEST_SIZE = Attribute(semconv.HTTP_REQUEST_BODY_SIZE)
RESPONSE_SIZE = Attribute(semconv.HTTP_RESPONSE_BODY_SIZE)
_USER_AGENT = Attribute(semconv.USER_AGENT_ORIGINAL)
ERROR_TYPE = Attribute(semconv.ERROR_TYPE)
SERVER_ADDRESS = Attribute(semconv.SERVER_ADDRESS)
SERVER_PORT = Attribute(semconv.SERVER_PORT)
CLIENT_ADDRESS = Attribute(semconv.CLIENT_ADDRESS)
_VERSION = Attribute(semconv.NETWORK_PROTOCOL_VERSION)

# RFC 9112, 3.2.2: absolute-form = absolute-URI
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?")
# RFC 3986, 3.2: authority = [ userinfo "@" ] host [ ":" port ]
_AUTHORITY = re.compile(
    rb"(?:(?P<user>[^@]*)@)?(?P<host>\[[0-9A-Za-z:.%]+\]|[^:@,\s\[\]]+)(?::(?P<port>[0-9]{1,5}))?\Z"
)
_DEFAULT_PORTS = {b"http": 80, b"https": 443}
# Which addresses a request head brings itself; the connection's socket gives the others.
_HAS_AUTHORITY, _HAS_CLIENT = 1, 2
_MAX_PORT = 65535
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


@dataclass(slots=True)
class RenderedRequest:
    """`context`: trace id, parent, state and flags of a traceparent, or none; `full_tail`: url.full lacks its start."""

    context: bytes
    pieces: bytes
    size: bytes
    addresses: int
    full_tail: bytes | None


@dataclass(slots=True)
class RenderedResponse:
    """`size` holds for a body of known length; `outcome` is status and error.type of a complete exchange."""

    pieces: bytes
    outcome: bytes
    size: bytes


def nameless_request(minor: int, kind: int) -> bytes:
    """Name, kind and attributes of a request that was lost; `minor` is its response's."""
    name = span_prefix(semconv.OTHER_METHOD_NAME, KINDS[kind])
    return name + _METHOD.text(semconv.OTHER_METHOD) + _SCHEME.text(b"http") + _VERSION.text(b"1.%d" % minor)


def render_request(known: KnownRequest, kind: int) -> RenderedRequest:
    """Encode and keep what a request head says."""
    head = known.head
    fields = head.fields
    scheme, authority, path, query = _split_target(head.target, head.method)
    if kind == SERVER and fields.get(b"x-forwarded-proto") in _DEFAULT_PORTS:
        scheme = fields[b"x-forwarded-proto"]
    authority = authority or fields.get(b"host", b"")
    context = read_trace_context(fields.get(b"traceparent"), fields.get(b"tracestate"))
    shared, has_authority = _shared_pieces(
        head.method, head.minor, scheme, authority, fields.get(b"user-agent", b""), kind
    )
    client = _forwarded_for(fields) if kind == SERVER and b"x-forwarded-for" in fields else b""
    tail = path + (b"?" + query if query else b"")
    full = FULL.text(scheme + b"://" + _without_user(authority) + tail) if kind == CLIENT and has_authority else b""
    rendered = RenderedRequest(
        b"" if context is None else trace_parent(*context),
        b"".join((_named(head.method, path, kind), shared, _QUERY.text(query) if query else b"", client, full)),
        REQUEST_SIZE.number(known.framing.length) if known.framing.kind is Kind.LENGTH else b"",
        (_HAS_AUTHORITY if has_authority else 0) | (_HAS_CLIENT if client else 0),
        tail if kind == CLIENT and not has_authority else None,
    )
    known.rendered[kind] = rendered
    return rendered


def render_response(known: KnownResponse, kind: int) -> RenderedResponse:
    """Encode and keep what a response head says."""
    code = known.head.status
    has_length = known.message_bytes >= 0 and b"content-length" in known.head.fields and code not in {204, 304}
    rendered = _rendered_response(code, known.message_bytes - len(known.raw) if has_length else -1, kind)
    known.rendered[kind] = rendered
    return rendered


@lru_cache(maxsize=4096)
def _rendered_response(code: int, length: int, kind: int) -> RenderedResponse:
    failed = code >= (_SERVER_ERROR if kind == SERVER else _CLIENT_ERROR)
    return RenderedResponse(
        _STATUS.number(code),
        status(STATUS_CODE_ERROR) + ERROR_TYPE.text(str(code)) if failed else b"",
        RESPONSE_SIZE.number(length) if length >= 0 else b"",
    )


def _split_target(target: bytes, method: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """RFC 9112, 3.2: scheme, authority, path, query of any of the four forms of a request target."""
    if method == b"CONNECT":
        return b"http", target, b"", b""
    absolute = None if target.startswith(b"/") else _ABSOLUTE.match(target)
    if absolute is not None:
        scheme, authority, path, query = absolute.groups(b"")
        return scheme.lower(), authority, path or b"/", query
    path, _, query = target.partition(b"#")[0].partition(b"?")
    return b"http", b"", path, query


def _named(method: bytes, path: bytes, kind: int) -> bytes:
    """Span name and kind, path, and the template they share."""
    route = template(path) if path.startswith(b"/") else b""
    return _named_by_route(method, route, kind) + (_PATH.text(path) if path else b"")


@lru_cache(maxsize=4096)
def _named_by_route(method: bytes, route: bytes, kind: int) -> bytes:
    name = method if method in semconv.KNOWN_METHODS else semconv.OTHER_METHOD_NAME
    if not route:
        return span_prefix(name, KINDS[kind])
    attribute = _ROUTE if kind == SERVER else _TEMPLATE
    return span_prefix(name + b" " + text(route), KINDS[kind]) + attribute.text(route)


@lru_cache(maxsize=4096)
def _shared_pieces(
    method: bytes, minor: int, scheme: bytes, authority: bytes, user_agent: bytes, kind: int
) -> tuple[bytes, bool]:
    """Attributes that many heads have in common, and whether the authority is among them."""
    del kind
    known = method in semconv.KNOWN_METHODS
    pieces = _METHOD.text(method) if known else _METHOD.text(semconv.OTHER_METHOD) + _METHOD_ORIGINAL.text(method)
    pieces += _SCHEME.text(scheme) + _VERSION.text(b"1.%d" % minor)
    if user_agent:
        pieces += _USER_AGENT.text(user_agent)
    match = _AUTHORITY.match(authority)
    if match is None:
        return pieces, False
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS.get(scheme, 0)
    pieces += SERVER_ADDRESS.text(match["host"].strip(b"[]"))
    if 0 < port <= _MAX_PORT:
        pieces += SERVER_PORT.number(port)
    return pieces, True


def _without_user(authority: bytes) -> bytes:
    """url.full: credentials in it must be redacted."""
    user, at, host = authority.rpartition(b"@")
    if not at:
        return authority
    return (b"REDACTED:REDACTED@" if b":" in user else b"REDACTED@") + host


def _forwarded_for(fields: dict[bytes, bytes]) -> bytes:
    """client.address: the first of X-Forwarded-For, where it is an address."""
    first = fields[b"x-forwarded-for"].partition(b",")[0].strip(b" \t[]")
    try:
        return CLIENT_ADDRESS.text(str(ip_address(first.decode("ascii"))))
    except ValueError:
        return b""
