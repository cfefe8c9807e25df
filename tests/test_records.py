from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow import records
from ebbflow.errors import BatchInvalid
from ebbflow.kernel.layout import Layout, read_header
from ebbflow.v1 import raw_pb2

HEADER = "struct tiny_row {\n\t__u32 a;\n\t__u16 b;\n\t__u16 c;\n};\n"
# A whole batch, byte by byte: who changes this changes what every stored record means.
GOLDEN = bytes.fromhex(
    "0801"  # 1 schema_version: 1
    "120474696e79"  # 2 feature: tiny
    "19ffaf3ddd53c25065"  # 3 layout_hash, fixed64
    "22026831"  # 4 host_id: h1
    "3210000102030405060708090a0b0c0d0e0f"  # 6 boot_id
    "39e803000000000000"  # 7 run_id: 1000, fixed64
    "4002"  # 8 bucket: 2
    "4807"  # 9 sequence: 7
    "52150905000000000000001164000000000000001896 01"  # 10 clock: monotonic 5, unix 100, uncertainty 150
    "7802"  # 15 row_count: 2
    "820110" + "0100000002000300" + "0400000005000600"  # 16 rows
    "8a0108" + "03000000" + "05000000"  # 17 heap_ends: 3, 5
    "920105" + "6162636465"  # 18 heap: abcde
)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    path = tmp_path_factory.mktemp("header") / "tiny.h"
    path.write_text(HEADER)
    return read_header(path).structs["tiny_row"]


def make_envelope(**fields) -> raw_pb2.RawBatch:
    known = {"feature": "tiny", "host_id": "h1", "boot_id": bytes(range(16)), "run_id": 1000, "bucket": 2}
    return raw_pb2.RawBatch(**(known | {"sequence": 7} | fields))


def encode_payloads(layout: Layout, payloads: list[bytes], **fields) -> bytes:
    rows = np.zeros(len(payloads), layout.dtype)
    rows["a"] = np.arange(len(payloads))
    ends = np.cumsum([len(payload) for payload in payloads], dtype="<u4")
    return records.encode(make_envelope(**fields), layout, rows.tobytes(), ends.tobytes(), b"".join(payloads))


def test_encode_known_batch_gives_golden_bytes(layout):
    clock = raw_pb2.ClockPoint(monotonic_ns=5, unix_ns=100, uncertainty_ns=150)
    rows = np.array([(1, 2, 3), (4, 5, 6)], layout.dtype).tobytes()
    ends = np.array([3, 5], "<u4").tobytes()
    assert records.encode(make_envelope(clock=clock), layout, rows, ends, b"abcde") == GOLDEN


def test_decode_golden_bytes_gives_arrays_without_copies_of_the_envelope(layout):
    batch = records.decode(GOLDEN, layout)
    assert batch.rows.tolist() == [(1, 2, 3), (4, 5, 6)]
    assert [batch.payload(0), batch.payload(1)] == [b"abc", b"de"]
    assert batch.starts.tolist() == [0, 3]
    assert batch.source == ("h1", bytes(range(16)), 1000, 2)
    assert batch.unix_offset_ns == 95
    assert (batch.envelope.rows, batch.envelope.heap_ends, batch.envelope.heap) == (b"", b"", b"")
    assert not batch.rows.flags.writeable


def test_decode_batch_without_rows_is_valid(layout):
    batch = records.decode(encode_payloads(layout, []), layout)
    assert (len(batch.rows), len(batch.ends), len(batch.starts), batch.heap) == (0, 0, 0, b"")


@given(payloads=st.lists(st.binary(max_size=30), max_size=20))
def test_decode_of_encode_gives_back_every_payload(layout, payloads):
    batch = records.decode(encode_payloads(layout, payloads), layout)
    assert [batch.payload(index) for index in range(len(payloads))] == payloads
    assert batch.rows["a"].tolist() == list(range(len(payloads)))
    assert [batch.heap[s:e] for s, e in zip(batch.starts, batch.ends, strict=True)] == payloads


@given(payloads=st.lists(st.binary(max_size=30), max_size=5))
def test_encode_of_decode_gives_back_every_byte(layout, payloads):
    value = encode_payloads(layout, payloads)
    batch = records.decode(value, layout)
    again = records.encode(batch.envelope, layout, batch.rows.tobytes(), batch.ends.tobytes(), batch.heap)
    assert again == value


@settings(max_examples=200)
@given(position=st.integers(0, len(GOLDEN) - 1), byte=st.integers(0, 255))
def test_decode_one_changed_byte_is_read_or_refused_never_anything_else(layout, position, byte):
    value = bytearray(GOLDEN)
    value[position] = byte
    with suppress(BatchInvalid):
        batch = records.decode(bytes(value), layout)
        assert len(batch.rows) == len(batch.ends) == batch.envelope.row_count


@given(value=st.binary(max_size=200))
def test_decode_noise_is_refused(layout, value):
    with pytest.raises(BatchInvalid):
        records.decode(value, layout)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("schema_version", 2, "schema version 2, this reader knows 1"),
        ("layout_hash", 1, "rows of layout 0000000000000001, this reader knows tiny_row"),
        ("row_count", 3, "16 bytes of rows for 3 rows of 8"),
        ("rows", b"1234567", "7 bytes of rows for 2 rows of 8"),
        ("heap_ends", b"\x05\0\0\0", "4 bytes of heap ends for 2 rows"),
        ("host_id", "", "no host or boot id"),
        ("boot_id", b"short", "no host or boot id"),
        ("heap", b"abcdef", "payload ends do not rise to the heap's 6 bytes"),
        ("heap_ends", b"\x06\0\0\0\x05\0\0\0", "payload ends do not rise to the heap's 5 bytes"),
        ("connections", [raw_pb2.Connection(generation=9, process=4)], "connection 9 of process 4, which is not there"),
    ],
)
def test_decode_contradiction_is_refused_by_name(layout, field, value, told):
    envelope = raw_pb2.RawBatch.FromString(GOLDEN)
    envelope.ClearField(field)
    envelope.MergeFrom(raw_pb2.RawBatch(**{field: value}))
    with pytest.raises(BatchInvalid, match=told):
        records.decode(envelope.SerializeToString(), layout)


def test_decode_heap_without_rows_is_refused(layout):
    value = encode_payloads(layout, []) + raw_pb2.RawBatch(heap=b"x").SerializeToString()
    with pytest.raises(BatchInvalid, match="1 bytes of heap without rows"):
        records.decode(value, layout)


def test_decode_unknown_field_of_a_newer_producer_is_ignored(layout):
    unknown = b"\xfa\x3f\x01x"  # field 1023, one byte
    assert records.decode(GOLDEN + unknown, layout).rows.tolist() == [(1, 2, 3), (4, 5, 6)]
