from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.errors import ProtocolError
from ebbflow.protocols.http1_chunked import MAX_TRAILER_BYTES
from ebbflow.protocols.http1_framing import (
    ChunkedScanner,
    Framing,
    Guess,
    Kind,
    Span,
    SpanKind,
    head_end,
    looks_like_request,
    looks_like_response,
    parse_request_head,
    parse_response_head,
    request_framing,
    response_framing,
    skip_empty_lines,
)

REQUEST = b"GET /a?b=c HTTP/1.1\r\nHost: shop:80 \r\nuser-AGENT:\tx\r\n\r\n"


def request_with(*lines: str, minor: int = 1) -> Framing:
    head = f"POST / HTTP/1.{minor}\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return request_framing(parse_request_head(head.encode()))


def response_with(status: int, *lines: str, method: bytes | None = b"GET") -> Framing:
    head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return response_framing(parse_response_head(head.encode()), method)


def test_head_end_complete_head_is_after_empty_line() -> None:
    assert head_end(REQUEST + b"body") == len(REQUEST)


@pytest.mark.parametrize("ending", [b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\n\n"])
def test_head_end_bare_lf_is_a_line_end(ending: bytes) -> None:
    assert head_end(b"GET / HTTP/1.1" + ending) == 14 + len(ending)


def test_head_end_unfinished_head_is_minus_one() -> None:
    assert head_end(REQUEST[:-1]) == -1


@pytest.mark.parametrize("cut", range(1, len(REQUEST)))
def test_head_end_searched_again_from_three_bytes_back_finds_the_end(cut: int) -> None:
    buffer = bytearray(REQUEST[:cut])
    again = max(0, len(buffer) - 3)
    buffer += REQUEST[cut:]
    assert head_end(buffer, again) == len(REQUEST)


def test_skip_empty_lines_crlf_before_message_skipped() -> None:
    assert skip_empty_lines(b"ab\r\n\n\r\nGET", 2) == 7


@pytest.mark.parametrize("cut", range(21))
def test_looks_like_request_prefix_is_maybe(cut: int) -> None:
    assert looks_like_request(REQUEST[:cut]) is (Guess.YES if cut == 21 else Guess.MAYBE)


@pytest.mark.parametrize("cut", range(17))
def test_looks_like_response_prefix_is_maybe(cut: int) -> None:
    assert looks_like_response(b"HTTP/1.1 200 OK\r\n"[:cut]) is Guess.MAYBE


def test_looks_like_response_status_line_without_reason_is_yes() -> None:
    assert looks_like_response(b"HTTP/1.0 404\n") is Guess.YES


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n", b"*1\r\n$4", b"GET  / HTTP/1.1", b"x" * 33, b"SSH-2.0-x\r\n"]
)
def test_looks_like_request_other_protocol_is_no(data: bytes) -> None:
    assert looks_like_request(data) is Guess.NO


@pytest.mark.parametrize("data", [b"220 mail", b"HTTP/2 200", b"HTTP/1.1 099 x\r\n", b"\x15\x03"])
def test_looks_like_response_other_protocol_is_no(data: bytes) -> None:
    assert looks_like_response(data) is Guess.NO


def test_parse_request_head_fields_are_lower_case_and_trimmed() -> None:
    head = parse_request_head(REQUEST)
    assert (head.method, head.target, head.minor) == (b"GET", b"/a?b=c", 1)
    assert head.fields == {b"host": b"shop:80", b"user-agent": b"x"}


def test_parse_request_head_cut_in_a_line_leaves_that_line_out() -> None:
    head = parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 12")
    assert head.fields == {b"host": b"a"}


def test_parse_request_head_folded_field_is_unfolded() -> None:
    head = parse_request_head(b"GET / HTTP/1.1\r\nUser-Agent: a\r\n\tb\r\n  Content-Length: 9\r\n\r\n")
    assert head.fields == {b"user-agent": b"a b Content-Length: 9"}


def test_parse_request_head_space_before_colon_is_another_field() -> None:
    assert parse_request_head(b"GET / HTTP/1.1\r\nContent-Length : 3\r\n\r\n").fields == {}


@pytest.mark.parametrize("parse", [parse_request_head, parse_response_head])
def test_parse_head_garbage_raises(parse) -> None:
    with pytest.raises(ProtocolError):
        parse(b"\x00\x01\r\n\r\n")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], (Kind.NONE, 0)),
        (["Content-Length: 12"], (Kind.LENGTH, 12)),
        (["Content-Length: 12", "Content-Length: 12"], (Kind.LENGTH, 12)),
        (["Content-Length: 12, 12"], (Kind.LENGTH, 12)),
        (["Content-Length: 12", "Content-Length: 13"], (Kind.CLOSE, 0)),
        (["Content-Length: +12"], (Kind.CLOSE, 0)),
        (["Content-Length: 0x10"], (Kind.CLOSE, 0)),
        (["Content-Length: "], (Kind.CLOSE, 0)),
        (["Content-Length: " + "9" * 30], (Kind.CLOSE, 0)),
        (["Transfer-Encoding: chunked", "Content-Length: 3"], (Kind.CHUNKED, 0)),
        (["Transfer-Encoding: gzip, Chunked"], (Kind.CHUNKED, 0)),
        (["Transfer-Encoding: chunked, gzip"], (Kind.CLOSE, 0)),
        (["Transfer-Encoding: xchunked"], (Kind.CLOSE, 0)),
    ],
)
def test_request_framing_by_fields_follows_rfc_9112(lines: list[str], expected: tuple[Kind, int]) -> None:
    assert request_with(*lines)[:2] == expected


