from types import SimpleNamespace

import numpy as np
import pytest

from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.kernel.rows import Drained
from ebbflow.kernel.spill import Spill, spilled_of

HEADER = read_header(BPF_DIRECTORY / "sockets.h")
ROW = HEADER.structs["sockets_row"]
OPEN, CLOSE, EXIT = (HEADER.enums["sockets_kind"][f"SOCKETS_{name}"] for name in ("OPEN", "CLOSE", "EXIT"))
VALUE_BYTES = ROW.size + HEADER.structs["sockets_open"].size


def value(kind: int, time_ns: int, payload: bytes = b"") -> bytes:
    row = np.zeros(1, ROW.dtype)
    row["kind"], row["time_ns"], row["captured"] = kind, time_ns, len(payload)
    return (row.tobytes() + payload).ljust(VALUE_BYTES, b"?")


def drained(*values: bytes) -> Drained:
    return spilled_of(values, ROW)


def contents(found: Drained) -> list[tuple[int, int, bytes]]:
    return [
        (int(row["kind"]), int(row["time_ns"]), found.data[start:end])
        for row, start, end in zip(found.rows, found.starts, found.ends, strict=True)
    ]


class Ring(SimpleNamespace):
    size_bytes = 1000
    produced = 0
    consumed = 0


@pytest.fixture
def table() -> dict[int, bytes]:
    return {}


@pytest.fixture
def spill(table) -> Spill:
    return Spill(table, ROW, OPEN, largest_bytes=100)


def test_spilled_values_become_rows_with_their_payload_only():
    found = drained(value(CLOSE, 2, b"totals"), value(OPEN, 1, b"address"))
    assert contents(found) == [(CLOSE, 2, b"totals"), (OPEN, 1, b"address")]


def test_spilled_nothing_is_no_rows():
    assert contents(drained()) == []


def test_spill_goes_by_time_between_what_was_read(spill, table):
    table.update({1: value(CLOSE, 9), 2: value(OPEN, 3, b"new")})
    read = drained(value(1, 4, b"data"), value(1, 5, b"more"), value(EXIT, 10))
    found = spill.around(read, Ring(produced=70, consumed=70))
    assert contents(found) == [(OPEN, 3, b"new"), (1, 4, b"data"), (1, 5, b"more"), (CLOSE, 9, b""), (EXIT, 10, b"")]
    assert (table, spill.waiting) == ({}, 0)


def test_spill_ends_wait_until_older_events_have_been_taken(spill, table):
    table[1] = value(CLOSE, 9)
    assert contents(spill.around(drained(), Ring(produced=70, consumed=30))) == []
    assert spill.waiting == 1
    assert spill.may_hold(Ring())
    assert contents(spill.around(drained(value(1, 4)), Ring(produced=90, consumed=70))) == [
        (1, 4, b""),
        (CLOSE, 9, b""),
    ]
    assert (spill.waiting, spill.may_hold(Ring())) == (0, False)


@pytest.mark.parametrize(("produced", "worth"), [(0, False), (900, False), (901, True), (1000, True)])
def test_spill_is_looked_for_when_an_event_might_not_have_found_room(spill, produced, worth):
    assert spill.may_hold(Ring(produced=5000 + produced, consumed=5000)) is worth
