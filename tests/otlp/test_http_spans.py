from __future__ import annotations

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from ebbflow.otlp.http_heads import CLIENT, SERVER
from ebbflow.otlp.http_spans import Endpoint, complete_span, exchange_span
from ebbflow.protocols.http1_heads import know_request, know_response
from ebbflow.protocols.http1_messages import Exchange, Request, Response
from ebbflow.testing.http_traffic import attributes

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


def endpoint(kind: int = SERVER) -> Endpoint:
    return Endpoint(kind, identity=b"host", network=b"", server=("10.0.0.1", 80), client="10.0.0.9")


def spans_of(encoded: bytes) -> Span:
    (span,) = ScopeSpans.FromString(encoded).spans
    return span


def span(head: bytes, *, kind: int = SERVER, answer: bytes = OK) -> Span:
    return spans_of(complete_span(endpoint(kind), know_request(head), 0, 10, know_response(answer), 20))


def values(target: str, *fields: str, kind: int = SERVER, method: str = "GET") -> dict[str, str | int]:
    lines = "".join(f"{line}\r\n" for line in fields)
    return attributes(span(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode(), kind=kind))


@pytest.mark.parametrize("kind", [SERVER, CLIENT])
@pytest.mark.parametrize("fields", [b"", b"Host: a:81\r\n", b"Content-Length: 0\r\n", b"X-Forwarded-For: 1.2.3.4\r\n"])
def test_exchange_span_of_a_plain_exchange_is_the_common_paths(kind: int, fields: bytes) -> None:
    request, response = know_request(b"GET /a/1?b HTTP/1.1\r\n" + fields + b"\r\n"), know_response(OK)
    common = complete_span(endpoint(kind), request, 7, 100, response, 200)
    exchange = Exchange(Request(request, 90, 7, 10), Response(response, 1, 2, 3, 4, 5), 190, "")
    assert exchange_span(endpoint(kind), exchange) == common


def test_span_unknown_method_is_other_with_the_original() -> None:
    found = span(b"BREW /pot HTTP/1.1\r\n\r\n")
    assert found.name == "HTTP /pot"
    assert attributes(found)["http.request.method"] == "_OTHER"
    assert attributes(found)["http.request.method_original"] == "BREW"


@pytest.mark.parametrize(
    ("target", "method", "name", "path"),
    [("*", "OPTIONS", "OPTIONS", "*"), ("shop:443", "CONNECT", "CONNECT", None), ("http://a", "GET", "GET /", "/")],
)
def test_span_other_forms_of_target(target: str, method: str, name: str, path: str | None) -> None:
    found = span(f"{method} {target} HTTP/1.1\r\n\r\n".encode())
    assert (found.name, attributes(found).get("url.path")) == (name, path)


def test_span_absolute_target_gives_scheme_and_server() -> None:
    found = values("HTTPS://user:pw@Shop/a?b#c", "Host: other", kind=CLIENT)
    assert found["url.full"] == "https://REDACTED:REDACTED@Shop/a?b"
    assert (found["server.address"], found["server.port"], found["url.scheme"]) == ("Shop", 443, "https")


def test_span_absolute_target_with_user_only_is_redacted() -> None:
    assert values("http://token@shop/", kind=CLIENT)["url.full"] == "http://REDACTED@shop/"


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("shop", "shop", 80),
        ("shop:8080", "shop", 8080),
        ("[::1]:90", "::1", 90),
        ("a b", "10.0.0.1", 80),
        ("a, b", "10.0.0.1", 80),
        ("shop:99999", "shop", None),
    ],
)
def test_span_server_address_is_the_hosts_or_the_sockets(host: str, address: str, port: int | None) -> None:
    found = values("/", f"Host: {host}")
    assert (found["server.address"], found.get("server.port")) == (address, port)


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [("1.2.3.4, 5.6.7.8", "1.2.3.4"), ("[2001:db8::1]", "2001:db8::1"), ("unknown", "10.0.0.9"), ("\xff", "10.0.0.9")],
)
def test_span_client_address_is_the_forwarded_one_where_it_is_one(forwarded: str, address: str) -> None:
    head = b"GET / HTTP/1.1\r\nX-Forwarded-For: " + forwarded.encode("latin-1") + b"\r\n\r\n"
    assert attributes(span(head))["client.address"] == address


def test_span_forwarded_scheme_counts_for_servers_only() -> None:
    assert values("/", "X-Forwarded-Proto: https")["url.scheme"] == "https"
    assert values("/", "X-Forwarded-Proto: gopher")["url.scheme"] == "http"
    assert values("/", "X-Forwarded-Proto: https", kind=CLIENT)["url.scheme"] == "http"


def test_span_bytes_that_are_no_utf_8_are_replaced() -> None:
    found = span(b"GET /\xff?\xfe HTTP/1.1\r\nUser-Agent: \xfd\r\n\r\n")
    assert found.name == "GET /\ufffd"
    assert (attributes(found)["url.query"], attributes(found)["user_agent.original"]) == ("\ufffd", "\ufffd")


@pytest.mark.parametrize(("status", "server", "client"), [(200, 0, 0), (404, 0, 2), (500, 2, 2)])
def test_span_status_follows_the_kind(status: int, server: int, client: int) -> None:
    answer = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
    for kind, code in ((SERVER, server), (CLIENT, client)):
        found = span(b"GET / HTTP/1.1\r\n\r\n", kind=kind, answer=answer)
        assert found.status.code == code
        assert attributes(found).get("error.type") == (str(status) if code else None)


def test_span_lost_request_says_what_is_known() -> None:
    response = Response(know_response(OK), 50, 9, 1000, 60, 5, matched=True, ended=True)
    found = spans_of(exchange_span(endpoint(), Exchange(None, response, 60, "data_lost")))
    assert (found.name, found.start_time_unix_nano, found.end_time_unix_nano) == ("HTTP", 1050, 1060)
    expected = {"http.request.method": "_OTHER", "http.response.status_code": 200, "error.type": "data_lost"}
    assert expected.items() <= attributes(found).items()


def test_endpoint_ids_depend_on_direction_and_position() -> None:
    one = endpoint()
    digests = {one.digest(direction, position) for direction in (0, 1) for position in (0, 1)}
    assert len(digests) == 4
    assert endpoint().digest(0, 1) == one.digest(0, 1)
    assert one.digest(0, 0).hex() == "e9463af5645c2fb283159440b68e11c2270c3c0e1c761024"


@pytest.mark.parametrize(
    ("address", "port", "expected"), [("::1", 80, b"[::1]:80"), ("/run/x.sock", 0, b"/run/x.sock")]
)
def test_endpoint_authority(address: str, port: int, expected: bytes) -> None:
    assert Endpoint(CLIENT, identity=b"", network=b"", server=(address, port), client="").authority == expected
