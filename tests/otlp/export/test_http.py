"""The HTTP exporter and the courier against a real server that answers by script."""

import gzip
import socket
from email.utils import formatdate
from random import Random

import httpx
import orjson
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ebbflow.config import Config, OtlpConfig
from ebbflow.errors import ConfigError, InternalError, NetworkError, RateLimited, Rejected, TooLarge
from ebbflow.otlp.export import Accepted, Courier, Parcel, make_exporter
from ebbflow.otlp.export import http as our_http
from ebbflow.otlp.export.http import judge, read_retry_after
from ebbflow.otlp.signals import TRACES
from ebbflow.testing.otlp_backend import HttpBackend, Reply
from ebbflow.testing.spans import make_record, make_traces, span_numbers

NOW_S = 1_700_000_000.0
ALL = list(range(30))
PARTIAL = ExportTraceServiceResponse(partial_success={"rejected_spans": 4, "error_message": "old"}).SerializeToString()
BOMB = gzip.compress(bytes(5 << 20))


def exporter(backend: HttpBackend, **otlp):
    settings = {"endpoint": backend.url, "timeout_s": 0.1} | otlp
    return make_exporter(Config(otlp=OtlpConfig(**settings)), TRACES)


async def carry(backend: HttpBackend, **otlp):
    """Three records of ten numbered spans through a courier; delays are noted instead of slept."""
    delays_s = []

    async def sleep(delay_s: float) -> None:
        delays_s.append(delay_s)

    client = exporter(backend, **otlp)
    parcels = [Parcel(make_record(range(i * 10, i * 10 + 10), offset=i), 10) for i in range(3)]
    try:
        await Courier(TRACES, client, batch_bytes=1 << 20, random=Random(1), sleep=sleep).deliver(
            parcels, lambda _error: None
        )
    finally:
        await client.close()
    dead = [n for parcel in parcels for letter in parcel.dead_letters for n in span_numbers(letter.value)]
    arrived = [number for body in backend.accepted for number in span_numbers(body)]
    exported, rejected = sum(parcel.exported for parcel in parcels), sum(parcel.rejected for parcel in parcels)
    assert exported + rejected == len(ALL)
    return arrived, dead, exported, rejected, delays_s


RETRIED = {
    "429 in seconds": Reply(429, {"Retry-After": "3"}),
    "503 in seconds": Reply(503, {"Retry-After": "3"}),
    "429": Reply(429),
    "502": Reply(502),
    "503": Reply(503, body=b"\xff\xff not a status"),
    "504": Reply(504, body=b"<html>"),
    "reset in the body": Reply(way="reset"),
    "silent": Reply(way="silent"),
    "trickle": Reply(way="trickle"),
    "no HTTP": Reply(way="raw", body=b"\x00\x01\x02 SSH-2.0\r\n\r\n"),
    "nothing": Reply(way="raw", body=b""),
}


@pytest.mark.parametrize("reply", RETRIED.values(), ids=RETRIED)
async def test_retriable_answer_is_repeated_and_everything_arrives_once(reply):
    async with HttpBackend([reply]) as backend:
        arrived, dead, exported, _, delays_s = await carry(backend)
        assert (arrived, dead, exported) == (ALL, [], 30)
        assert len(backend.requests) == 2
        assert backend.requests[0].body == backend.requests[1].body
        assert len(delays_s) == 1


@pytest.mark.parametrize(
    "status", [300, 301, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410, 415, 418, 422, 431, 451, 500, 501, 505, 507]
)
async def test_final_answer_is_sent_once_and_everything_is_a_dead_letter(status):
    async with HttpBackend([Reply(status, {"Retry-After": "1", "Location": "/elsewhere"})]) as backend:
        arrived, dead, _, rejected, delays_s = await carry(backend)
        assert (arrived, dead, rejected, delays_s) == ([], ALL, 30, [])
        assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [Reply(way="endless"), Reply(503, way="endless"), Reply(200, {"content-encoding": "gzip"}, BOMB)],
    ids=["endless", "endless 503", "gzip bomb"],
)
async def test_response_beyond_the_limit_is_discarded_and_final(reply):
    async with HttpBackend([reply]) as backend:
        _, dead, _, rejected, delays_s = await carry(backend, timeout_s=5)
        assert (dead, rejected, delays_s, len(backend.requests)) == (ALL, 30, [], 1)


