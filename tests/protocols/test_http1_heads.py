from __future__ import annotations

import pytest

from ebbflow.errors import ProtocolError
from ebbflow.protocols.http1_heads import MAX_CACHED_HEAD_BYTES, MAX_HEADS, Heads, know_request, know_response

GET = b"GET / HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (GET, len(GET)),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 43),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", -1),
        (b"HEAD / HTTP/1.1\r\n\r\n", -1),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", -1),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", -1),
    ],
)
def test_know_request_message_bytes_follow_from_plain_heads_only(head: bytes, size: int) -> None:
    assert know_request(head).message_bytes == size


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 43),
        (b"HTTP/1.1 204 OK\r\nContent-Length: 5\r\n\r\n", 38),
        (b"HTTP/1.1 200 OK\r\n\r\n", -1),
        (b"HTTP/1.1 100 Continue\r\n\r\n", -1),
        (b"HTTP/1.1 101 Switching\r\n\r\n", -1),
    ],
)
def test_know_response_message_bytes_follow_from_plain_heads_only(head: bytes, size: int) -> None:
    assert know_response(head).message_bytes == size


@pytest.mark.parametrize(("status", "interim"), [(100, True), (103, True), (101, False), (200, False)])
def test_know_response_interim_is_1xx_but_101(status: int, interim: bool) -> None:
    assert know_response(b"HTTP/1.1 %d X\r\n\r\n" % status).is_interim is interim


def test_cache_head_is_kept_when_it_comes_again() -> None:
    cache = Heads().requests
    first, second, third = cache.get(GET), cache.get(GET), cache.get(GET)
    assert first is not second
    assert second is third


def test_cache_find_refuses_what_is_no_whole_head() -> None:
    cache = Heads().requests
    assert cache.find(GET) is not None
    for raw in (b"", b"GET", GET[:-2], GET + GET, b"GET / HTTP/1.1\n\nX\r\n\r\n", b"\r\n\r\n", b"garbage\r\n\r\n"):
        assert cache.find(raw) is None


def test_cache_is_bounded_in_number_and_in_size() -> None:
    cache = Heads().requests
    for number in range(MAX_HEADS + 10):
        for _ in range(2):
            cache.get(b"GET /%d HTTP/1.1\r\n\r\n" % number)
    assert len(cache.known) <= MAX_HEADS
    long = b"GET /%s HTTP/1.1\r\n\r\n" % (b"x" * MAX_CACHED_HEAD_BYTES)
    assert cache.get(long) is not cache.get(long)
    assert cache.get(long) is not cache.get(long)


def test_cache_garbage_raises() -> None:
    with pytest.raises(ProtocolError):
        Heads().responses.get(GET)
