from __future__ import annotations

import pytest

from ebbflow.protocols.http1_heads import Heads
from ebbflow.protocols.http1_messages import (
    Lost,
    Request,
    Response,
    pack_request,
    pack_response,
    unpack_request,
    unpack_response,
)

HEADS = Heads()
REQUEST = Request(HEADS.requests.get(b"GET / HTTP/1.1\r\n\r\n"), 1, 2, 3, 4)
KNOWN = HEADS.responses.get(b"HTTP/1.1 200 OK\r\n\r\n")


@pytest.mark.parametrize("message", [REQUEST, Lost(7, 8)])
def test_request_unpacked_is_what_was_packed(message: Request | Lost) -> None:
    packed = pack_request(message)
    assert pack_request(unpack_request(packed, HEADS)) == packed


@pytest.mark.parametrize(
    "message",
    [Lost(7, 8), Response(KNOWN, 1, 2, 3, 4), Response(KNOWN, 1, 2, 3, 4, 5, REQUEST, matched=True, ended=True)],
)
def test_response_unpacked_is_what_was_packed(message: Response | Lost) -> None:
    packed = pack_response(message)
    assert pack_response(unpack_response(packed, HEADS)) == packed