async def test_413_is_split_until_every_part_is_taken():
    async with HttpBackend([Reply(413), Reply(413)]) as backend:
        arrived, dead, exported, _, delays_s = await carry(backend)
        assert (arrived, dead, exported, delays_s) == (ALL, [], 30, [])
        assert [len(span_numbers(request.body)) for request in backend.requests] == [30, 10, 5, 5, 20]


async def test_413_to_the_last_span_is_a_dead_letter_for_each():
    async with HttpBackend([Reply(413)] * 59) as backend:
        arrived, dead, exported, rejected, _ = await carry(backend, compression="none")
        assert (arrived, dead, exported, rejected) == ([], ALL, 0, 30)
        assert len(backend.requests) == 59  # a binary tree with 30 leaves


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {}, PARTIAL),
        Reply(200, {"content-encoding": "gzip"}, gzip.compress(PARTIAL)),
        Reply(
            200,
            {"content-type": "application/json"},
            orjson.dumps({"partialSuccess": {"rejectedSpans": "4", "errorMessage": "old"}}),
        ),
    ],
    ids=["protobuf", "gzip", "JSON"],
)
async def test_partial_success_is_counted_and_not_repeated(reply):
    async with HttpBackend([reply]) as backend:
        arrived, dead, exported, rejected, _ = await carry(backend)
        assert (arrived, dead, exported, rejected) == (ALL, [], 26, 4)
        assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(202),
        Reply(200, {}, b"<html>welcome</html>"),
        Reply(200, {"content-encoding": "gzip"}, b"not gzip"),
        Reply(200, {"content-type": "application/json"}, b"["),
        Reply(200, {"content-type": "application/json"}, b"[]"),
        Reply(200, {"content-type": "application/json"}, b'{"partialSuccess":{"rejectedSpans":"many"}}'),
    ],
)
async def test_success_with_an_unreadable_body_is_success(reply):
    async with HttpBackend([reply]) as backend:
        arrived, dead, exported, rejected, _ = await carry(backend)
        assert (arrived, dead, exported, rejected, len(backend.requests)) == (ALL, [], 30, 0, 1)


async def test_request_has_path_headers_and_a_kept_connection():
    async with HttpBackend() as backend:
        client = exporter(backend, headers={"X-Key": "secret", "Content-Type": "text/plain"})
        await client.send(make_traces([1]))
        await client.send(make_traces([2], padding_bytes=200_000))
        await client.close()
        assert [span_numbers(body) for body in backend.accepted] == [[1], [2]]
        assert backend.connections == 1
        headers = backend.requests[0].headers
        assert backend.requests[0].path == "/v1/traces"
        assert [headers[name] for name in ("x-key", "content-type", "content-encoding", "accept-encoding")] == [
            "secret",
            "application/x-protobuf",
            "gzip",
            "gzip",
        ]


async def test_request_without_compression_has_no_content_encoding():
    async with HttpBackend() as backend:
        client = exporter(backend, compression="none")
        await client.send(make_traces([1]))
        await client.close()
        assert "content-encoding" not in backend.requests[0].headers
        assert backend.accepted == [make_traces([1])]


async def test_own_url_is_used_as_given():
    async with HttpBackend() as backend:
        client = exporter(backend, traces_endpoint=f"{backend.url}/in%2Fput?key=a")
        await client.send(make_traces([1]))
        await client.close()
        assert backend.requests[0].path == "/in%2Fput?key=a"


async def test_nobody_there_is_a_network_error_with_a_hint():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        client = make_exporter(Config(otlp=OtlpConfig(endpoint=url)), TRACES)
        with pytest.raises(NetworkError, match="/v1/traces: ") as caught:
            await client.send(make_traces([1]))
        await client.close()
    assert "ebbflow doctor" in caught.value.hint


async def test_tls_known_authority_is_accepted(authority):
    async with HttpBackend(tls=authority.server_context()) as backend:
        client = exporter(backend, certificate=authority.path("ca.pem"), timeout_s=5)
        assert await client.send(make_traces([1])) == Accepted()
        await client.close()


