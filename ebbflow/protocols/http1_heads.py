"""Parsed heads, remembered by their bytes: the heads of a service repeat, often to the byte.

The cache is keyed by the whole head, so a hit is as sound as parsing again. A head is kept when it comes for the second
time: heads that never repeat would only fill memory. It is bounded in number and in bytes; when it is full it is
emptied, which costs two parses for each head still in use and keeps the common case a plain dict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ebbflow.errors import ProtocolError
from ebbflow.protocols.http1_framing import (
    Framing,
    Kind,
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
    request_framing,
    response_framing,
)

MAX_HEADS = 8192
MAX_CACHED_HEAD_BYTES = 2048


@dataclass(slots=True, eq=False)
class KnownRequest:
    """A request head.

    Attributes:
        message_bytes: size of the whole message where it follows from the head alone and the response is framed by its
            own head: then the common path may take it. -1 otherwise.
        rendered: room for what a consumer derives from the head, by span kind.
    """

    raw: bytes
    head: RequestHead
    framing: Framing
    message_bytes: int
    rendered: list[Any]


@dataclass(slots=True, eq=False)
class KnownResponse:
    """A response head; `message_bytes` holds for a request that is neither HEAD nor CONNECT."""

    raw: bytes
    head: ResponseHead
    message_bytes: int
    rendered: list[Any]

    @property
    def is_interim(self) -> bool:
        """1xx but 101: another response follows for the same request (RFC 9110, 15.2)."""
        return self.head.status < 200 and self.head.status != 101  # noqa: PLR2004 - status codes


def know_request(raw: bytes) -> KnownRequest:
    """Raises ProtocolError where there is no request line."""
    head = parse_request_head(raw)
    framing = request_framing(head)
    plain = framing.kind <= Kind.LENGTH and head.method not in {b"HEAD", b"CONNECT"}
    return KnownRequest(raw, head, framing, len(raw) + framing.length if plain else -1, [None, None])


def know_response(raw: bytes) -> KnownResponse:
    """Raises ProtocolError where there is no status line."""
    head = parse_response_head(raw)
    framing = response_framing(head)
    plain = framing.kind <= Kind.LENGTH and head.status >= 200  # noqa: PLR2004 - status codes
    return KnownResponse(raw, head, len(raw) + framing.length if plain else -1, [None, None])


KnownT = TypeVar("KnownT", KnownRequest, KnownResponse)


class HeadCache(Generic[KnownT]):
    """`known` may be read directly: bytes of a whole head to what is known of it."""

    def __init__(self, know: Any) -> None:
        self._know = know
        self.known: dict[bytes, KnownT] = {}
        self._seen_once: set[int] = set()

    def get(self, raw: bytes) -> KnownT:
        """What is known of a head, from memory or by parsing it.

        Raises:
            ProtocolError: it is no head.
        """
        return self.known.get(raw) or self._learn(raw)

    def _learn(self, raw: bytes) -> KnownT:
        known: KnownT = self._know(raw)
        if len(raw) <= MAX_CACHED_HEAD_BYTES:
            self._admit(raw, known)
        return known

    def _admit(self, raw: bytes, known: KnownT) -> None:
        mark = hash(raw)
        if mark in self._seen_once:
            if len(self.known) >= MAX_HEADS:
                self.known.clear()
            self.known[raw] = known
            return
        if len(self._seen_once) >= MAX_HEADS:
            self._seen_once.clear()
        self._seen_once.add(mark)

    def find(self, raw: bytes) -> KnownT | None:
        """Learn bytes up to the first CRLF CRLF that are not known yet; None where they are no whole head."""
        if raw.find(b"\n\r\n") != len(raw) - 3 or b"\n\n" in raw:
            return None
        try:
            return self._learn(raw)
        except ProtocolError:
            return None


@dataclass(slots=True)
class Heads:
    """The caches of both directions, shared by all connections of a processor."""

    requests: HeadCache[KnownRequest] = field(default_factory=lambda: HeadCache(know_request))
    responses: HeadCache[KnownResponse] = field(default_factory=lambda: HeadCache(know_response))
