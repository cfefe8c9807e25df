import struct

import numpy as np

from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.kernel.ring import Chunk, walk
from ebbflow.kernel.rows import rows_of

ROW = read_header(BPF_DIRECTORY / "sockets.h").structs["sockets_row"]


def chunk_of(*records: bytes) -> Chunk:
    data = b"".join(struct.pack("<II", len(r), 0) + r.ljust(-(-len(r) // 8) * 8, b"\0") for r in records)
    offsets, lengths, _ = walk(data)
    return Chunk(data, offsets, lengths)


def row(**fields) -> bytes:
    value = np.zeros(1, ROW.dtype)
    for name, number in fields.items():
        value[name] = number
    return value.tobytes()


def test_rows_of_records_gives_rows_and_payload_bounds():
    drained = rows_of(chunk_of(row(pid=7, captured=3) + b"abc", row(pid=8), row(pid=9, captured=9) + b"123456789"), ROW)
    assert drained.rows["pid"].tolist() == [7, 8, 9]
    bounds = zip(drained.starts.tolist(), drained.ends.tolist(), strict=True)
    assert [drained.data[a:b] for a, b in bounds] == [b"abc", b"", b"123456789"]
    assert drained.invalid == 0


def test_rows_of_short_or_contradicting_records_counts_them():
    drained = rows_of(chunk_of(b"short", row(pid=7, captured=5) + b"abc", row(pid=8, captured=1) + b"x"), ROW)
    assert drained.rows["pid"].tolist() == [8]
    assert drained.invalid == 2
    assert drained.rejected == b"short" + row(pid=7, captured=5) + b"abc"


def test_rows_of_nothing_is_empty():
    drained = rows_of(chunk_of(), ROW)
    assert len(drained.rows) == 0
    assert drained.invalid == 0
