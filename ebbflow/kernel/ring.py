"""Reads a BPF ring buffer straight from its memory: no callback per event, no wake-up, no copy but one.

The map's pages (linux: kernel/bpf/ringbuf.c) are mapped here as two areas:

    page 0            consumer position, u64, ours to write
    page 1            producer position, u64, read-only
    pages 2 ...       data, mapped twice in a row, so that a record never wraps

A record is an 8-byte header, u32 length with bit 31 = still being written and bit 30 = discarded, then the bytes,
padded to 8. A record still being written ends the read: it and all behind it come with the next one.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import numpy as np

from ebbflow.errors import KernelError

_BUSY = 1 << 31
_DISCARD = 1 << 30
HEADER_BYTES = 8


@dataclass(slots=True)
class Chunk:
    """What one read gave.

    Attributes:
        data: copy of the ring's bytes.
        offsets: int64, shape (n,): where in `data` the records' payloads begin, in the order they were reserved.
        lengths: int64, shape (n,): their lengths in bytes.
    """

    data: bytes
    offsets: np.ndarray[tuple[int], np.dtype[np.int64]]
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]]


class Ring:
    """The only consumer of one ring buffer map.

    Args:
        fd: file descriptor of the map; the caller keeps it open.
        size_bytes: the map's size, a power of two of at least a page.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        page = mmap.PAGESIZE
        self.size_bytes = size_bytes
        try:
            self._consumer = mmap.mmap(fd, page, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            self._data = mmap.mmap(fd, page + 2 * size_bytes, prot=mmap.PROT_READ, offset=page)
        except (OSError, ValueError) as error:
            raise KernelError(f"cannot map a ring buffer of {size_bytes} bytes: {error}") from None
        self._consumed = memoryview(self._consumer).cast("Q")
        self._produced = memoryview(self._data).cast("Q")
        self._bytes = memoryview(self._data)[page:]

    def fill(self) -> float:
        """Share of the ring that waits to be read, 0 to 1."""
        return (self._produced[0] - self._consumed[0]) / self.size_bytes

    @property
    def produced(self) -> int:
        """Bytes the kernel has ever written."""
        return int(self._produced[0])

    @property
    def consumed(self) -> int:
        """Bytes ever taken."""
        return int(self._consumed[0])

    def read(self, limit_bytes: int) -> Chunk:
        """Take what is complete, at most about `limit_bytes`, and give its room back to the kernel."""
        begin = self._consumed[0]
        available = min(self._produced[0] - begin, limit_bytes)
        start = begin % self.size_bytes
        # Copied before it is walked: a record that completes meanwhile is simply left for the next read.
        data = bytes(self._bytes[start : start + available])
        offsets, lengths, end = walk(data)
        self._consumed[0] = begin + end
        return Chunk(data, offsets, lengths)

    def close(self) -> None:
        for view in (self._consumed, self._produced, self._bytes):
            view.release()
        self._consumer.close()
        self._data.close()


def walk(
    data: bytes,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]], int]:
    """Find the complete records at the front of a copy of the ring.

    Returns:
        payload offsets, payload lengths (discarded records left out), and where the first record begins that is not
        complete.
    """
    words = memoryview(data)[: len(data) & ~7].cast("I")
    begins: list[int] = []
    append = begins.append
    position, end = 0, len(words)
    # The only loop over single records in the producer: every operation in it counts.
    while position < end:
        length = words[position]
        if length < _DISCARD:
            append(position)
        elif length & _BUSY:
            break
        else:
            length ^= _DISCARD
        position += (length + 15) >> 3 << 1
    if position > end:  # the last one was cut by the limit of the read
        position = begins.pop()
    offsets = np.array(begins, np.int64)
    lengths = np.frombuffer(data, "<u4", count=end)[offsets].astype(np.int64)
    return (offsets + 2) * 4, lengths, position * 4


def pages(size_bytes: int) -> int:
    """A ring's size in pages, as BCC wants it.

    Raises:
        KernelError: not a power of two of at least a page; the kernel takes nothing else.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    if size_bytes < page or size_bytes & (size_bytes - 1):
        raise KernelError(
            f"a ring buffer of {size_bytes} bytes: the kernel wants a power of two of at least {page}",
            hint=f"set capture.ring_bytes to {max(page, 1 << (size_bytes - 1).bit_length())}",
        )
    return size_bytes // page
