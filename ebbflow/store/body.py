"""Request bodies within limits: how much arrives, how much it unpacks to, how much waits in memory."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from ebbflow.errors import RateLimited, ValidationError

MAX_BODY_BYTES = 64 << 20
_GZIP = 31  # zlib's window bits: a gzip header, the largest window
RETRY_AFTER_S = 1


class TooLarge(ValidationError):
    """More than `MAX_BODY_BYTES`, packed or unpacked: HTTP 413."""


class Budget:
    """Bytes of bodies being received at one time, over all connections."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        share = Share(self)
        try:
            yield share
        finally:
            self._used -= share.used_bytes

    def reserve(self, count: int) -> None:
        """Take `count` more bytes.

        Raises:
            RateLimited: they are not there; a single body always gets what it needs.
        """
        if self._used and self._used + count > self._limit:
            raise RateLimited("too many requests are being received", retry_after_s=RETRY_AFTER_S)
        self._used += count


class Share:
    """What one request holds of a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.used_bytes = 0

    def take(self, count: int) -> None:
        self._budget.reserve(count)
        self.used_bytes += count


async def read_body(
    chunks: AsyncIterator[bytes], content_length: str | None, share: Share, limit: int = MAX_BODY_BYTES
) -> bytes:
    """Collect a body.

    Raises:
        TooLarge: announced or found to be larger than `limit` bytes.
        RateLimited: memory for bodies is used up.
    """
    if content_length and content_length.isdigit() and int(content_length) > limit:
        raise TooLarge(f"the body has {content_length} bytes, the limit is {limit}")
    parts, total = [], 0
    async for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise TooLarge(f"the body has more than {limit} bytes")
        share.take(len(chunk))
        parts.append(chunk)
    return b"".join(parts)


def gunzip(data: bytes, limit: int = MAX_BODY_BYTES) -> bytes:
    """Unpack one or more gzip members (RFC 1952), never to more than `limit` bytes.

    Raises:
        TooLarge: there is more than `limit` in it.
        ValidationError: not gzip, or cut short.
    """
    parts: list[bytes] = []
    left = limit
    while data or not parts:
        unpacker = zlib.decompressobj(_GZIP)
        try:
            parts.append(unpacker.decompress(data, left + 1))
        except zlib.error as error:
            raise ValidationError(f"the body is not gzip: {error}") from None
        left -= len(parts[-1])
        if left < 0:
            raise TooLarge(f"the body unpacks to more than {limit} bytes")
        if not unpacker.eof:
            raise ValidationError("the body is not gzip: it is cut short")
        data = unpacker.unused_data
    return b"".join(parts)