def test_request_framing_transfer_encoding_in_http_1_0_is_faulty() -> None:
    framing = request_with("Transfer-Encoding: chunked", minor=0)
    assert (framing.kind, framing.faulty) == (Kind.CLOSE, "Transfer-Encoding in HTTP/1.0")


def test_request_framing_connect_has_no_content() -> None:
    assert request_framing(parse_request_head(b"CONNECT a:1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n")).kind is Kind.NONE


@pytest.mark.parametrize(
    ("status", "method", "kind"),
    [
        (200, b"GET", Kind.LENGTH),
        (200, None, Kind.LENGTH),
        (200, b"HEAD", Kind.NONE),
        (204, b"GET", Kind.NONE),
        (304, b"GET", Kind.NONE),
        (100, b"POST", Kind.NONE),
        (103, b"GET", Kind.NONE),
        (101, b"GET", Kind.TUNNEL),
        (200, b"CONNECT", Kind.TUNNEL),
        (407, b"CONNECT", Kind.LENGTH),
    ],
)
def test_response_framing_by_status_and_method(status: int, method: bytes | None, kind: Kind) -> None:
    assert response_with(status, "Content-Length: 5", method=method).kind is kind


def test_response_framing_without_fields_is_delimited_by_close() -> None:
    assert response_with(200) == Framing(Kind.CLOSE)


def test_response_framing_transfer_encoding_without_chunked_is_delimited_by_close() -> None:
    assert response_with(200, "Transfer-Encoding: gzip") == Framing(Kind.CLOSE)


def scan_in_steps(body: bytes, step: int) -> ChunkedScanner:
    scanner = ChunkedScanner()
    for start in range(0, len(body), step):
        scanner.scan(body[start : start + step])
    return scanner


CHUNKED = b'4;x="y"\r\nWiki\r\n6 \r\npedia \nE\nin \r\n\r\nchunks.\r\n0\r\nX: y\r\n\r\n'


def texts(buffer: bytes, spans: list[Span], kind: SpanKind) -> bytes:
    return b"".join(buffer[span.start : span.end] for span in spans if span.kind is kind)


def test_chunked_scanner_whole_body_tells_data_from_framing() -> None:
    scanner = ChunkedScanner()
    offset, spans = scanner.scan(b"__" + CHUNKED + b"GET", 2)
    assert (offset, scanner.done, scanner.data_bytes) == (2 + len(CHUNKED), True, 24)
    assert texts(b"__" + CHUNKED, spans, SpanKind.DATA) == b"Wikipedia in \r\n\r\nchunks."
    assert texts(b"__" + CHUNKED, spans, SpanKind.EXTENSION) == b'x="y"'
    assert texts(b"__" + CHUNKED, spans, SpanKind.TRAILER) == b"X: y"


@given(st.lists(st.integers(0, len(CHUNKED)), max_size=12))
def test_chunked_scanner_any_cuts_same_spans(cuts: list[int]) -> None:
    edges = sorted({0, *cuts, len(CHUNKED)})
    found = dict.fromkeys(SpanKind, b"")
    scanner = ChunkedScanner()
    for first, last in pairwise(edges):
        piece = CHUNKED[first:last]
        scanner = ChunkedScanner.from_state(scanner.state())
        offset, spans = scanner.scan(memoryview(piece))
        assert offset == len(piece)
        found = {kind: found[kind] + texts(piece, spans, kind) for kind in SpanKind}
    assert scanner.done
    assert found == {0: b"Wikipedia in \r\n\r\nchunks.", 1: b'x="y"', 2: b"X: y"}


@pytest.mark.parametrize(
    "body",
    [
        b"g\r\n",
        b"-1\r\n",
        b"0x4\r\n",
        b"\r\n",
        b";a\r\n",
        b"4\rx\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\r\r\n",
        b"f" * 30,
        b"4;" + b"a" * 5000,
    ],
)
@pytest.mark.parametrize("step", [1, 100_000])
def test_chunked_scanner_faulty_body_raises(body: bytes, step: int) -> None:
    with pytest.raises(ProtocolError):
        scan_in_steps(body, step)


def test_chunked_scanner_endless_trailers_raise() -> None:
    scanner = ChunkedScanner()
    with pytest.raises(ProtocolError):
        scanner.scan(b"0\r\n" + b"a: b\r\n" * MAX_TRAILER_BYTES)


def test_chunked_scanner_skip_inside_chunk_data_keeps_track() -> None:
    scanner = ChunkedScanner()
    scanner.scan(b"a\r\n12")
    assert scanner.skip(8)
    assert scanner.scan(b"\r\n0\r\n\r\n") == (7, [])
    assert (scanner.done, scanner.data_bytes) == (True, 10)


def test_chunked_scanner_skip_beyond_chunk_data_is_refused() -> None:
    scanner = ChunkedScanner()
    scanner.scan(b"a\r\n12")
    assert not scanner.skip(9)
    assert scanner.skip(0)
