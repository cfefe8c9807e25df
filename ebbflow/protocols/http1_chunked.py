"""Chunked transfer coding (RFC 9112, section 7.1), told apart byte by byte without decoding it.

chunked-body = *chunk last-chunk trailer-section CRLF
chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
last-chunk   = 1*"0" [ chunk-ext ] CRLF
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any, NamedTuple

from ebbflow.errors import ProtocolError

Buffer = bytes | bytearray | memoryview

_LINE = re.compile(rb"([^\n]*)(\n?)")
# RFC 9112, 7.1: chunk-size = 1*HEXDIG; whitespace before an extension is obsolete but seen (7.1.1, BWS).
_HEX = re.compile(rb"[0-9A-Fa-f]{1,15}\Z")
_MAX_SIZE_BYTES = 24

MAX_CHUNK_LINE_BYTES = 4096
MAX_TRAILER_BYTES = 16384


class SpanKind(IntEnum):
    DATA = 0
    EXTENSION = 1
    TRAILER = 2


class Span(NamedTuple):
    """Bytes [start, end) of the scanned buffer that are not framing: chunk data, chunk extensions, trailer fields."""

    start: int
    end: int
    kind: SpanKind


class _Expect(IntEnum):
    SIZE_LINE = 0
    DATA = 1
    DATA_END = 2
    TRAILER_LINE = 3
    DONE = 4


class ChunkedScanner:
    """Follows a chunked body (RFC 9112, 7.1) through any cuts, holding at most one unfinished line's size digits.

    Attributes:
        data_bytes: size of the decoded body so far.
        done: the empty line after the last chunk's trailers was seen.
    """

    __slots__ = ("_digits", "_expect", "_line_bytes", "_remaining", "_trailer_bytes", "data_bytes")

    def __init__(self) -> None:
        self.data_bytes = 0
        self._expect = _Expect.SIZE_LINE
        self._remaining = 0  # of the chunk, in DATA
        self._digits = b""  # of a size line cut before its end
        self._line_bytes = 0  # of the unfinished line so far, 0 at its start
        self._trailer_bytes = 0

    @property
    def done(self) -> bool:
        return self._expect is _Expect.DONE

    def scan(self, buffer: Buffer, start: int = 0) -> tuple[int, list[Span]]:
        """Consume until the body's end or the buffer's.

        Returns:
            The offset after the last byte consumed (the next message begins there when `done`), and what between
            `start` and it is not framing.

        Raises:
            ProtocolError: this is no chunked coding; the stream cannot be followed any further.
        """
        spans: list[Span] = []
        offset, end = start, len(buffer)
        while offset < end and self._expect is not _Expect.DONE:
            if self._expect is _Expect.DATA:
                offset = self._scan_data(offset, end, spans)
            else:
                offset = self._scan_line(buffer, offset, spans)
        return offset, spans

    def skip(self, size: int) -> bool:
        """Pass over bytes that were not captured. False: framing was among them, and the end cannot be told."""
        if self._expect is not _Expect.DATA or size > self._remaining:
            return size == 0
        self._take(size)
        return True

    def state(self) -> list[Any]:
        """For a snapshot."""
        return [
            self.data_bytes,
            int(self._expect),
            self._remaining,
            self._digits,
            self._line_bytes,
            self._trailer_bytes,
        ]

    @classmethod
    def from_state(cls, state: list[Any]) -> ChunkedScanner:
        scanner = cls()
        scanner.data_bytes, expect, scanner._remaining, scanner._digits, scanner._line_bytes, scanner._trailer_bytes = (
            state
        )
        scanner._expect = _Expect(expect)
        return scanner

    def _take(self, size: int) -> None:
        self._remaining -= size
        self.data_bytes += size
        if not self._remaining:
            self._expect = _Expect.DATA_END

    def _scan_data(self, offset: int, end: int, spans: list[Span]) -> int:
        size = min(self._remaining, end - offset)
        self._take(size)
        spans.append(Span(offset, offset + size, SpanKind.DATA))
        return offset + size

    def _scan_line(self, buffer: Buffer, offset: int, spans: list[Span]) -> int:
        match = _LINE.match(buffer, offset)
        assert match is not None  # noqa: S101 - the pattern matches anything
        text, complete = match[1], bool(match[2])
        if self._expect is _Expect.SIZE_LINE:
            self._size_line(text, complete, offset, spans)
        elif self._expect is _Expect.DATA_END:
            self._data_end(text, complete)
        else:
            self._trailer_line(text, complete, offset, spans)
        self._line_bytes = 0 if complete else self._line_bytes + match.end() - offset
        return match.end()

    def _size_line(self, text: bytes, complete: bool, offset: int, spans: list[Span]) -> None:
        extension = text
        if b";" not in self._digits:
            digits, semicolon, extension = text.partition(b";")
            self._digits += digits + semicolon
        if self._line_bytes + len(text) > MAX_CHUNK_LINE_BYTES or len(self._digits) > _MAX_SIZE_BYTES:
            raise ProtocolError("chunk-size line too long")
        end = len(text.rstrip(b"\r"))
        if extension and end > len(text) - len(extension):
            spans.append(Span(offset + len(text) - len(extension), offset + end, SpanKind.EXTENSION))
        if complete:
            self._start_chunk()

    def _start_chunk(self) -> None:
        size = self._digits.removesuffix(b";").removesuffix(b"\r").rstrip(b" \t")
        self._digits = b""
        if not _HEX.match(size):
            raise ProtocolError("chunk size is not hexadecimal")
        self._remaining = int(size, 16)
        self._expect = _Expect.DATA if self._remaining else _Expect.TRAILER_LINE

    def _data_end(self, text: bytes, complete: bool) -> None:
        if text.strip(b"\r") or self._line_bytes + len(text) > 1:
            raise ProtocolError("chunk data is not followed by a line end")
        if complete:
            self._expect = _Expect.SIZE_LINE

    def _trailer_line(self, text: bytes, complete: bool, offset: int, spans: list[Span]) -> None:
        self._trailer_bytes += len(text)
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise ProtocolError("trailer section too long")
        stripped = text.rstrip(b"\r")
        if stripped:
            spans.append(Span(offset, offset + len(stripped), SpanKind.TRAILER))
            self._digits = b"x"  # the line has content, however it is cut
        if complete:
            self._expect = _Expect.TRAILER_LINE if self._digits else _Expect.DONE
            self._digits = b""
