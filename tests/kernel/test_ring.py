import mmap
import os
import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.errors import KernelError
from ebbflow.kernel.ring import Ring, pages, walk

BUSY, DISCARD = 1 << 31, 1 << 30


def record(payload: bytes, flags: int = 0) -> bytes:
    padded = payload.ljust(-(-len(payload) // 8) * 8, b"\0")
    return struct.pack("<II", len(payload) | flags, 0) + padded


def payloads(data: bytes, offsets, lengths) -> list[bytes]:
    return [data[o : o + n] for o, n in zip(offsets.tolist(), lengths.tolist(), strict=True)]


@given(st.lists(st.tuples(st.binary(max_size=40), st.sampled_from([0, 0, 0, DISCARD]))))
def test_walk_complete_records_gives_all_but_discarded(records):
    data = b"".join(record(payload, flags) for payload, flags in records)
    offsets, lengths, end = walk(data)
    assert payloads(data, offsets, lengths) == [payload for payload, flags in records if not flags]
    assert end == len(data)


def test_walk_busy_record_stops_before_it():
    data = record(b"first") + record(b"second", BUSY) + record(b"third")
    offsets, lengths, end = walk(data)
    assert payloads(data, offsets, lengths) == [b"first"]
    assert end == len(record(b"first"))


@given(st.integers(0, 47))
def test_walk_cut_record_is_left_for_later(cut):
    data = record(b"x" * 24) + record(b"y" * 8)
    offsets, lengths, end = walk(data[:cut])
    complete = [b"x" * 24] if cut >= 32 else []
    assert payloads(data, offsets, lengths) == complete
    assert end == 32 * len(complete)


def fake_map(size: int, content: bytes, consumed: int) -> int:
    """A file laid out as the kernel lays out a ring's pages; the data area stands twice."""
    page = mmap.PAGESIZE
    ring = bytearray(size)
    for index, byte in enumerate(content):
        ring[(consumed + index) % size] = byte
    fd = os.memfd_create("ring")
    os.write(fd, struct.pack("<Q", consumed).ljust(page, b"\0"))
    os.write(fd, struct.pack("<Q", consumed + len(content)).ljust(page, b"\0"))
    os.write(fd, bytes(ring) * 2)
    return fd


def test_ring_read_across_the_wrap_gives_whole_records():
    size = mmap.PAGESIZE
    content = record(b"a" * 100) + record(b"b" * 100)
    fd = fake_map(size, content, consumed=3 * size - 96)
    ring = Ring(fd, size)
    assert ring.fill() == len(content) / size
    chunk = ring.read(1 << 20)
    assert payloads(chunk.data, chunk.offsets, chunk.lengths) == [b"a" * 100, b"b" * 100]
    assert ring.fill() == 0
    assert len(ring.read(1 << 20).offsets) == 0
    ring.close()
    os.close(fd)


def test_ring_read_limited_takes_the_rest_later():
    size = mmap.PAGESIZE
    content = b"".join(record(bytes([n]) * 56) for n in range(10))
    fd = fake_map(size, content, consumed=0)
    ring = Ring(fd, size)
    seen = []
    while len((chunk := ring.read(3 * 64 + 8)).offsets):
        seen += payloads(chunk.data, chunk.offsets, chunk.lengths)
    assert seen == [bytes([n]) * 56 for n in range(10)]
    ring.close()
    os.close(fd)


def test_ring_unmappable_descriptor_is_a_kernel_error():
    read, write = os.pipe()
    with pytest.raises(KernelError, match="cannot map"):
        Ring(read, mmap.PAGESIZE)
    os.close(read)
    os.close(write)


def test_pages_powers_of_two_only():
    assert [pages(size) for size in (4096, 8192, 1 << 26)] == [1, 2, 16384]
    for size in (1, 4095, 12288):
        with pytest.raises(KernelError) as caught:
            pages(size)
        assert caught.value.hint.startswith("set capture.ring_bytes to ")


def test_offsets_rise_by_more_than_a_header():
    data = b"".join(record(b"x" * n) for n in range(30))
    offsets, _, _ = walk(data)
    assert all(b - a >= 8 for a, b in pairwise(offsets.tolist()))
    assert offsets.dtype == np.int64