async def test_tls_unknown_authority_is_not_sent_anything_and_repeated(authority, other_authority):
    async with HttpBackend(tls=authority.server_context()) as backend:
        client = exporter(backend, certificate=other_authority.path("ca.pem"), timeout_s=5)
        with pytest.raises(NetworkError, match="certificate verify failed"):
            await client.send(make_traces([1]))
        await client.close()
        assert backend.requests == []


async def test_mutual_tls_with_a_certificate_is_accepted(authority):
    async with HttpBackend(tls=authority.server_context(ask_client=True)) as backend:
        client = exporter(
            backend,
            certificate=authority.path("ca.pem"),
            client_certificate=authority.path("client.pem"),
            client_key=authority.path("client.key"),
            timeout_s=5,
        )
        assert await client.send(make_traces([1])) == Accepted()
        await client.close()


async def test_mutual_tls_without_a_certificate_is_a_network_error(authority):
    async with HttpBackend(tls=authority.server_context(ask_client=True)) as backend:
        client = exporter(backend, certificate=authority.path("ca.pem"), timeout_s=5)
        with pytest.raises(NetworkError):
            await client.send(make_traces([1]))
        await client.close()
        assert backend.requests == []


def test_judge_final_answer_tells_the_status_message():
    body = Status(code=3, message="bad span").SerializeToString()
    with pytest.raises(Rejected, match=r"^HTTP 400 bad span$"):
        judge(TRACES, 400, {}, body, NOW_S)
    with pytest.raises(Rejected, match=r"^HTTP 400 bad json$"):
        judge(TRACES, 400, {"content-type": "application/json"}, b'{"message":"bad json"}', NOW_S)


def test_judge_unreadable_reason_is_the_status_phrase():
    with pytest.raises(Rejected, match=r"^HTTP 404 Not Found$"):
        judge(TRACES, 404, {}, b"<html>", NOW_S)
    with pytest.raises(TooLarge, match=r"^HTTP 413 "):
        judge(TRACES, 413, {"content-type": "application/json"}, b"[]", NOW_S)


def test_judge_redirect_says_where_to():
    with pytest.raises(Rejected, match=r"HTTP 301 Moved Permanently to https://b/$"):
        judge(TRACES, 301, {"location": "https://b/"}, b"", NOW_S)


def test_judge_retry_after_in_an_error_that_is_not_retriable_does_not_make_it_so():
    with pytest.raises(Rejected):
        judge(TRACES, 500, {"retry-after": "1"}, b"", NOW_S)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_judge_retry_after_date_is_a_delay(status):
    headers = {"retry-after": formatdate(NOW_S + 90, usegmt=True)}
    with pytest.raises(RateLimited) as caught:
        judge(TRACES, status, headers, b"", NOW_S)
    assert caught.value.retry_after_s == 90.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("999999999999", 3600.0),
        ("9" * 5000, 3600.0),
        (formatdate(NOW_S + 30, usegmt=True), 30.0),
        (formatdate(NOW_S - 30, usegmt=True), 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        ("Tue Nov 14 22:14:20 2023", 60.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("Fri, 99 Foo 2023 99:99:99 GMT", None),
    ],
)
def test_read_retry_after_takes_seconds_and_dates(text, seconds):
    assert read_retry_after(text, NOW_S) == seconds


def all_subclasses(error: type) -> set[type]:
    return {error}.union(*(all_subclasses(sub) for sub in error.__subclasses__()))


def httpx_errors() -> list[type]:
    roots = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict)
    abstract = {httpx.HTTPError, httpx.RequestError, httpx.TransportError, httpx.ProtocolError}
    return sorted(set().union(*map(all_subclasses, roots)) - abstract, key=lambda error: error.__name__)


@pytest.mark.parametrize("error", httpx_errors(), ids=lambda error: error.__name__)
def test_every_error_of_httpx_is_mapped(error):
    assert any(issubclass(error, theirs) for theirs in our_http.FOREIGN)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (httpx.ConnectError("x"), NetworkError),
        (httpx.LocalProtocolError("x"), ConfigError),
        (httpx.StreamConsumed(), InternalError),
        (httpx.HTTPError("x"), InternalError),
    ],
)
def test_translate_gives_our_error_with_the_url(error, ours):
    translated = our_http._translate(error, "http://b")
    assert type(translated) is ours
    assert str(translated).startswith("http://b: ")
